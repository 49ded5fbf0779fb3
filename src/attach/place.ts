import { createHash } from "node:crypto";
import type { Ip } from "../base/address.ts";
import { type CgroupUid, cgroupUid } from "./cgroup-path.ts";

/** What the API says of a pod, as far as it matters for finding its interface. */
export interface PodPlace {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** status.podIPs; empty before it has some. */
  readonly addresses: readonly Ip[];
  readonly hostNetwork: boolean;
  /** Annotation `kubernetes.io/config.mirror` of a static pod: the kubelet knows it by this hash, not by its UID. */
  readonly mirror?: string | undefined;
}

/**
 * `found`: the host side of the pod's interface; `index` tells one interface from the next of the same name. `later`: not (yet)
 * to be seen, ask again. `unenforceable`: its packets do not cross this node's netfilter as a pod's do, and will not. `why` is
 * a sentence for an operator.
 */
export type Located =
  | { readonly kind: "found"; readonly interface: string; readonly index: number; readonly how: How }
  | { readonly kind: "later"; readonly why: string }
  | { readonly kind: "unenforceable"; readonly why: string };

/**
 * Which witness was believed, best first. `process`: the kernel says that the interface leads to the network namespace of a
 * process in the pod's cgroup. `route`: the node sends the pod's address there. `name`: the CNI names interfaces after pods.
 * `bridge`: neighbour and forwarding tables; a neighbour on the bridge can forge these.
 */
export type How = "process" | "route" | "name" | "bridge";

/** Something an operator should know, though the pod may be found. */
export interface Finding {
  readonly uid: string;
  /**
   * `disagree`: two witnesses name different interfaces. `claimed`: another pod has the interface. `second`: the pod has a
   * further way out that nobody guards.
   */
  readonly what: "disagree" | "claimed" | "second" | "bridge-netfilter";
  readonly why: string;
}

/**
 * The UIDs under which the kubelet may keep the pod's cgroup: its own, or a static pod's hash. The annotation is anybody's to
 * write, so it counts only where the pod's own UID has no cgroup, and only if it is a hash (no other pod's UID is one).
 */
export function cgroupsOf(pod: PodPlace): readonly CgroupUid[] {
  const mirror = pod.mirror !== undefined && /^[0-9a-f]{32}$/.test(pod.mirror) ? pod.mirror : "";
  return [cgroupUid(pod.uid), cgroupUid(mirror)].filter((uid) => uid !== undefined);
}

/**
 * Calico (`cali`, also as the policy engine of others), the AWS VPC CNI (`eni`; `vlan` with security groups for pods), Azure
 * CNI in transparent mode (`azv`).
 */
const NAMED = ["cali", "eni", "azv", "vlan"] as const;

/**
 * The names that CNIs give to the host side, known before the CNI has run: a prefix and 11 hexadecimal digits of SHA-1("namespace.name")
 * (libcalico-go WorkloadEndpoint naming; amazon-vpc-cni-k8s GeneratePodHostVethName, made to agree with it). Only the node's root names
 * interfaces, so a name that is there is the CNI's word; it may be the word about an earlier pod of that name.
 */
export function predictedNames(namespace: string, name: string): readonly string[] {
  const digits = createHash("sha1").update(`${namespace}.${name}`).digest("hex").slice(0, 11);
  return NAMED.map((prefix) => prefix + digits);
}
