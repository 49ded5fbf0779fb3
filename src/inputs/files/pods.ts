import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import { type Endpoint, type Ip, parseEndpoint, parseIp } from "../../base/address.ts";
import type { Problem } from "../../model/policy.ts";
import type { Pod, Snapshot } from "../../model/snapshot.ts";

export { parseEndpoint } from "../../base/address.ts";

/** What the pods file (DESIGN §9) says: everything of a Snapshot but the policies. */
export type PodsFile = Omit<Snapshot, "policies">;

export const PODS_MAX = 1000; // kubelet's limit is 110 by default, 250 in large clusters
const FIELDS = new Set(["resolvers", "pods", "namespaces", "interfacePrefixes"]);
const POD_FIELDS = new Set(["namespace", "name", "uid", "labels", "serviceAccountName", "interface", "addresses", "searches"]);

/** Reads the pods file. With any problem there is no result: half a list of pods would unguard the other half. */
export function readPods(file: string, text: string): { readonly pods?: PodsFile; readonly problems: readonly Problem[] } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const problems: Problem[] = [];
  const say = (node: Node | undefined | null, path: string, message: string, hint?: string): void => {
    const { line, col } = lines.linePos(node?.range?.[0] ?? 0);
    problems.push({ file, line: Math.max(line, 1), column: Math.max(col, 1), path, message, hint });
  };
  for (const error of document.errors) {
    const at = error.linePos?.[0];
    problems.push({
      file,
      line: at?.line ?? 1,
      column: at?.col ?? 1,
      path: "",
      message: error.message.split("\n")[0] ?? "not YAML",
      hint: undefined,
    });
  }
  if (problems.length > 0) return { problems };

  const root = document.contents;
  if (!isMap(root)) {
    say(root as Node | null, "", "the pods file is not a mapping", "start it with `resolvers:` and `pods:`");
    return { problems };
  }
  const fields = (node: Node | null | undefined, path: string, known: ReadonlySet<string>): Map<string, Node | null> => {
    const found = new Map<string, Node | null>();
    if (!isMap(node)) {
      say(node, path, "must be a mapping");
      return found;
    }
    for (const pair of node.items) {
      const key = isScalar(pair.key) ? String(pair.key.value) : "?";
      if (!known.has(key))
        say(pair.key as Node, path === "" ? key : `${path}.${key}`, `unknown field \`${key}\``, `known are: ${[...known].join(", ")}`);
      else found.set(key, pair.value as Node | null);
    }
    return found;
  };
  const items = (node: Node | null | undefined, path: string): Node[] => {
    if (node === undefined || (isScalar(node) && node.value === null)) return [];
    if (isSeq(node)) return node.items as Node[];
    say(node, path, "must be a list");
    return [];
  };
  const string = (node: Node | null | undefined): string | undefined =>
    isScalar(node) && typeof node.value === "string" ? node.value : undefined;
  const strings = (node: Node | null | undefined, path: string): Record<string, string> => {
    const result: Record<string, string> = Object.create(null) as Record<string, string>;
    if (node === undefined || node === null) return result;
    if (!isMap(node)) {
      say(node, path, "must be a mapping of strings");
      return result;
    }
    for (const pair of node.items) {
      const value = isScalar(pair.value) ? pair.value.value : undefined;
      if (typeof value !== "string") say(pair.value as Node, `${path}.${String(pair.key)}`, "must be a string", "put it in quotes");
      else result[String(isScalar(pair.key) ? pair.key.value : pair.key)] = value;
    }
    return result;
  };

  const top = fields(root, "", FIELDS);
  const resolvers: Endpoint[] = [];
  for (const [i, node] of items(top.get("resolvers"), "resolvers").entries()) {
    const endpoint = parseEndpoint(string(node) ?? "");
    if (endpoint === undefined) say(node, `resolvers[${i}]`, "not an address and port", 'write "10.96.0.10:53" or "[fd00::a]:53"');
    else resolvers.push(endpoint);
  }
  const interfacePrefixes: string[] = [];
  for (const [i, node] of items(top.get("interfacePrefixes"), "interfacePrefixes").entries()) {
    const prefix = string(node);
    if (prefix === undefined || !/^[A-Za-z0-9_.-]{1,14}$/.test(prefix))
      say(node, `interfacePrefixes[${i}]`, "not the beginning of an interface name", "for example cali");
    else interfacePrefixes.push(prefix);
  }
  const namespaces: Record<string, Record<string, string>> = Object.create(null) as Record<string, Record<string, string>>;
  const listed = top.get("namespaces");
  if (isMap(listed)) {
    for (const pair of listed.items) {
      const name = String(isScalar(pair.key) ? pair.key.value : pair.key);
      namespaces[name] = strings(pair.value as Node, `namespaces.${name}`);
    }
  } else if (listed !== undefined && listed !== null) say(listed, "namespaces", "must be a mapping of namespace to labels");

  const pods: Pod[] = [];
  const byKey = new Set<string>();
  const byAddress = new Map<Ip, string>();
  const list = items(top.get("pods"), "pods");
  if (list.length > PODS_MAX) say(list[PODS_MAX], "pods", `${list.length} pods; the limit is ${PODS_MAX}`);
  for (const [i, node] of list.slice(0, PODS_MAX).entries()) {
    const path = `pods[${i}]`;
    const pod = fields(node, path, POD_FIELDS);
    const need = (name: string): string => {
      const value = string(pod.get(name));
      if (value === undefined || value === "") say(pod.get(name) ?? node, `${path}.${name}`, `\`${name}\` is missing or not a string`);
      return value ?? "";
    };
    const [namespace, name, iface] = [need("namespace"), need("name"), need("interface")];
    if (!/^[A-Za-z0-9_.@:-]{1,15}$/.test(iface))
      say(
        pod.get("interface") ?? node,
        `${path}.interface`,
        "not an interface name",
        "the host side of the pod's veth pair, at most 15 characters",
      );
    const key = `${namespace}/${name}`;
    if (byKey.has(key)) say(node, path, `the pod ${key} is listed twice`);
    byKey.add(key);
    const addresses: Ip[] = [];
    for (const [k, item] of items(pod.get("addresses"), `${path}.addresses`).entries()) {
      const address = parseIp(string(item) ?? "");
      if (address === undefined) {
        say(item, `${path}.addresses[${k}]`, "not an IP address", "without a prefix length; IPv6 in quotes");
        continue;
      }
      const other = byAddress.get(address);
      if (other !== undefined) say(item, `${path}.addresses[${k}]`, `the pod ${other} has this address too`);
      byAddress.set(address, key);
      addresses.push(address);
    }
    pods.push({
      key,
      uid: string(pod.get("uid")) ?? key,
      namespace,
      name,
      labels: strings(pod.get("labels"), `${path}.labels`),
      serviceAccountName: string(pod.get("serviceAccountName")) ?? "default",
      interface: iface,
      addresses,
      searches: pod.has("searches")
        ? items(pod.get("searches"), `${path}.searches`).map((item) => (string(item) ?? "").toLowerCase())
        : [`${namespace}.svc.cluster.local`, "svc.cluster.local", "cluster.local"],
    });
  }
  if (problems.length > 0) return { problems };
  for (const pod of pods) namespaces[pod.namespace] ??= {};
  for (const [name, labels] of Object.entries(namespaces)) labels["kubernetes.io/metadata.name"] = name;
  return { pods: { resolvers, pods, namespaces, interfacePrefixes }, problems };
}
