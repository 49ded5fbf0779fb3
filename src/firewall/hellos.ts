import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { type Addon, type BpfMap, type BpfProgram, builtFile } from "../base/addon.ts";
import { messageOf } from "../base/fault.ts";
import { HELLO_KEY_BYTES } from "./hello-key.ts";
import { type BpfObject, linked, readBpfObject } from "./bpf-object.ts";

/**
 * The programs of native/hello.bpf.c in the kernel, pinned where iptables and the packet thread find them. A pin outlives the
 * agent, so that a restart changes nothing for connections under way. All of it is a short cut: whatever is lacking,
 * userspace reads every hello.
 */

const SYSTEM_BPFFS = "/sys/fs/bpf";
const BPFFS_MAGIC = 0xcafe4a11; // linux/magic.h
/** Hellos remembered on a node, and connections between a SYN and the server's acknowledgement of the hello. */
export const KNOWN_MAX = 8192;
export const FLOWS_MAX = 16_384;
export const KNOWN_VALUE_BYTES = 16;
export const FLOW_KEY_BYTES = 36;
export const FLOW_VALUE_BYTES = 16;
/** A flow that ends so much before it begins: other bytes came after a known hello (native/hello.bpf.c). */
export const FLOW_REPLACED = 2;
/** The programs and what they share; the sections and symbols of the object have the same names. */
export const HELLO_PROGRAMS = ["open", "hello", "early", "answer"] as const;
const MAPS = {
  known: { keyBytes: HELLO_KEY_BYTES, valueBytes: KNOWN_VALUE_BYTES, entries: KNOWN_MAX, preallocated: 0 },
  flows: { keyBytes: FLOW_KEY_BYTES, valueBytes: FLOW_VALUE_BYTES, entries: FLOWS_MAX, preallocated: 1 },
} as const;

function isBpffs(path: string): boolean {
  try {
    return statfsSync(path).type === BPFFS_MAGIC;
  } catch {
    return false;
  }
}

const PREFIX = "namegate-";
/** Agents in other network namespaces of the machine have pins of their own. */
function prefix(): string {
  return `${PREFIX}${/\d+/.exec(readlinkSync("/proc/self/ns/net"))?.[0]}-`;
}

const ownBpffs = (run: string): string => join(run, "bpf");

/** The machine's bpf file system; where it has none, one of our own in `run`. */
function bpffs(run: string): string {
  if (isBpffs(SYSTEM_BPFFS)) return SYSTEM_BPFFS;
  const own = ownBpffs(run);
  if (isBpffs(own)) return own;
  mkdirSync(own, { recursive: true, mode: 0o700 });
  execFileSync("mount", ["-t", "bpf", "-o", "mode=0700", "namegate", own], { stdio: ["ignore", "ignore", "pipe"] });
  return own;
}

/** Is everything there, and does it open? */
function isWhole(native: Addon, folder: string): boolean {
  try {
    for (const name of Object.keys(MAPS)) new native.BpfMap({ path: join(folder, name) }).close();
    for (const name of HELLO_PROGRAMS) new native.BpfProgram({ path: join(folder, name) }).close();
    return true;
  } catch {
    return false;
  }
}

/** The programs and their maps, in the kernel as long as they are not closed, pinned, or used by a rule. */
export interface HelloPrograms {
  readonly maps: Readonly<Record<keyof typeof MAPS, BpfMap>>;
  readonly programs: Readonly<Record<(typeof HELLO_PROGRAMS)[number], BpfProgram>>;
  close(): void;
}

/** Throws what the kernel says against it; nothing stays then. */
export function loadHellos(native: Addon, object: BpfObject): HelloPrograms {
  const opened = new Map<string, BpfMap | BpfProgram>();
  const close = (): void => {
    for (const one of opened.values()) one.close();
  };
  try {
    const fds = new Map<string, number>();
    for (const [name, options] of Object.entries(MAPS)) {
      const map = new native.BpfMap({ name: `ng_${name}`, ...options });
      opened.set(name, map);
      fds.set(name, map.fd);
    }
    for (const name of HELLO_PROGRAMS)
      opened.set(name, new native.BpfProgram({ name: `ng_${name}`, license: object.license, instructions: linked(object, name, fds) }));
  } catch (error) {
    close();
    throw error;
  }
  const map = (name: keyof typeof MAPS): BpfMap => opened.get(name) as BpfMap;
  const program = (name: (typeof HELLO_PROGRAMS)[number]): BpfProgram => opened.get(name) as BpfProgram;
  return {
    maps: { known: map("known"), flows: map("flows") },
    programs: { open: program("open"), hello: program("hello"), early: program("early"), answer: program("answer") },
    close,
  };
}

/**
 * Loads and pins the programs, or finds those that an agent of the same version has left. `run`: a folder of ours that
 * outlives us. Returns the folder of the pins; `why` there are none.
 */
export function pinHellos(native: Addon, run: string): { readonly folder: string } | { readonly why: string } {
  try {
    const file = builtFile("hello.bpf.o");
    if (file === undefined) return { why: "the programs are not built: that needs clang" };
    const bytes = readFileSync(file);
    const base = bpffs(run);
    const ours = prefix();
    const name = ours + createHash("sha256").update(bytes).digest("hex").slice(0, 12);
    const folder = join(base, name);
    if (!isWhole(native, folder)) {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { mode: 0o700 });
      const loaded = loadHellos(native, readBpfObject(bytes));
      try {
        for (const [name, one] of Object.entries({ ...loaded.maps, ...loaded.programs })) one.pin(join(folder, name));
      } finally {
        loaded.close();
      }
    }
    for (const other of readdirSync(base)) if (other.startsWith(ours) && other !== name) rmSync(join(base, other), { recursive: true });
    return { folder };
  } catch (error) {
    return { why: messageOf(error) };
  }
}

/** Takes the pins away; what rules still refer to stays in the kernel as long as they do. */
export function unpinHellos(run: string): void {
  for (const base of [SYSTEM_BPFFS, ownBpffs(run)]) {
    if (!existsSync(base) || !isBpffs(base)) continue;
    for (const name of readdirSync(base)) if (name.startsWith(prefix())) rmSync(join(base, name), { recursive: true });
    if (base === SYSTEM_BPFFS || readdirSync(base).some((name) => name.startsWith(PREFIX))) continue; // another agent's
    execFileSync("umount", [base], { stdio: ["ignore", "ignore", "pipe"] });
    rmdirSync(base);
  }
}
