import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Snapshot } from "../model/snapshot.ts";
import { digest, readSealed, writeSealed } from "./sealed.ts";

/**
 * The last good Snapshot on disk (control/sealed.ts), for an agent that starts while the API is away. What is not whole, not ours
 * or not of this node is refused, with the reason.
 */

/** Goes up with every change of Snapshot, Pod or Policy that an older or newer agent would misread. */
export const STATE_FORMAT = 1;
const FILE = "snapshot.json";
const BYTES_MAX = 256 * 1024 * 1024;

interface Content {
  readonly format: number;
  readonly node: string;
  /** Of the kernel that ran then: after a reboot the pods are others. */
  readonly boot: string;
  readonly savedMs: number;
  readonly snapshot: Snapshot;
}

export interface Kept {
  readonly snapshot: Snapshot;
  readonly savedMs: number;
}

export type KeptResult = Kept | { readonly refused: string } | undefined;

/** `undefined`: there is none. */
export function readKept(folder: string, node: string, boot: string): KeptResult {
  const file = join(folder, FILE);
  const read = readSealed(file, BYTES_MAX);
  if (read === undefined || "refused" in read) return read;
  const { body } = read;
  const content = parse(body);
  if (content === undefined) return { refused: `${file} is not a snapshot` };
  if (content.format !== STATE_FORMAT) return { refused: `${file} has format ${String(content.format)}, this agent has ${STATE_FORMAT}` };
  if (content.node !== node) return { refused: `${file} is of the node ${JSON.stringify(content.node).slice(0, 80)}, this is ${node}` };
  const { snapshot, savedMs } = content;
  return { snapshot: content.boot === boot ? snapshot : { ...snapshot, pods: [] }, savedMs };
}

function parse(body: string): Content | undefined {
  try {
    const content = JSON.parse(body) as Partial<Content> | null;
    const { snapshot } = content ?? {};
    const lists = [snapshot?.policies, snapshot?.pods, snapshot?.resolvers, snapshot?.interfacePrefixes];
    if (!lists.every(Array.isArray) || typeof snapshot?.namespaces !== "object" || typeof content?.savedMs !== "number") return undefined;
    return content as Content;
  } catch {
    return undefined;
  }
}

export class KeptWriter {
  private readonly folder: string;
  private readonly node: string;
  private readonly boot: string;
  private last = "";

  constructor(folder: string, node: string, boot: string) {
    this.folder = folder;
    this.node = node;
    this.boot = boot;
  }

  /** Writes it where it is another one than the last time. Returns why it could not. */
  write(snapshot: Snapshot, savedMs: number): string | undefined {
    const now = digest(JSON.stringify(snapshot));
    if (now === this.last) return undefined;
    const content: Content = { format: STATE_FORMAT, node: this.node, boot: this.boot, savedMs, snapshot };
    const failed = writeSealed(this.folder, FILE, JSON.stringify(content));
    if (failed === undefined) this.last = now;
    return failed;
  }
}

/** Another one after each boot; empty where the kernel does not tell. */
export function bootId(proc = "/proc"): string {
  try {
    return readFileSync(join(proc, "sys/kernel/random/boot_id"), "utf8").trim();
  } catch {
    return "";
  }
}
