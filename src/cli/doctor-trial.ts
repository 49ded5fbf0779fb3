import { addon, NfVerdict, type PacketQueue } from "../base/addon.ts";
import { type Family, parseIp } from "../base/address.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { bridgeRules } from "../firewall/bridge-rules.ts";
import { ConntrackDump } from "../firewall/conntrack.ts";
import { type Iptables, openIptables, type Variant } from "../firewall/iptables.ts";
import { type Marks, marks } from "../firewall/marks.ts";
import { restoreText } from "../firewall/plan.ts";
import { ALL_MATCHES, QueueOffset, type TableWanted, wantedRules } from "../firewall/rules.ts";
import { CANARY_NONCE_OCTETS, CANARY_POD } from "../model/canary.ts";
import { canaryFrame } from "../selftest/frame.ts";
import { makePair } from "../selftest/pair.ts";
import { knowCanary } from "../worker/canary.ts";
import { Kernel, SET_NAMES } from "../worker/kernel.ts";
import { attempt, type Finding, failed, ok, warn } from "./doctor-finding.ts";

/**
 * The part of `namegate doctor` that really does what the agent does. Only for a process in a network namespace of its own,
 * which the kernel throws away with everything in it when the process ends.
 */

export interface TrialOptions {
  readonly variant: Variant;
  readonly markMask: number;
  readonly queueBase: number;
}

const TRY_CHAIN = "NG-TRY";
const PACKET_MS = 2000;
const LOOK_MS = 5;

export async function trial({ variant, markMask, queueBase }: TrialOptions): Promise<Finding[]> {
  const native = addon();
  const inUse = marks(markMask);
  const socket = new native.NetlinkSocket();
  const sets = await attempt("sets", () => {
    new Kernel(socket, inUse).ensureSets();
    return ok("sets", `all ${SET_NAMES.length} can be made`);
  });
  const findings = [sets];
  if (sets.status === "ok") {
    const iptables = await openIptables(variant);
    for (const family of [4, 6] as const) {
      findings.push(
        await attempt(`rules IPv${family}`, () =>
          tryRules(
            iptables,
            family,
            wantedRules({ family, marks: inUse, queueBase, matches: ALL_MATCHES, queries: true, bridged: true, behind: true }),
          ),
        ),
      );
      findings.push(await attempt(`bridged pods IPv${family}`, () => tryBridged(iptables, family, inUse)));
    }
  }
  findings.push(
    await attempt("queues", () => {
      for (const offset of Object.values(QueueOffset)) bindQueue(queueBase + offset);
      return ok("queues", `NFQUEUE ${queueBase} to ${queueBase + Object.keys(QueueOffset).length - 1} can be bound`);
    }),
    await attempt("conntrack", () => {
      const dump = new ConntrackDump(socket);
      if (dump.start()) while (dump.next(() => undefined) === "more");
      if (dump.refusal === undefined) return ok("conntrack", "readable over netlink");
      return failed(
        "conntrack",
        `cannot be read over netlink: ${dump.refusal.text}`,
        "load the module nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)",
      );
    }),
    await attempt("packets", () => tryPacket(new Kernel(socket, inUse), queueBase + QueueOffset.admission)),
    await attempt("raw sockets", () => {
      new native.RawSender().close();
      return ok("raw sockets", "can be opened");
    }),
  );
  return findings;
}

/** What the agent's self-test does: a packet out of a veth, as a pod sends it, is to be asked about by our rules. */
async function tryPacket(kernel: Kernel, number: number): Promise<Finding> {
  knowCanary(kernel);
  kernel.commit();
  const pair = await makePair();
  const queue = openQueue(number);
  const sender = new (addon().RawSender)();
  let seen = 0;
  try {
    queue.start(
      (count) => void (seen += count),
      () => undefined,
    );
    for (const of of pair.families) {
      const frame = canaryFrame(pair.mac, CANARY_POD[of], new Uint8Array(CANARY_NONCE_OCTETS));
      sender.frame(pair.feeds, frame, frame.length);
    }
    for (let waited = 0; waited < PACKET_MS && seen < pair.families.length; waited += LOOK_MS)
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  } finally {
    queue.close();
    sender.close();
  }
  if (seen === pair.families.length) return ok("packets", `out of a veth come to the rules (IPv${pair.families.join(" and IPv")})`);
  return failed("packets", `only ${seen} of ${pair.families.length} out of a veth came to the rules`, "see the rows of rules and sets");
}

function openQueue(queue: number): PacketQueue {
  return new (addon().PacketQueue)({
    queue,
    copyRange: 128,
    maxLength: 16,
    receiveBuffer: 64 * 1024,
    batch: 1,
    gso: true,
    failOpen: true,
    deadlineMs: 1000,
    deadlineVerdict: NfVerdict.accept,
  });
}

function bindQueue(queue: number): void {
  try {
    openQueue(queue).close();
  } catch (error) {
    throw new Fault(
      "queue",
      `queue ${queue} cannot be bound: ${messageOf(error)}`,
      "load the module nfnetlink_queue (CONFIG_NETFILTER_NETLINK_QUEUE)",
      error,
    );
  }
}

async function tryRules(iptables: Iptables, family: Family, tables: readonly TableWanted[]): Promise<Finding> {
  const check = `rules IPv${family}`;
  const refused: string[] = [];
  const taken: string[] = [];
  let first = "";
  for (const table of tables) {
    try {
      await iptables.restore(family, restoreText(table, await iptables.save(family, table.table)));
      taken.push(...table.chains.flatMap(({ rules }) => rules));
    } catch (error) {
      first ||= messageOf(error);
      for (const rule of table.chains.flatMap(({ rules }) => rules))
        ((await takes(iptables, family, table, rule)) ? taken : refused).push(rule);
    }
  }
  if (first === "") return ok(check, `all ${taken.length} rules of ${tables.map(({ table }) => table).join(", ")} are taken`);
  const lacking = culprits(refused, taken);
  const fix =
    lacking.length > 0
      ? `the kernel or iptables lacks ${lacking.join(", ")}: load or build them (modprobe ${lacking.join(" ")})`
      : "see the message";
  return failed(check, `${refused.length} of ${refused.length + taken.length} rules are refused: ${first}`, fix);
}

/** Is one rule taken alone? The chains that it may name are there, empty. */
async function takes(iptables: Iptables, family: Family, { table, chains }: TableWanted, rule: string): Promise<boolean> {
  const lines = [
    `*${table}`,
    ...chains.map(({ name }) => `:${name} - [0:0]`),
    `:${TRY_CHAIN} - [0:0]`,
    `-A ${TRY_CHAIN} ${rule}`,
    "COMMIT",
    "",
  ];
  try {
    await iptables.restore(family, lines.join("\n"));
    return true;
  } catch {
    return false;
  }
}

async function tryBridged(iptables: Iptables, family: Family, inUse: Marks): Promise<Finding> {
  const check = `bridged pods IPv${family}`;
  const address = parseIp(family === 4 ? "192.0.2.1" : "2001:db8::1");
  const rules = bridgeRules([{ port: "veth0", addresses: address === undefined ? [] : [address] }], {
    family,
    marks: inUse,
  });
  const table: TableWanted = { table: "mangle", chains: [], jumps: [] };
  for (const rule of rules) {
    if (!(await takes(iptables, family, table, rule)))
      return warn(
        check,
        `the kernel or iptables has no physdev match: ${rule}`,
        "needed where pods hang on a bridge: modprobe xt_physdev br_netfilter",
      );
  }
  return ok(check, "physdev rules are taken");
}

/** The modules of extensions that refused rules use and rules that were taken do not. */
export function culprits(refused: readonly string[], taken: readonly string[]): string[] {
  const good = new Set(taken.flatMap(modules));
  return [...new Set(refused.flatMap(modules))].filter((name) => !good.has(name));
}

/** Names that differ from their module's. A match and its target share one. */
const MODULES: Readonly<Record<string, string>> = { SET: "xt_set", MARK: "xt_mark", CONNMARK: "xt_connmark", REJECT: "ipt_REJECT" };

/** `-m bpf … -j MARK` → xt_bpf, xt_mark. Chains of ours and built-in verdicts are none. */
function modules(rule: string): string[] {
  const names = [...rule.matchAll(/(?:^| )-[mj] (\S+)/g)].map(([, name]) => name ?? "");
  return names.filter((name) => !/^(NG-.*|RETURN|DROP|)$/.test(name)).map((name) => MODULES[name] ?? `xt_${name}`);
}
