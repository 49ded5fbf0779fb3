import { messageOf } from "../base/fault.ts";
import type { BatchSettings } from "../model/alerts.ts";
import type { RotatedFile } from "./sinks/rotated-file.ts";
import type { Outcome, Outgoing, Sink } from "./sinks/sink.ts";
import type { Spool, SpoolItem } from "./spool.ts";

/** Waiting between tries: full jitter, a random part of a bound that doubles (AWS, "Exponential Backoff And Jitter"). */
export interface RetryLimits {
  readonly baseMs: number;
  readonly capMs: number;
  /** So many failures in a row open the breaker: no try for openMs, then one. */
  readonly breakAfter: number;
  readonly openMs: number;
  /** What a collector may ask for with Retry-After. */
  readonly afterMaxMs: number;
}
/**
 * So many refusals without anything taken in between are not about the events: a proxy that answers 400 to everything, or TLS spoken to in
 * the clear. To find one bad event among 10 000 takes 15.
 */
const REFUSALS_MAX = 20;
export const RETRY_LIMITS: RetryLimits = { baseMs: 500, capMs: 60_000, breakAfter: 5, openMs: 30_000, afterMaxMs: 3_600_000 };

export type Breaker = "closed" | "open" | "half-open";

export interface DeliveryStatus {
  readonly breaker: Breaker;
  readonly sent: number;
  readonly failures: number;
  readonly deadLetters: number;
  /** Of the last try; undefined: it went well. */
  readonly failure: string | undefined;
}

export interface DeliveryDeps {
  readonly spool: Spool;
  readonly sink: Sink;
  readonly batch: BatchSettings;
  readonly deadLetters: RotatedFile;
  /** undefined: what the spool gave is no event. */
  readonly render: (item: SpoolItem) => Outgoing | undefined;
  readonly nowMs: () => number;
  /** [0, 1). */
  readonly random: () => number;
  readonly limits: RetryLimits;
}

/** How long to wait after the n-th failure in a row (from 1). */
export function backoffMs(failures: number, afterMs: number | undefined, random: number, limits: RetryLimits): number {
  const bound = Math.min(limits.capMs, limits.baseMs * 2 ** Math.min(30, failures - 1));
  const own = random * bound + (failures >= limits.breakAfter ? limits.openMs : 0);
  return Math.max(own, Math.min(afterMs ?? 0, limits.afterMaxMs));
}

/**
 * Brings what is in one spool to one collector, a batch at a time: taken, sent until every event of it has arrived or was refused for good,
 * acknowledged. One batch is in memory. Nothing that the collector does is felt outside: a try ends after `timeoutMs` even where the
 * sink does not.
 */
export class Delivery {
  private readonly deps: DeliveryDeps;
  private stopping = false;
  private rouse: (() => void) | undefined;
  /** Nothing is in the spool. */
  private idle = false;
  private inARow = 0;
  /** Whole batches refused since something was taken. */
  private refusals = 0;
  private breaker: Breaker = "closed";
  private sent = 0;
  private failures = 0;
  private failure: string | undefined;
  private dead = 0;
  private cancel: (() => void) | undefined;
  private readonly running: Promise<void>;

  constructor(deps: DeliveryDeps) {
    this.deps = deps;
    this.running = this.run();
  }

  /** There may be something in the spool. */
  wake(): void {
    if (this.idle) this.rouse?.();
  }

  status(): DeliveryStatus {
    const { breaker, sent, failures, failure } = this;
    return { breaker, sent, failures, failure, deadLetters: this.dead };
  }

  /** Gives up the try under way; what was not acknowledged stays in the spool. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.rouse?.();
    this.cancel?.();
    this.deps.sink.close();
    await this.running;
  }

  private async run(): Promise<void> {
    while (!this.stopping) {
      try {
        await this.turn();
      } catch (error) {
        await this.failed(messageOf(error), undefined); // a fault of ours must not end the agent
      }
    }
  }

  private async turn(): Promise<void> {
    const { spool, batch: limits } = this.deps;
    if (spool.empty) {
      this.idle = true;
      await this.sleep(undefined);
      this.idle = false;
      return;
    }
    if (limits.lingerMs > 0 && spool.status().events < limits.events) await this.pause(limits.lingerMs);
    if (this.stopping) return;
    const taken = spool.take(limits.events, limits.bytes);
    if (taken !== undefined && (await this.deliver(taken.items))) spool.ack(taken);
  }

  /** False: stopped before everything was settled. */
  private async deliver(items: readonly SpoolItem[]): Promise<boolean> {
    const groups: Outgoing[][] = [
      items.flatMap((item) => {
        const one = this.deps.render(item);
        if (one === undefined) this.bury([item.payload], "no event");
        return one === undefined ? [] : [one];
      }),
    ];
    for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
      if (group.length === 0) continue;
      if (this.stopping) return false;
      const outcome = await this.attempt(group);
      switch (outcome.kind) {
        case "done":
          this.sent += group.length;
          this.refusals = 0;
          this.answered();
          break;
        case "refused":
          if (group.length === 1) this.bury(group.map(lineOf), outcome.why);
          else groups.unshift(...halves(group));
          // What refuses everything is asked ever more slowly, so that the spool keeps what may pass when it is put right.
          if (++this.refusals < REFUSALS_MAX) this.answered();
          else await this.failed(`it refuses everything: ${outcome.why}`, undefined);
          break;
        case "retry":
          await this.failed(outcome.why, outcome.afterMs);
          // Some collectors reset the connection where others say 413: less at a time may pass.
          if (this.inARow >= this.deps.limits.breakAfter) groups.unshift(...halves(group));
          else groups.unshift(group);
          break;
        case "each": {
          const rest = this.settle(group, outcome.results);
          if (rest.length > 0) groups.unshift(rest);
          if (rest.length < group.length) this.answered();
          if (rest.length > 0) await this.failed(outcome.why, outcome.afterMs);
          break;
        }
        default:
          outcome satisfies never;
      }
    }
    return true;
  }

  private settle(group: readonly Outgoing[], results: readonly unknown[]): Outgoing[] {
    const rest: Outgoing[] = [];
    for (const [i, one] of group.entries()) {
      const result = results[i];
      if (result === "done") this.sent++;
      else if (typeof result === "object" && result !== null) this.bury([lineOf(one)], (result as { refused: string }).refused);
      else rest.push(one);
    }
    return rest;
  }

  private async attempt(group: readonly Outgoing[]): Promise<Outcome> {
    const { sink, batch } = this.deps;
    if (this.breaker === "open") this.breaker = "half-open";
    const abort = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<Outcome>((resolve) => {
      const end = (why: string) => (): void => {
        abort.abort();
        resolve({ kind: "retry", why });
      };
      this.cancel = end("the agent stops");
      timer = setTimeout(end(`no answer within ${batch.timeoutMs} ms`), batch.timeoutMs);
    });
    try {
      return await Promise.race([sink.send(group, abort.signal), late]);
    } catch (error) {
      return { kind: "retry", why: messageOf(error) };
    } finally {
      clearTimeout(timer);
    }
  }

  private answered(): void {
    this.inARow = 0;
    this.breaker = "closed";
    this.failure = undefined;
  }

  private async failed(why: string, afterMs: number | undefined): Promise<void> {
    const { limits, random } = this.deps;
    this.failures++;
    this.inARow++;
    this.failure = why;
    if (this.inARow >= limits.breakAfter) this.breaker = "open";
    await this.pause(backoffMs(this.inARow, afterMs, random(), limits));
  }

  private bury(lines: readonly string[], why: string): void {
    this.dead += lines.length;
    const time = new Date(this.deps.nowMs()).toISOString();
    this.deps.deadLetters.write(lines.map((event) => JSON.stringify({ time, why, event })));
  }

  /** Until then, or until stop(). */
  private async pause(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.stopping) {
      const left = until - performance.now();
      if (left <= 0) return;
      await this.sleep(left);
    }
  }

  /** Until somebody wakes it. */
  private sleep(ms: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(() => this.rouse?.(), ms);
      this.rouse = () => {
        clearTimeout(timer);
        this.rouse = undefined;
        resolve();
      };
    });
  }
}

/** The second is empty where there is one event. */
function halves<T>(group: readonly T[]): [T[], T[]] {
  const middle = Math.ceil(group.length / 2);
  return [group.slice(0, middle), group.slice(middle)];
}

function lineOf({ event }: Outgoing): string {
  return JSON.stringify(event);
}
