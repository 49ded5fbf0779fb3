import type { Brand } from "../base/brand.ts";

/**
 * A pod's UID as cgroup names have it: of letters, digits and `-` (systemd's slices have `_` there, which is a `-` here). The
 * API's UID, or for a static pod the hash of its manifest.
 */
export type CgroupUid = Brand<string, "CgroupUid">;

/** Characters: a UUID has 36, a hash 32. */
const UID_MAX = 64;
/** Characters of a path that is looked at: PATH_MAX. */
const PATH_MAX = 4096;

/** undefined: nothing that the kubelet would have made a folder of; `..` and `/` are not. */
export function cgroupUid(text: string): CgroupUid | undefined {
  if (text.length === 0 || text.length > UID_MAX || !/^[0-9A-Za-z][0-9A-Za-z_-]*$/.test(text)) return undefined;
  return text.replaceAll("_", "-") as CgroupUid;
}

/**
 * What a folder of the cgroup tree is. `pod`: everything below it is the pod's. `pods`: the kubelet's, pods are in it (kubepods and its QoS
 * folders). `helper`: CRI-O's conmon, in the pod's folder but in the node's network. `other`: anything.
 */
export type Folder = { readonly kind: "pod"; readonly uid: CgroupUid } | { readonly kind: "pods" | "helper" | "other" };

const PODS: Folder = { kind: "pods" };
const HELPER: Folder = { kind: "helper" };
const OTHER: Folder = { kind: "other" };

/**
 * Driver systemd. A cgroup root of the kubelet (kind: `/kubelet`) is part of every name. A containerd that was not told of the
 * driver makes one folder `kubepods-…-pod….slice:cri-containerd:ID` of its own beside them.
 */
const SLICE = /^(?:[^/:]{1,128}-)?kubepods(?:-burstable|-besteffort)?(?:-pod([0-9A-Za-z_-]{1,64}))?\.slice(?::[^/:]{1,64}:[^/:]{1,128})?$/;
/** Driver cgroupfs: `kubepods/burstable/pod…`. Seen out of a cgroup namespace, a path may begin below: `/../pod…`. */
const PLAIN = /^pod([0-9A-Za-z_-]{1,64})$/;
const PLAIN_PARENTS: ReadonlySet<string> = new Set(["kubepods", "burstable", "besteffort", ".."]);

/** A folder by its name and its parent's. */
export function folderOf(name: string, parent: string): Folder {
  const slice = SLICE.exec(name);
  const text = slice === null ? (PLAIN_PARENTS.has(parent) ? PLAIN.exec(name)?.[1] : undefined) : slice[1];
  const uid = text === undefined ? undefined : cgroupUid(text);
  if (uid !== undefined) return { kind: "pod", uid };
  if (slice !== null && slice[1] === undefined && !name.includes(":")) return PODS;
  if (name === "kubepods" || (parent === "kubepods" && PLAIN_PARENTS.has(name))) return PODS;
  return name.startsWith("crio-conmon-") ? HELPER : OTHER;
}

/**
 * Whose cgroup a path is: the outermost pod in it. What is inside a pod's folder may be named by the pod itself, where cgroups
 * are delegated to it.
 */
export function podOfPath(path: string): CgroupUid | undefined {
  if (path.length > PATH_MAX) return undefined;
  let parent = "";
  for (const name of path.split("/")) {
    const folder = folderOf(name, parent);
    if (folder.kind === "pod") return folder.uid;
    parent = name;
  }
  return undefined;
}

/** /proc/PID/cgroup: `id:controllers:path` lines. undefined: no pod's, or lines that name different ones. */
export function podOfProcess(text: string): CgroupUid | undefined {
  let found: CgroupUid | undefined;
  for (const line of text.split("\n")) {
    const at = line.indexOf(":", line.indexOf(":") + 1);
    const uid = at < 0 ? undefined : podOfPath(line.slice(at + 1));
    if (uid === undefined) continue;
    if (found !== undefined && found !== uid) return undefined;
    found = uid;
  }
  return found;
}
