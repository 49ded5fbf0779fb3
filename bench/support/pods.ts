import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { execute } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";

/** Name of the namespace that holds every pod of `manyPods`: one for all, as 250 real ones teach nothing more here. */
const WHERE = "client";

/** Of the inside ends, so that all go at once. */
const GROUP = 77;

/** Pod number i: its address, and the two ends of its veth. */
export const address = (i: number): string => `10.245.${i >> 8}.${i & 255}`;
const iface = (i: number): string => `many${i}`;

/**
 * Gives the node `count` more pods: a veth each (host side manyN, inside pN), all inside ends in the namespace of the pod
 * `client`, with addresses, routes and neighbours as routed pods have them. Returns their entries for a pods file.
 */
export async function manyPods(lab: Lab, count: number): Promise<string[]> {
  const mac = "ee:ee:ee:ee:ee:ee";
  const inside = (i: number): string => `02:00:00:00:${(i >> 8).toString(16)}:${(i & 255).toString(16)}`;
  const node: string[] = [];
  const pods: string[] = [];
  const entries: string[] = [];
  for (let i = 0; i < count; i++) {
    node.push(
      `link add ${iface(i)} address ${mac} type veth peer name p${i} address ${inside(i)} netns ${lab.ns(WHERE)}`,
      `link set ${iface(i)} up`,
    );
    node.push(
      `route add ${address(i)}/32 dev ${iface(i)} scope link`,
      `neigh replace ${address(i)} lladdr ${inside(i)} dev ${iface(i)} nud permanent`,
    );
    pods.push(
      `link set p${i} up group ${GROUP}`,
      `addr add ${address(i)}/32 dev p${i}`,
      `neigh replace 169.254.1.1 lladdr ${mac} dev p${i} nud permanent`,
    );
    pods.push(`route add default via 169.254.1.1 dev p${i} onlink metric ${1000 + i}`);
    entries.push(podEntry(i));
  }
  await batch(lab, "node", node);
  await batch(lab, WHERE, pods);
  return entries;
}

/** Takes the interfaces of `manyPods` away again; it may be called anew then. */
export async function noPods(lab: Lab): Promise<void> {
  await batch(lab, WHERE, [`link delete group ${GROUP}`]);
}

/** One pod as the pods file has it, `app: many` and `number: "i"`. */
export function podEntry(i: number): string {
  return [
    "- namespace: shop",
    `  name: many-${i}`,
    `  uid: 00000000-0000-4000-9000-${i.toString(16).padStart(12, "0")}`,
    `  labels: { app: many, number: "${i}" }`,
    "  serviceAccountName: default",
    `  interface: ${iface(i)}`,
    `  addresses: [ ${address(i)} ]`,
    "",
  ].join("\n");
}

/** The pods file with these entries behind the lab's own. */
export function podsText(lab: Lab, entries: readonly string[]): string {
  return `${lab.podsFile()}${entries.map((entry) => entry.replaceAll(/^(?=.)/gm, "  ")).join("")}`;
}

/** The same lab, whose pods file has these entries too. */
export function withEntries(lab: Lab, entries: readonly string[]): Lab {
  const podsFile = (): string => podsText(lab, entries);
  return { ...lab, podsFile, writePodsFile: () => lab.file("pods.yaml", podsFile()) };
}

async function batch(lab: Lab, where: string, lines: readonly string[]): Promise<void> {
  const { status, stderr } = await execute(["ip", "-n", lab.ns(where), "-batch", "-"], {
    input: `${lines.join("\n")}\n`,
    timeoutMs: 120_000,
  });
  if (status !== 0) throw new Error(`ip in ${where}: ${stderr}`);
}

/** The agent's process below `ip netns exec` (which replaces itself, so it is the same one). */
export interface Usage {
  readonly residentMb: number;
  /** Of that, what is the process's own (heaps, stacks), and what are pages of files (the program of Node above all). */
  readonly ownMb: number;
  readonly fileMb: number;
  /** User and system time so far, milliseconds (a tick is 10). */
  readonly cpuMs: number;
  /** Open files. */
  readonly files: number;
}

export function usageOf(pid: number): Usage {
  const folder = join("/proc", String(pid));
  if (!existsSync(folder)) throw new Error(`no process ${pid}`);
  const status = readFileSync(join(folder, "status"), "utf8");
  const mb = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
  // Behind the program's name, which may hold anything: state is the first field; utime and stime are 12 and 13 (proc(5): 14, 15).
  const stat = readFileSync(join(folder, "stat"), "utf8").split(") ").pop()?.split(" ") ?? [];
  return {
    residentMb: mb("VmRSS"),
    ownMb: mb("RssAnon"),
    fileMb: mb("RssFile"),
    cpuMs: (Number(stat[11]) + Number(stat[12])) * 10,
    files: readdirSync(join(folder, "fd")).length,
  };
}
