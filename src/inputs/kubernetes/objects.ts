import { type Ip, parseIp } from "../../base/address.ts";
import { dnsName } from "../../base/name.ts";
import { field, fieldsOf, listOf, stringsOf, textOf, timeOf } from "./raw.ts";
import type { RawObject } from "./types.ts";

/** The part of each kind of object that counts, so that the rest can be forgotten. */

const NAME_MAX = 253; // a DNS subdomain (Kubernetes API conventions)
const ADDRESSES_MAX = 16; // a pod has one of each family (KEP-563)
const SERVERS_MAX = 16; // dnsConfig allows 3
const SEARCHES_MAX = 32; // dnsConfig's own limit since 1.26

export type DnsPolicy = "ClusterFirst" | "ClusterFirstWithHostNet" | "Default" | "None";
const DNS_POLICIES: readonly DnsPolicy[] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

export interface PodView {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly serviceAccountName: string;
  readonly hostNetwork: boolean;
  /** Of `status.podIPs`: set by the kubelet some time after the pod has started to speak. */
  readonly addresses: readonly Ip[];
  /** Succeeded or Failed: its addresses may be another pod's by now. */
  readonly finished: boolean;
  readonly deleting: boolean;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly dnsPolicy: DnsPolicy;
  /** What whoever created the pod wrote into `dnsConfig`: not to be believed without leave. */
  readonly nameservers: readonly Ip[];
  readonly searches: readonly string[];
  /** Annotation kubernetes.io/config.mirror of a static pod: the kubelet knows it by this. */
  readonly mirror: string | undefined;
}

/** A pod whose name or namespace is missing or absurd is none. */
export function podView(raw: RawObject): PodView | undefined {
  const namespace = textOf(raw.metadata.namespace, NAME_MAX);
  const name = textOf(raw.metadata.name, NAME_MAX);
  if (namespace === undefined || namespace === "" || name === undefined) return undefined;
  const spec = fieldsOf(field(raw, "spec"));
  const status = fieldsOf(field(raw, "status"));
  const dns = fieldsOf(field(spec, "dnsConfig"));
  const hostNetwork = field(spec, "hostNetwork") === true;
  const written = DNS_POLICIES.find((one) => one === field(spec, "dnsPolicy")) ?? "ClusterFirst";
  const phase = field(status, "phase");
  const account = textOf(field(spec, "serviceAccountName"), NAME_MAX);
  const list = listOf(field(status, "podIPs")).map((one) => field(fieldsOf(one), "ip"));
  return {
    uid: textOf(raw.metadata["uid"], NAME_MAX) ?? "",
    namespace,
    name,
    labels: stringsOf(raw.metadata["labels"]),
    serviceAccountName: account === undefined || account === "" ? "default" : account,
    hostNetwork,
    addresses: addressesOf(list.length > 0 ? list : [field(status, "podIP")], ADDRESSES_MAX),
    finished: phase === "Succeeded" || phase === "Failed",
    deleting: field(fieldsOf(raw.metadata), "deletionTimestamp") !== undefined,
    created: timeOf(raw.metadata["creationTimestamp"]),
    dnsPolicy: written === "ClusterFirst" && hostNetwork ? "Default" : written, // as the kubelet does
    nameservers: addressesOf(listOf(field(dns, "nameservers")), SERVERS_MAX),
    searches: namesOf(listOf(field(dns, "searches")), SEARCHES_MAX),
    mirror: textOf(field(fieldsOf(raw.metadata["annotations"]), "kubernetes.io/config.mirror"), NAME_MAX),
  };
}

function addressesOf(list: readonly unknown[], most: number): Ip[] {
  const found = new Set<Ip>();
  for (const one of list.slice(0, most)) {
    const address = parseIp(textOf(one, 64) ?? "");
    if (address !== undefined) found.add(address);
  }
  return [...found];
}

export function namesOf(list: readonly unknown[], most: number): string[] {
  return list.slice(0, most).flatMap((one) => dnsName(textOf(one, 255) ?? "") ?? []);
}

/** The label that every namespace carries with its own name; a server before 1.21 does not write it. */
const NAME_LABEL = "kubernetes.io/metadata.name";

/** The labels of a namespace. */
export function namespaceView(raw: RawObject): Readonly<Record<string, string>> | undefined {
  const name = textOf(raw.metadata.name, NAME_MAX);
  return name === undefined ? undefined : { ...stringsOf(raw.metadata["labels"]), [NAME_LABEL]: name };
}

export interface PolicyMap {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly resourceVersion: string;
  /** Milliseconds since 1970: of two that name the same policy, the older one has it. */
  readonly created: number;
  /** Only the keys that can be documents, or were meant to be. */
  readonly data: Readonly<Record<string, string>>;
  /** Who says to have written the data last, from `managedFields`. Clients choose these names: they are no proof. */
  readonly writer?: { readonly by: string; readonly at: string | null };
  /** `data` was left out: the namespace has more text than it may have. */
  readonly refused: boolean;
}

export function policyMapView(raw: RawObject): PolicyMap | undefined {
  const namespace = textOf(raw.metadata.namespace, NAME_MAX);
  const name = textOf(raw.metadata.name, NAME_MAX);
  if (namespace === undefined || name === undefined) return undefined;
  const data = stringsOf(field(raw, "data"));
  const writer = writerOf(raw.metadata["managedFields"]);
  for (const key of Object.keys(data)) if (!/\.ya?ml$/.test(key)) delete data[key];
  return {
    uid: textOf(raw.metadata["uid"], NAME_MAX) ?? "",
    namespace,
    name,
    resourceVersion: textOf(raw.metadata.resourceVersion, NAME_MAX) ?? "",
    created: timeOf(raw.metadata["creationTimestamp"]),
    data,
    ...(writer !== undefined && { writer }),
    refused: false,
  };
}

const MANAGERS_MAX = 64;
const MANAGER_CHARS_MAX = 128; // ValidateFieldManager of apimachinery

/** The field manager that has written `data` last: `kubectl-edit (Update)`. */
function writerOf(managedFields: unknown): PolicyMap["writer"] {
  let latest: { manager: string; operation: string; time: number } | undefined;
  for (const one of listOf(managedFields).slice(0, MANAGERS_MAX)) {
    const entry = fieldsOf(one);
    const owned = fieldsOf(field(entry, "fieldsV1"));
    const manager = textOf(field(entry, "manager"), MANAGER_CHARS_MAX);
    const time = timeOf(field(entry, "time"));
    if (manager === undefined || !Object.hasOwn(owned, "f:data") || (latest !== undefined && time < latest.time)) continue;
    latest = { manager, operation: textOf(field(entry, "operation"), 16) ?? "?", time };
  }
  if (latest === undefined) return undefined;
  const { manager, operation, time } = latest;
  return { by: `${plain(manager)} (${plain(operation)})`, at: time === 0 ? null : new Date(time).toISOString() };
}

/** Whatever could paint on a terminal is a question mark. */
function plain(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?");
}

export interface DnsService {
  readonly addresses: readonly Ip[];
  /** Where UDP or TCP port 53 of a pod's query goes. */
  readonly ports: readonly number[];
}

/** A DNS Service of the cluster: by its label, or by one of `names`. A headless one has no address, and is none. */
export function dnsServiceView(raw: RawObject, names: readonly string[]): DnsService | undefined {
  const labels = stringsOf(raw.metadata["labels"]);
  if (labels["k8s-app"] !== "kube-dns" && !names.includes(raw.metadata.name)) return undefined;
  const spec = fieldsOf(field(raw, "spec"));
  const list = listOf(field(spec, "clusterIPs"));
  const addresses = addressesOf(list.length > 0 ? list : [field(spec, "clusterIP")], ADDRESSES_MAX);
  const ports = new Set<number>();
  for (const one of listOf(field(spec, "ports"))) {
    const port = fieldsOf(one);
    const number = field(port, "port");
    const named = textOf(field(port, "name"), NAME_MAX) ?? "";
    // A metrics port is not asked for names.
    if (
      typeof number === "number" &&
      Number.isInteger(number) &&
      number > 0 &&
      number < 65_536 &&
      (number === 53 || named.startsWith("dns"))
    )
      ports.add(number);
  }
  return addresses.length === 0 || ports.size === 0 ? undefined : { addresses, ports: [...ports] };
}
