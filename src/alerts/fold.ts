import { TokenBucket } from "../base/bucket.ts";
import type { FoldSettings, Severity } from "../model/alerts.ts";
import type { Event, EventDraft } from "../model/event.ts";
import { severityOf } from "./severity.ts";

/** Different events of one pod that are remembered, and of all. */
const POD_ENTRIES_MAX = 128;
const ENTRIES_MAX = 8192;
/** Pods beyond share one state. */
const PODS_MAX = 1024;
/** A limit lets so many seconds of its rate through at once. */
const BURST_SECONDS = 5;
/** Between two events about one pod's limit. */
const SAY_MS = 10_000;
/** A pod that has been silent for so long is forgotten. */
const IDLE_MS = 60_000;

/** How much of the node's burst stays for what is more severe. */
const RESERVED: Readonly<Record<Severity, number>> = { info: 0.6, low: 0.4, medium: 0.2, high: 0.05, critical: 0 };

interface Entry {
  /** The latest. */
  event: Event;
  first: string;
  count: number;
  startedMs: number;
}

interface PodState {
  /** By what makes two events the same; the oldest window first. */
  readonly entries: Map<string, Entry>;
  readonly bucket: TokenBucket;
  /** The event names a pod, or undefined where it has none. */
  readonly pod: Event["pod"];
  limited: number;
  saidMs: number;
  seenMs: number;
}

export interface FoldDeps {
  /** A line for the sinks. */
  readonly out: (event: Event) => void;
  /** A new event about what was held back. It comes back through push(). */
  readonly say: (draft: EventDraft) => void;
}

/**
 * Lets the first of several equal events through at once and folds the others into one line a window, with their count; lets no pod
 * have more than its rate, nor all of them together. What a pod may not have is counted and said by its name. State and work per
 * event are bounded whatever pods do.
 */
export class Folder {
  private readonly pods = new Map<string, PodState>();
  private readonly node: TokenBucket;
  private readonly nodeBurst: number;
  private total = 0;
  folded = 0;
  limited = 0;
  private readonly settings: FoldSettings;
  private readonly deps: FoldDeps;

  constructor(settings: FoldSettings, deps: FoldDeps) {
    this.settings = settings;
    this.deps = deps;
    this.nodeBurst = settings.nodePerSecond * BURST_SECONDS;
    this.node = new TokenBucket(settings.nodePerSecond, this.nodeBurst);
  }

  get entries(): number {
    return this.total;
  }

  push(event: Event, nowMs: number): void {
    if (isOwnWord(event)) return this.deps.out(event);
    if (event.why === "alerts-limited") return this.deps.out(event);
    const state = this.state(event, nowMs);
    state.seenMs = nowMs;
    const key = keyOf(event);
    const known = state.entries.get(key);
    if (known !== undefined) {
      if (known.count === 0) known.first = event.time;
      known.count += event.count;
      known.event = event;
      this.folded++;
      return;
    }
    if (!this.may(state, severityOf(event), nowMs)) {
      state.limited += event.count;
      this.limited += event.count;
      return;
    }
    this.deps.out(event);
    if (this.settings.windowMs > 0) this.remember(state, key, { event, first: event.time, count: 0, startedMs: nowMs });
  }

  private may(state: PodState, severity: Severity, nowMs: number): boolean {
    if (!this.node.has(nowMs, -this.nodeBurst * RESERVED[severity]) || !state.bucket.take(nowMs)) return false;
    this.node.spend(1);
    return true;
  }

  private state(event: Event, nowMs: number): PodState {
    const name = nameOf(event);
    const full = this.pods.size >= PODS_MAX && !this.pods.has(name);
    const key = full ? "/others" : name;
    let state = this.pods.get(key);
    if (state === undefined) {
      const { podPerSecond } = this.settings;
      const bucket = new TokenBucket(podPerSecond, podPerSecond * BURST_SECONDS);
      state = { entries: new Map(), bucket, pod: full ? null : event.pod, limited: 0, saidMs: Number.NEGATIVE_INFINITY, seenMs: nowMs };
      this.pods.set(key, state);
    }
    return state;
  }

  private remember(state: PodState, key: string, entry: Entry): void {
    if (state.entries.size >= POD_ENTRIES_MAX) this.forgetOldest(state);
    if (this.total >= ENTRIES_MAX) this.forgetOldest([...this.pods.values()].reduce((a, b) => (b.entries.size > a.entries.size ? b : a)));
    state.entries.set(key, entry);
    this.total++;
  }

  private forgetOldest(state: PodState): void {
    const oldest = state.entries.entries().next().value;
    if (oldest === undefined) return;
    state.entries.delete(oldest[0]);
    this.total--;
    this.summary(oldest[1]);
  }

  private summary({ event, first, count }: Entry): void {
    if (count > 0) this.deps.out({ ...event, count, folded: { first, last: event.time } });
  }

  /** About once a second: windows that are over, and limits to speak of. */
  tick(nowMs: number): void {
    for (const [name, state] of this.pods) {
      for (const [key, entry] of state.entries) {
        if (nowMs - entry.startedMs < this.settings.windowMs) break;
        state.entries.delete(key);
        // While it goes on, it stays: one line a window.
        if (entry.count > 0) state.entries.set(key, { ...entry, count: 0, startedMs: nowMs });
        else this.total--;
        this.summary(entry);
      }
      if (state.limited > 0 && nowMs - state.saidMs >= SAY_MS) this.sayLimited(name, state, nowMs);
      if (state.entries.size === 0 && state.limited === 0 && nowMs - state.seenMs > IDLE_MS) this.pods.delete(name);
    }
  }

  private sayLimited(name: string, state: PodState, nowMs: number): void {
    const count = state.limited;
    state.limited = 0;
    state.saidMs = nowMs;
    const who = state.pod === null ? `events without a pod (${name.slice(1)})` : name;
    this.deps.say({
      type: "limit",
      verdict: "info",
      why: "alerts-limited",
      pod: state.pod,
      count,
      message: `${who}: ${count} events were counted and not sent one by one: more than ${this.settings.podPerSecond} a second, or the node's share`,
    });
  }

  /** What is folded goes out now. */
  flush(nowMs: number): void {
    for (const [name, state] of this.pods) {
      for (const entry of state.entries.values()) this.summary(entry);
      this.total -= state.entries.size;
      state.entries.clear();
      if (state.limited > 0) this.sayLimited(name, state, nowMs);
    }
  }
}

/** The agent's own words are few, and must not be lost among the pods'. Of a namespace's policies its tenants may make it say any number. */
function isOwnWord({ type, pod, policy }: Event): boolean {
  if (pod !== null || type === "connection" || type === "spoofed" || type === "dns") return false;
  return type !== "policy" || (policy !== null && !policy.includes("/"));
}

/** Whom the event is counted for. */
function nameOf({ type, pod, policy }: Event): string {
  if (pod !== null) return `${pod.namespace}/${pod.name}`;
  return type === "policy" ? `/policies of ${policy?.split("/", 1)[0] ?? "files"}` : `/${type}`;
}

/** Two events with the same key say the same again. The source port changes with every try. */
function keyOf({ type, verdict, why, policy, rule, message, destination, source, evidence }: Event): string {
  return JSON.stringify([
    type,
    verdict,
    why,
    policy,
    rule,
    type === "policy" && policy === null ? message : undefined,
    destination?.address,
    destination?.port,
    destination?.protocol,
    // A resolver is asked for many names; an address that has several is one destination.
    type === "dns" ? destination?.names[0] : undefined,
    type === "spoofed" ? [source?.address, source?.interface] : undefined,
    evidence?.serverName,
    evidence?.application,
  ]);
}
