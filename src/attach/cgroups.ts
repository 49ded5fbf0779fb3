import { join } from "node:path";
import { type CgroupUid, folderOf } from "./cgroup-path.ts";
import { hasFolders, list, readText } from "./files.ts";

/** Folders of one that are looked at; the kubelet has a folder a pod, systemd one a unit. */
const CHILDREN_MAX = 4096;
/** Folders looked at in a search of the whole tree, and how deep (kind in docker: /docker/ID/kubelet.slice/… has 4 before the pod). */
const SEARCH_MAX = 8192;
const DEPTH_MAX = 10;
/** The kubelet's folders are made when it starts, so they are looked for again only now and then. */
const SEARCH_AGAIN_MS = 60_000;
const SEARCH_EMPTY_AGAIN_MS = 1000;
/** Folders of one pod: its containers', and what they made below. Nearest first, so that a pod cannot hide its first process. */
const POD_FOLDERS_MAX = 64;
/** Processes of one folder, and of one pod. A file of 4 KB has 600. */
const FOLDER_PIDS_MAX = 4;
const POD_PIDS_MAX = 24;
const PROCS_BYTES_MAX = 4096;
/** Hierarchies of cgroup v1, likeliest first; others after them. */
const HIERARCHIES = ["systemd", "pids", "memory", "cpu,cpuacct", "unified"];

/** The pods' folders in a cgroup tree, v2 or v1. `root` is /sys/fs/cgroup of the node, or a test's folder. */
export class CgroupTree {
  private readonly root: string;
  /** Folders that hold pods' folders. */
  private parents: string[] = [];
  private searchedMs = Number.NEGATIVE_INFINITY;

  constructor(root = "/sys/fs/cgroup") {
    this.root = root;
  }

  /** Each pod's folders (several where containerd and kubelet disagree about the driver). */
  pods(nowMs: number): ReadonlyMap<CgroupUid, readonly string[]> {
    const found = this.read();
    const age = nowMs - this.searchedMs;
    if (age < (found.size > 0 ? SEARCH_AGAIN_MS : SEARCH_EMPTY_AGAIN_MS)) return found;
    this.searchedMs = nowMs;
    this.search();
    return this.read();
  }

  /** Processes in a pod's folders, those of the outer folders first. */
  pids(folders: readonly string[]): number[] {
    const pids = new Set<number>();
    const queue = [...folders];
    for (let i = 0; i < queue.length && i < POD_FOLDERS_MAX && pids.size < POD_PIDS_MAX; i++) {
      const folder = queue[i] as string;
      for (const pid of pidsOf(readText(join(folder, "cgroup.procs"), PROCS_BYTES_MAX) ?? "")) pids.add(pid);
      const room = POD_FOLDERS_MAX - queue.length;
      if (room > 0 && hasFolders(folder))
        for (const name of list(folder, room, "folders")) if (folderOf(name, "").kind !== "helper") queue.push(join(folder, name));
    }
    return [...pids].slice(0, POD_PIDS_MAX);
  }

  private read(): Map<CgroupUid, string[]> {
    const found = new Map<CgroupUid, string[]>();
    for (const parent of this.parents) {
      const own = parent.slice(parent.lastIndexOf("/") + 1);
      for (const name of list(parent, CHILDREN_MAX, "folders")) {
        const folder = folderOf(name, own);
        if (folder.kind !== "pod") continue;
        const others = found.get(folder.uid);
        if (others === undefined) found.set(folder.uid, [join(parent, name)]);
        else others.push(join(parent, name));
      }
    }
    return found;
  }

  private search(): void {
    let empty: string[] = [];
    for (const hierarchy of this.hierarchies()) {
      const { parents, pods } = searchBelow(hierarchy);
      if (pods > 0) {
        this.parents = parents;
        return;
      }
      if (empty.length === 0) empty = parents;
    }
    this.parents = empty;
  }

  private hierarchies(): string[] {
    if (readText(join(this.root, "cgroup.controllers"), 1) !== undefined) return [this.root];
    const all = list(this.root, 64, "folders");
    return [...HIERARCHIES.filter((name) => all.includes(name)), ...all.filter((name) => !HIERARCHIES.includes(name))].map((name) =>
      join(this.root, name),
    );
  }
}

/** Breadth first, and never into a pod. */
function searchBelow(top: string): { parents: string[]; pods: number } {
  const parents = new Set<string>();
  let pods = 0;
  const queue = [{ path: top, name: "", depth: 0 }];
  for (let i = 0; i < queue.length && i < SEARCH_MAX; i++) {
    const { path, name, depth } = queue[i] as (typeof queue)[number];
    for (const child of list(path, CHILDREN_MAX, "folders")) {
      const { kind } = folderOf(child, name);
      if (kind === "pod") {
        pods++;
        parents.add(path);
        continue;
      }
      if (kind === "pods") parents.add(join(path, child));
      if (depth < DEPTH_MAX && queue.length < SEARCH_MAX) queue.push({ path: join(path, child), name: child, depth: depth + 1 });
    }
  }
  return { parents: [...parents], pods };
}

/** cgroup.procs, a number a line; 0 is a process of another PID namespace. A line that was cut is left out. */
function pidsOf(text: string): number[] {
  const whole = text.length < PROCS_BYTES_MAX ? text : text.slice(0, text.lastIndexOf("\n"));
  return whole
    .split("\n", FOLDER_PIDS_MAX)
    .filter((line) => /^[1-9][0-9]{0,9}$/.test(line))
    .map(Number);
}
