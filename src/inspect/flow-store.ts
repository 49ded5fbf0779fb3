import type { Ip } from "../base/address.ts";
import { Flow, type Waiting } from "./flow.ts";

/** The connections under inspection, within bounds: by key, in order of time, and what of them is held. */

export interface FlowLimits {
  readonly flowsPerOwner: number;
  readonly octetsPerOwner: number;
  readonly octets: number;
  /** Packets held: they fill the kernel's queue, which all pods share. */
  readonly heldPerOwner: number;
  readonly held: number;
  /** Held of one connection, before the server gets what is legal so far: a full initial window (10 segments) must not wait for us. */
  readonly segments: number;
  readonly segmentOctets: number;
  /** Nothing more has come for so long: the client waits for an answer. */
  readonly stallMs: number;
  /** Beyond a gap, and the sender does not send what is missing. */
  readonly gapMs: number;
  /** From the first byte to a verdict, and where it is the server's turn. */
  readonly readingMs: number;
  readonly dialogueMs: number;
  /** Without a word of the client's, where requests to a proxy are judged one by one. */
  readonly idleMs: number;
  /** How long the rest of a connection that is over is remembered. */
  readonly overMs: number;
}

export const FLOW_LIMITS: FlowLimits = {
  flowsPerOwner: 1024,
  octetsPerOwner: 4 * 1024 * 1024,
  octets: 64 * 1024 * 1024,
  heldPerOwner: 1024,
  held: 8192,
  segments: 8,
  segmentOctets: 12 * 1024,
  stallMs: 40,
  gapMs: 1000,
  readingMs: 5000,
  dialogueMs: 60_000,
  idleMs: 3_600_000,
  overMs: 2000,
};

/** What a flow costs beside its buffers (measured: about 900 bytes). */
const FLOW_OCTETS = 1024;
/** Connections that are over and still remembered. */
const OVER_MAX = 4096;

/** Flows of one lane whose time is over, in one sweep: a refusal with its resets takes about 30 µs. */
const SWEPT_MAX = 16;

/** Acts on the first ones that are due. True: more of them are. */
export function firstOf<T>(all: Iterable<T>, due: (one: T) => boolean, act: (one: T) => void): boolean {
  let left = SWEPT_MAX;
  for (const one of all) {
    if (!due(one)) return false;
    if (left-- === 0) return true;
    act(one);
  }
  return false;
}

/** Whose time runs how: from the first byte to a verdict, at the server's turn, between requests to a proxy, after the verdict. */
export type Lane = "reading" | "dialogue" | "idle" | "over";

interface Share<Owner> {
  /** Those without a verdict first, in order of their beginning; then those that are over. */
  readonly all: Set<Flow<Owner>>;
  /** Without a verdict. */
  flows: number;
  octets: number;
  held: number;
}

export class FlowStore<Owner extends object> {
  readonly limits: FlowLimits;
  /** Each in order of time: a sweep looks at the first ones only. */
  readonly lanes: Readonly<Record<Lane, Set<Flow<Owner>>>> = { reading: new Set(), dialogue: new Set(), idle: new Set(), over: new Set() };
  /** Flows with held packets, the longest without a new one first. */
  readonly stalled = new Set<Flow<Owner>>();
  octets = 0;
  held = 0;
  readonly #table = new Map<string, Flow<Owner>>();
  readonly #shares = new Map<Owner, Share<Owner>>();

  constructor(limits: FlowLimits) {
    this.limits = limits;
  }

  get size(): number {
    return this.#table.size;
  }

  get(key: string): Flow<Owner> | undefined {
    return this.#table.get(key);
  }

  /** In order of their beginning, those that are over last. */
  of(owner: Owner): Iterable<Flow<Owner>> {
    return this.#shares.get(owner)?.all ?? [];
  }

  /** undefined: the owner has as many as it may. Room for all together is the caller's work (`largest`). */
  open(key: string, owner: Owner, transport: number, watch: boolean, pod: Ip, port: number): Flow<Owner> | undefined {
    const share = this.#share(owner);
    if (share.flows >= this.limits.flowsPerOwner) return undefined;
    const flow = new Flow<Owner>(key, owner, transport, watch, pod, port);
    this.#table.set(key, flow);
    share.all.add(flow);
    share.flows++;
    this.account(flow);
    return flow;
  }

  /** Have all together more than they may? */
  get crowded(): boolean {
    return this.octets > this.limits.octets;
  }

  /** Is there no room for one more? */
  get full(): boolean {
    return this.octets + FLOW_OCTETS > this.limits.octets;
  }

  /** Who has the most. */
  largest(): Owner | undefined {
    let largest: Owner | undefined;
    let most = 0;
    for (const [owner, { octets }] of this.#shares) {
      if (octets > most) {
        most = octets;
        largest = owner;
      }
    }
    return largest;
  }

  enter(flow: Flow<Owner>, lane: Lane, nowMs: number): void {
    if (flow.lane !== undefined) this.lanes[flow.lane].delete(flow);
    this.lanes[lane].add(flow);
    flow.lane = lane;
    flow.sinceMs = nowMs;
  }

  hold(flow: Flow<Owner>, waiting: Waiting): void {
    flow.waiting.push(waiting);
    this.held++;
    this.#share(flow.owner).held++;
    flow.stalledMs = waiting.ms;
    this.stalled.delete(flow);
    this.stalled.add(flow);
  }

  /** Takes those held packets out that `which` says; the caller settles them. */
  take(flow: Flow<Owner>, which: (waiting: Waiting) => boolean): Waiting[] {
    if (flow.waiting.length === 0) return [];
    const taken: Waiting[] = [];
    const kept: Waiting[] = [];
    for (const one of flow.waiting) (which(one) ? taken : kept).push(one);
    if (taken.length === 0) return taken;
    flow.waiting = kept;
    this.held -= taken.length;
    this.#share(flow.owner).held -= taken.length;
    if (flow.waiting.length === 0) this.stalled.delete(flow);
    return taken;
  }

  mayHold(flow: Flow<Owner>): boolean {
    return this.held < this.limits.held && this.#share(flow.owner).held < this.limits.heldPerOwner;
  }

  /** Counts the flow's memory. False: the owner, or all together, have more than they may. */
  account(flow: Flow<Owner>): boolean {
    const octets = FLOW_OCTETS + flow.buffered;
    const share = this.#share(flow.owner);
    share.octets += octets - flow.octets;
    this.octets += octets - flow.octets;
    flow.octets = octets;
    return share.octets <= this.limits.octetsPerOwner && this.octets <= this.limits.octets;
  }

  /** It is over: its memory is given back, and it no longer counts for its owner. */
  end(flow: Flow<Owner>, nowMs: number): void {
    this.#uncount(flow);
    const { all } = this.#share(flow.owner);
    all.delete(flow);
    all.add(flow);
    flow.shed();
    this.enter(flow, "over", nowMs);
    if (this.lanes.over.size <= OVER_MAX) return;
    for (const oldest of this.lanes.over) return this.remove(oldest);
  }

  /** Nothing of it may be held any more. */
  remove(flow: Flow<Owner>): void {
    if (!this.#table.delete(flow.key)) return;
    if (flow.lane !== "over") this.#uncount(flow);
    if (flow.lane !== undefined) this.lanes[flow.lane].delete(flow);
    flow.lane = undefined;
    const { all } = this.#share(flow.owner);
    all.delete(flow);
    if (all.size === 0) this.#shares.delete(flow.owner);
  }

  #uncount(flow: Flow<Owner>): void {
    const share = this.#share(flow.owner);
    share.flows--;
    share.octets -= flow.octets;
    this.octets -= flow.octets;
  }

  #share(owner: Owner): Share<Owner> {
    let share = this.#shares.get(owner);
    if (share === undefined) {
      share = { all: new Set(), flows: 0, octets: 0, held: 0 };
      this.#shares.set(owner, share);
    }
    return share;
  }
}
