import { execFile } from "node:child_process";
import type { Family } from "../base/address.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { readSaved, type SavedTable } from "./saved.ts";

/**
 * The driver of iptables: one process per transaction, arguments as an array, the exit code read, the xtables lock waited
 * for. (The npm package `iptables` has none of these.) It has no opinions.
 */
export interface Iptables {
  readonly variant: Variant;
  /** How we know, for people. */
  readonly reason: string;
  save(of: Family, table: string): Promise<SavedTable>;
  /** The whole `iptables-save` text of every table. */
  saveAll(of: Family): Promise<string>;
  /** `iptables-restore --noflush`: one atomic commit per table in `text`. Throws a Fault that shows the failing line. */
  restore(of: Family, text: string): Promise<void>;
}

export type Variant = "nft" | "legacy";

interface Output {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const LOCK_SECONDS = 10;
const OUTPUT_BYTES_MAX = 256 * 1024 * 1024; // 20 000 services print about 20 MB

function run(command: string, args: readonly string[], input: string): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { maxBuffer: OUTPUT_BYTES_MAX, timeout: 60_000 }, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== "number") {
        reject(new Error(messageOf(error), { cause: error }));
        return;
      }
      resolve({ status: error === null ? 0 : (error.code as unknown as number), stdout, stderr });
    });
    child.stdin?.on("error", () => undefined); // a process that ends before it has read everything reports by its exit code
    child.stdin?.end(input);
  });
}

async function has(command: string): Promise<string | undefined> {
  try {
    const { status, stdout } = await run(command, ["--version"], "");
    return status === 0 ? stdout.trim() : undefined;
  } catch {
    return undefined;
  }
}

async function count(command: string): Promise<{ rules: number; hint: boolean }> {
  try {
    const { stdout } = await run(command, ["-t", "mangle"], "");
    const hint = /^:KUBE-(IPTABLES-HINT|KUBELET-CANARY) /m.test(stdout);
    return { rules: stdout.split("\n").filter((line) => line.startsWith("-A ")).length, hint };
  } catch {
    return { rules: 0, hint: false };
  }
}

/**
 * Chooses the variant that the host uses, as Kubernetes' own images do: kubelet's hint chain first, then our own rules or
 * whichever has more rules, then what `iptables` itself is.
 */
async function choose(wanted: Variant | "auto"): Promise<{ variant: Variant; reason: string }> {
  const nft = await has("iptables-nft");
  const legacy = await has("iptables-legacy");
  const plain = await has("iptables");
  if (plain === undefined && nft === undefined && legacy === undefined) {
    throw new Fault("no-iptables", "iptables is not installed", "install it: apt-get install iptables ipset");
  }
  if (wanted !== "auto") {
    if ((wanted === "nft" ? nft : legacy) === undefined)
      throw new Fault(
        "no-iptables-variant",
        `iptables-${wanted} is not installed`,
        "install the package iptables, or leave out --iptables",
      );
    return { variant: wanted, reason: "asked for by --iptables" };
  }
  if (nft === undefined) return { variant: "legacy", reason: "iptables-nft is not installed" };
  if (legacy === undefined) return { variant: "nft", reason: "iptables-legacy is not installed" };
  const [a, b] = [await count("iptables-nft-save"), await count("iptables-legacy-save")];
  if (a.hint !== b.hint) return { variant: a.hint ? "nft" : "legacy", reason: "kubelet's hint chain is there" };
  if (a.rules !== b.rules)
    return {
      variant: a.rules > b.rules ? "nft" : "legacy",
      reason: `${Math.max(a.rules, b.rules)} mangle rules there, ${Math.min(a.rules, b.rules)} in the other`,
    };
  return { variant: plain?.includes("legacy") ? "legacy" : "nft", reason: `\`iptables\` is ${plain ?? nft}` };
}

export async function openIptables(wanted: Variant | "auto" = "auto"): Promise<Iptables> {
  const { variant, reason } = await choose(wanted);
  const command = (of: Family, what: string): string => `${of === 4 ? "iptables" : "ip6tables"}-${variant}-${what}`;
  const fail = (name: string, { status, stderr }: Output, text: string): Fault => {
    const line = /line[: ]+(\d+)/i.exec(stderr)?.[1];
    const rule = line === undefined ? "" : ` at: ${text.split("\n")[Number(line) - 1] ?? ""}`;
    const denied = /permission denied|operation not permitted|must be root/i.test(stderr);
    return new Fault(
      denied ? "no-privilege" : "iptables",
      `${name} failed (exit ${status})${rule}: ${stderr.trim()}`,
      denied
        ? "run as root, or with CAP_NET_ADMIN"
        : "look whether the kernel has the match or target named above (xt_set, xt_NFQUEUE, xt_connmark, xt_conntrack)",
    );
  };
  const saveText = async (of: Family, args: readonly string[]): Promise<string> => {
    const name = command(of, "save");
    const output = await run(name, args, "");
    if (output.status !== 0) throw fail(name, output, "");
    return output.stdout;
  };
  return {
    variant,
    reason,
    save: async (of, table) => readSaved(await saveText(of, ["-t", table])),
    saveAll: (of) => saveText(of, []),
    restore: async (of, text) => {
      const name = command(of, "restore");
      const output = await run(name, ["--noflush", "-w", String(LOCK_SECONDS)], text);
      if (output.status !== 0) throw fail(name, output, text);
    },
  };
}
