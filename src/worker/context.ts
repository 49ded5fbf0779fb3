import { HOLD, type PacketQueue, RECORD_WORDS, RecordWord } from "../base/addon.ts";
import { endpointText, type Ip, ipText } from "../base/address.ts";
import type { NameList } from "../dns/elsewhere.ts";
import { decodeIp, newPacket } from "../capture/decode.ts";
import type { NameSeen } from "../model/binding.ts";
import type { Event, EventDraft } from "../model/event.ts";
import { type Packet, Protocol, protocolText } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import type { Kernel } from "./kernel.ts";
import type { Meter } from "./meter.ts";
import type { PodTable } from "./pod-table.ts";
import type { GuardedPod } from "./pods.ts";
import type { Limits } from "./protocol.ts";

/** What every packet handler shares. */
export interface Context {
  readonly kernel: Kernel;
  readonly pods: PodTable;
  readonly limits: Limits;
  readonly counters: Counters;
  readonly meter: Meter;
  /** Names of DNS-over-HTTPS servers. */
  readonly dnsServers: NameList;
  /** Milliseconds since the epoch. */
  nowMs(): number;
  /** Seconds since the epoch. */
  now(): number;
  emit(draft: EventDraft): void;
  /** A canary has come to our rules. */
  canary(nonce: string): void;
  log(level: "info" | "warn" | "error", message: string, detail?: Record<string, unknown>): void;
}

/** Everything counted. A name is added here or it is not counted. */
export function newCounters() {
  return {
    replies: 0,
    learned: 0,
    repliesUnlearned: 0,
    repliesMalformed: 0,
    echStripped: 0,
    bindingsRefused: 0,
    queries: 0,
    queriesRefused: 0,
    dnsElsewhere: 0,
    dnsTunnelSigns: 0,
    upcalls: 0,
    upcallsAllowed: 0,
    upcallsDenied: 0,
    upcallsLimited: 0,
    wouldDeny: 0,
    inspected: 0,
    inspectedDenied: 0,
    inspectEvasions: 0,
    inspectIncomplete: 0,
    inspectLimited: 0,
    inspectStalls: 0,
    inspectConfirmed: 0,
    inspectKnown: 0,
    spoofed: 0,
    canaries: 0,
    unknownPod: 0,
    unknownReleased: 0,
    unknownDropped: 0,
    malformed: 0,
    faults: 0,
    eventsHeldBack: 0,
    repaired: 0,
    revoked: 0,
  };
}
export type Counters = ReturnType<typeof newCounters>;

/** linux/netfilter.h, NF_INET_PRE_ROUTING: the hook before DNAT. */
export const PREROUTING = 0;

/** One packet of the batch in hand. */
export interface Held {
  readonly packet: Packet;
  index: number;
  id: number;
  mark: number;
  indev: number;
  physindev: number;
  /** Where it was queued: a netfilter hook number. */
  hook: number;
}

export interface Settlement {
  verdict: number;
  mark: number;
}

/**
 * Runs `handle` over a batch. Every packet is settled: the handler writes verdict and mark into `answer`, which starts as
 * `fault` (also the answer when it throws, or when the packet cannot be read).
 */
export function eachPacket(
  context: Context,
  queue: PacketQueue,
  count: number,
  fault: number,
  handle: (held: Held, answer: Settlement) => void,
): void {
  const { records, verdicts, packets } = queue;
  for (let i = 0; i < count; i++) {
    const at = i * RECORD_WORDS;
    held.index = i;
    held.id = records[at + RecordWord.id] as number;
    held.mark = records[at + RecordWord.mark] as number;
    held.indev = records[at + RecordWord.indev] as number;
    held.physindev = records[at + RecordWord.physindev] as number;
    held.hook = (records[at + RecordWord.hook] as number) >>> 16;
    const start = records[at + RecordWord.offset] as number;
    judge(context, packets, start, start + (records[at + RecordWord.length] as number), fault, handle);
    verdicts[2 * i] = answer.verdict;
    verdicts[2 * i + 1] = answer.mark;
  }
}

/** Packet `index` of the batch, once more: the object that `eachPacket` gave. */
export function packetAgain({ records, packets }: PacketQueue, index: number): Packet | undefined {
  const at = index * RECORD_WORDS;
  const start = records[at + RecordWord.offset] as number;
  return decodeIp(packets, start, start + (records[at + RecordWord.length] as number), packet) ? packet : undefined;
}

/** A packet of an earlier batch: it was held, and this is a copy of it. */
export interface Kept {
  readonly queue: PacketQueue;
  /** It is Monitor's queue. */
  readonly watch: boolean;
  readonly bytes: Uint8Array;
  readonly id: number;
  readonly mark: number;
  readonly indev: number;
  readonly physindev: number;
  readonly hook: number;
}

export function keep(queue: PacketQueue, watch: boolean, { packet: { bytes, start, end }, id, mark, indev, physindev, hook }: Held): Kept {
  return { queue, watch, bytes: bytes.slice(start, end), id, mark, indev, physindev, hook };
}

/** As `eachPacket`, for one packet that was kept. It has no `index`: it cannot be replaced. */
export function keptPacket(context: Context, kept: Kept, fault: number, handle: (held: Held, answer: Settlement) => void): void {
  const { queue, bytes, id, mark, indev, physindev, hook } = kept;
  held.index = -1;
  held.id = id;
  held.mark = mark;
  held.indev = indev;
  held.physindev = physindev;
  held.hook = hook;
  judge(context, bytes, 0, bytes.length, fault, handle);
  if (answer.verdict !== HOLD) queue.settle(id, answer.verdict, answer.mark);
}

/** Leaves the settlement in `answer`. */
function judge(
  context: Context,
  bytes: Uint8Array,
  start: number,
  end: number,
  fault: number,
  handle: (held: Held, answer: Settlement) => void,
): void {
  answer.verdict = fault;
  answer.mark = held.mark;
  try {
    if (decodeIp(bytes, start, end, packet)) handle(held, answer);
    else context.counters.malformed++;
  } catch (error) {
    answer.verdict = fault;
    answer.mark = held.mark;
    sayFault(context, "a packet could not be judged; it got the safe verdict", error);
  }
}

/** A mistake of ours: counted and told, and nothing ends by it. */
export function sayFault(context: Context, message: string, error: unknown): void {
  context.counters.faults++;
  context.log("error", message, { error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}

const packet = newPacket();
const held: Held = { packet, index: 0, id: 0, mark: 0, indev: 0, physindev: 0, hook: 0 };
const answer: Settlement = { verdict: 0, mark: 0 };

export function podOf({ pod }: GuardedPod): NonNullable<Event["pod"]> {
  return { namespace: pod.namespace, name: pod.name, labels: pod.labels, serviceAccountName: pod.serviceAccountName };
}

export function policiesOf({ guard }: GuardedPod): string[] {
  return guard.book.policies.map(({ id }) => id);
}

export function destinationOf(address: Ip, port: number, protocol: number, names: readonly NameSeen[]): NonNullable<Event["destination"]> {
  return { address: ipText(address), port, protocol: protocolText(protocol), names: [...new Set(names.map(({ name }) => name as string))] };
}

const NO_EVIDENCE: Evidence = { application: undefined, serverName: undefined };

export function evidenceOf(names: readonly NameSeen[], evidence: Evidence | undefined): NonNullable<Event["evidence"]> {
  const { serverName, application, ja4, alpn, ech, version, upgrade, fields } = evidence ?? NO_EVIDENCE;
  return {
    dns: names,
    serverName: serverName ?? null,
    application: application ?? null,
    ja4: ja4 ?? null,
    ...(alpn !== undefined && { alpn }),
    ...(ech !== undefined && { ech }),
    ...(version !== undefined && { version }),
    ...(upgrade !== undefined && { upgrade }),
    ...(fields !== undefined && { fields }),
  };
}

/**
 * Emits an event about a pod unless the pod has had its share of this second; what is held back is counted and said with
 * the next one that goes out.
 */
export function emitFor(context: Context, pod: GuardedPod, draft: EventDraft): void {
  if (mayEmit(context, pod)) emitNow(context, pod, draft);
}

/** The first half of it: where the draft costs more than the question. Counts; `emitNow` must follow when it says yes. */
export function mayEmit(context: Context, pod: GuardedPod): boolean {
  if (pod.events.take(context.nowMs())) return true;
  pod.heldBack++;
  context.counters.eventsHeldBack++;
  return false;
}

export function emitNow(context: Context, pod: GuardedPod, draft: EventDraft): void {
  const heldBack = pod.heldBack;
  pod.heldBack = 0;
  context.emit({
    ...draft,
    pod: podOf(pod),
    policies: policiesOf(pod),
    message:
      heldBack === 0
        ? (draft.message ?? null)
        : `${draft.message ?? ""} (${heldBack} events of this pod were held back before this one)`.trim(),
  });
}

/** From time to time: what was held back of a pod that has been silent since, and so has not been told of. */
export function sayHeldBack(context: Context, pod: GuardedPod): void {
  const count = pod.heldBack;
  if (count === 0) return;
  pod.heldBack = 0;
  context.emit({
    type: "limit",
    verdict: "info",
    mode: pod.guard.book.mode,
    why: "events-held-back",
    pod: podOf(pod),
    policies: policiesOf(pod),
    count,
    message: `${count} events of ${pod.pod.key} were held back: more than ${context.limits.eventsPerSecond} a second`,
  });
}

/** Istio ambient's tunnel between nodes (HBONE): mTLS around HTTP CONNECT. */
const HBONE_PORT = 15_008;

export function describe(address: Ip, port: number, protocol: number, names: readonly NameSeen[]): string {
  const name = names.find(({ fresh }) => fresh) ?? names[0];
  const hidden = protocol === Protocol.TCP && port === HBONE_PORT ? " (Istio HBONE: the real destination is hidden in it)" : "";
  return `${name === undefined ? "" : `${name.name} `}${endpointText(address, port)}/${protocolText(protocol)}${hidden}`;
}
