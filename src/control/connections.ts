import type { NetlinkSocket } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { ConntrackDump, type ConntrackEntry } from "../firewall/conntrack.ts";
import type { Connections } from "../worker/protocol.ts";

const KEEP_INTERVAL_MS = 2000;
/** Reading for the sake of live bindings may take this fraction of the time. */
const KEEP_SHARE = 900;
/** However long a reading takes: a binding in use that has less than half a minute left gets a minute (worker/live.ts). */
const KEEP_INTERVAL_MS_MAX = 25_000;
/** Readings that wait; a further one is the same as the last. */
const WAITING_MAX = 64;

interface Reading {
  readonly source: Ip | undefined;
  readonly asked: boolean;
  readonly last: boolean;
}

/**
 * Reads conntrack for the packet thread, one receive at a time, in the control thread: the kernel walks its whole table
 * for each reading, however few connections there are.
 */
export class ConnectionReader {
  private readonly dump: ConntrackDump;
  private readonly send: (message: Connections) => void;
  private readonly wanted: (entry: ConntrackEntry, asked: boolean) => boolean;
  private readonly failed: (why: string) => void;
  private broken = false;
  private readonly waiting: Reading[] = [];
  private reading: Reading | undefined;
  private nextKeepMs = 0;
  private spentMs = 0;

  /** `failed` is told once why the table cannot be read, until it can be again. */
  constructor(
    socket: NetlinkSocket,
    wanted: (entry: ConntrackEntry, asked: boolean) => boolean,
    send: (message: Connections) => void,
    failed: (why: string) => void,
  ) {
    this.dump = new ConntrackDump(socket);
    this.send = send;
    this.wanted = wanted;
    this.failed = failed;
  }

  /** The packet thread wants to judge: the connections that these addresses opened, or all. */
  ask(sources: readonly Ip[] | undefined): void {
    const list = sources === undefined || sources.length === 0 || sources.length > WAITING_MAX ? [undefined] : sources;
    this.waiting.push(...list.map((source, i) => ({ source, asked: true, last: i === list.length - 1 })));
    this.next();
  }

  /** Called about once a second. `needed`: some binding could run out under a live connection. */
  tick(nowMs: number, needed: boolean): void {
    if (!needed || this.reading !== undefined || nowMs < this.nextKeepMs) return;
    this.spentMs = 0;
    this.waiting.push({ source: undefined, asked: false, last: true });
    this.next(nowMs);
  }

  private next(nowMs = 0): void {
    if (this.reading !== undefined) return;
    const reading = this.waiting.shift();
    if (reading === undefined) return;
    this.reading = reading;
    const from = performance.now();
    const started = this.dump.start(reading.source === undefined ? {} : { source: reading.source }); // a short table is walked here
    this.spentMs += performance.now() - from;
    if (started) setImmediate(() => this.step(nowMs));
    else this.end([], "failed", nowMs);
  }

  private step(nowMs: number): void {
    const from = performance.now();
    const entries: ConntrackEntry[] = [];
    const state = this.dump.next((entry) => {
      if (this.wanted(entry, this.reading?.asked === true)) entries.push({ ...entry });
    });
    this.spentMs += performance.now() - from;
    if (state !== "more") this.end(entries, state, nowMs);
    else {
      if (entries.length > 0) this.send({ kind: "connections", entries, part: this.reading?.asked === true ? "more" : "keep" });
      setImmediate(() => this.step(nowMs));
    }
  }

  private end(entries: readonly ConntrackEntry[], state: "done" | "failed", nowMs: number): void {
    const reading = this.reading;
    this.reading = undefined;
    if (state === "failed" && !this.broken) this.failed(this.dump.refusal?.text ?? "no reason given");
    this.broken = state === "failed";
    if (reading?.asked === true) {
      if (state === "failed") this.waiting.length = 0;
      this.send({ kind: "connections", entries, part: state === "failed" ? "failed" : reading.last ? "done" : "more" });
    } else {
      if (entries.length > 0) this.send({ kind: "connections", entries, part: "keep" });
      this.nextKeepMs = nowMs + Math.min(KEEP_INTERVAL_MS_MAX, Math.max(KEEP_INTERVAL_MS, this.spentMs * KEEP_SHARE));
    }
    this.next(nowMs);
  }
}
