import { messageOf } from "../../base/fault.ts";
import { Backoff } from "./backoff.ts";
import { type Clock, pause } from "./clock.ts";
import { ApiFault } from "./faults.ts";
import { type ListPlan, type ListTarget, nextPlan, readList } from "./list.ts";
import { ObjectStore } from "./store.ts";
import type { Transport } from "./transport.ts";
import type { Counters, RawObject, ReflectOptions, Reflector } from "./types.ts";
import { readWatch } from "./watch.ts";

const OBJECTS_MAX = 20_000; // a cluster of 5 000 nodes is tested by Kubernetes with 10 000 namespaces
/** A watch that lived so long was a good one: what ends it starts the waits anew. */
const GOOD_MS = 30_000;
/** Where something may not be there at all (`optional`): thousands of agents ask for it in vain, and for ever. */
const WAIT_OPTIONAL_MS_MAX = 600_000;
const ABSENT: ReadonlySet<string> = new Set(["forbidden", "not-found"]);
/** After these the version is still good: it is watched again from there. After any other end everything is listed. */
const RESUMED: ReadonlySet<string> = new Set([
  "connect",
  "tls",
  "credentials",
  "timeout",
  "unauthorized",
  "forbidden",
  "not-found",
  "throttled",
  "server",
  "closed",
]);

/** List, watch, and again, until stopped. Whatever happens in between is counted, waited out and tried again. */
export class ListWatch<T> implements Reflector<T> {
  readonly path: string;
  readonly items: ReadonlyMap<string, T>;
  synced = false;
  readonly counters: Counters = { lists: 0, watches: 0, events: 0, bookmarks: 0, refused: 0, errors: {}, lastError: undefined };
  private readonly store: ObjectStore<T>;
  private readonly target: ListTarget;
  private readonly options: ReflectOptions<T>;
  private readonly random: () => number;
  private running: AbortController | undefined;
  private aliveAt = Number.NEGATIVE_INFINITY;
  private telling: NodeJS.Immediate | undefined;
  /** The newest version seen; with `whole` false only for asking for something not older. */
  private version: string | undefined;
  /** Is what we know, up to `version`, everything? */
  private whole = false;
  private plan: ListPlan;

  constructor(transport: Transport, clock: Clock, random: () => number, options: ReflectOptions<T>) {
    const { path, fieldSelector, labelSelector } = options;
    this.path = path;
    this.options = options;
    this.random = random;
    this.plan = options.list ?? "cached";
    const selectors = {
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
      ...(labelSelector === undefined ? {} : { labelSelector }),
    };
    this.target = { transport, clock, path, selectors, counters: this.counters };
    const { objectsMax: objects = OBJECTS_MAX, inNamespaceMax: inNamespace, provisional } = options;
    this.store = new ObjectStore((raw) => this.project(raw), { objects, inNamespace, provisional });
    this.items = this.store.values;
  }

  start(): void {
    if (this.running !== undefined) return;
    this.running = new AbortController();
    this.whole = false;
    void this.run(this.running.signal);
  }

  stop(): void {
    this.running?.abort();
    this.running = undefined;
    if (this.telling !== undefined) clearImmediate(this.telling);
    this.telling = undefined;
  }

  staleMs(now: number): number {
    return Math.max(0, now - this.aliveAt);
  }

  private async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(this.random);
    const rarely = new Backoff(this.random, WAIT_OPTIONAL_MS_MAX);
    const { clock } = this.target;
    while (!signal.aborted) {
      const began = clock.now();
      const fault = this.whole ? await this.watch(signal) : await this.list(signal);
      if (signal.aborted) return;
      if (clock.now() - began >= GOOD_MS && fault?.kind !== "timeout") backoff.reset();
      if (fault === undefined) continue;
      const { errors } = this.counters;
      errors[fault.kind] = (errors[fault.kind] ?? 0) + 1;
      this.counters.lastError = fault.message;
      const absent = this.options.optional === true && ABSENT.has(fault.kind);
      if (!absent) rarely.reset();
      await pause(clock, (absent ? rarely : backoff).next(fault.retryAfterMs), signal);
    }
  }

  private async list(signal: AbortSignal): Promise<ApiFault | undefined> {
    const next = this.store.replacement();
    const read = await readList(this.target, this.plan, this.version, signal, (raw) => next.add(raw));
    if (signal.aborted) return undefined;
    if (!read.ok) {
      this.plan = nextPlan(this.plan, read.fault);
      return read.fault;
    }
    this.plan = this.options.list ?? "cached";
    const changed = next.commit();
    if (changed || !this.synced) this.tell();
    this.synced = true;
    this.whole = true;
    this.counters.refused += this.store.overflow;
    this.alive(read.value);
    return undefined;
  }

  private async watch(signal: AbortSignal): Promise<ApiFault | undefined> {
    const version = this.version as string; // `whole` is only true behind a list
    this.counters.watches++;
    let signs = 0;
    const fault = await readWatch(this.target, version, this.random, signal, {
      put: (raw) => {
        const before = this.store.overflow;
        if (this.store.put(raw)) this.tell();
        this.counters.refused += this.store.overflow - before;
      },
      remove: (raw) => {
        if (this.store.remove(raw)) this.tell();
      },
      alive: (next, what) => {
        signs++;
        this.counters[what === "event" ? "events" : "bookmarks"]++;
        this.alive(next);
      },
    });
    // A full watch without a sign proves nothing (a version from the future is watched in silence), and what was refused may fit now.
    const proven = signs > 0 && !this.store.unsettled;
    if (fault === undefined ? !proven : !RESUMED.has(fault.kind)) this.whole = false;
    return fault;
  }

  private alive(version: string | undefined): void {
    const { overflow } = this.store;
    this.counters.lastError = overflow === 0 ? undefined : `${this.path}: ${overflow} objects are beyond the limit, and not known`;
    this.version = version ?? this.version;
    this.aliveAt = this.target.clock.now();
  }

  private project(raw: RawObject): T | undefined {
    try {
      return this.options.project(raw);
    } catch (error) {
      this.counters.errors.object = (this.counters.errors.object ?? 0) + 1;
      this.counters.lastError = `${this.path}: ${raw.metadata.name}: ${messageOf(error)}`;
      return undefined;
    }
  }

  /** Many events of one piece of the stream become one call. */
  private tell(): void {
    this.telling ??= setImmediate(() => {
      this.telling = undefined;
      this.options.onChange();
    });
  }
}
