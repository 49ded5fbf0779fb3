import { Worker } from "node:worker_threads";
import type { Logger } from "pino";
import type { Addon } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { smallNursery } from "../base/nursery.ts";
import type { Marks } from "../firewall/marks.ts";
import type { EventDraft } from "../model/event.ts";
import type { FromWorker, ToWorker, Update, WorkerOptions, WorkerStatus } from "../worker/protocol.ts";
import type { Explained, WhatIf } from "../worker/explain.ts";
import { ConnectionReader } from "./connections.ts";

/** Time for the last events and log lines to get out, milliseconds. */
const EXIT_AFTER_MS = 100;
/** Ticks between an answer and the next question; a tick is about a second. */
const ASK_TICKS = 10;
/** So many without an answer: the thread is blocked, and all new connections are dropped by the watchdog. */
const BLOCKED_TICKS = 30;
/** Packets leave little behind: a larger nursery would only stay resident, once a burst has filled it. */
const YOUNG_MB = 6;

/** The worker that handles packets, seen from the control thread. */
export class PacketThread {
  failure: Fault | undefined;
  alive = false;
  /** A canary came to our rules. */
  onCanary: (nonce: string) => void = () => undefined;
  private readonly worker: Worker;
  private readonly reader: ConnectionReader;
  private readonly waiting = new Map<string, { resolve: (value: never) => void; reject: (error: unknown) => void }>();
  private asked = 0;
  private stopping = false;
  private bindings = 0;
  /** Ticks since it was asked whether it is there; before that, until it is. */
  private unanswered = -ASK_TICKS;
  private readonly emit: (draft: EventDraft) => void;
  private readonly log: Pick<Logger, "fatal">;
  private readonly onDeath: () => void;

  constructor(
    options: WorkerOptions,
    native: Addon,
    emit: (draft: EventDraft) => void,
    log: Logger,
    isPod: (address: Ip) => boolean,
    marks: Marks,
    onDeath: () => void,
    onUnknown: (source: Ip, index: number) => void,
  ) {
    this.emit = emit;
    this.log = log;
    this.onDeath = onDeath;
    this.worker = new Worker(new URL("../worker/thread.js", import.meta.url), {
      workerData: options,
      resourceLimits: { maxOldGenerationSizeMb: 1024, maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.worker.once("online", smallNursery);
    this.reader = new ConnectionReader(
      new native.NetlinkSocket({ receiveBuffer: 4 * 1024 * 1024 }),
      (entry, asked) => isPod(entry.origSource) || (asked && marks.classOf(entry.mark) !== 0),
      (message) => this.post(message),
      (why) => {
        const message = `live connections cannot be read: what a policy no longer allows goes on until it ends by itself: ${why}`;
        log.error({ fix: "load the module nf_conntrack_netlink (CONFIG_NF_CT_NETLINK); see `namegate doctor`" }, message);
        emit({ type: "agent", verdict: "info", why: "degraded", message });
      },
    );
    this.worker.on("message", (message: FromWorker) => {
      switch (message.kind) {
        case "applied":
          this.bindings = message.bindings;
          this.settle(`applied${message.id}`, message);
          return;
        case "bound":
          this.alive = true;
          this.settle("bound", undefined);
          return;
        case "read-connections":
          this.reader.ask(message.sources);
          return;
        case "unknown":
          onUnknown(message.source, message.index);
          return;
        case "events":
          for (const draft of message.events) emit(draft);
          return;
        case "status":
          this.settle(`status${message.id}`, message.status);
          return;
        case "explained":
          this.settle(`explained${message.id}`, message.answer);
          return;
        case "pong":
          this.answered();
          return;
        case "canaries":
          for (const nonce of message.nonces) this.onCanary(nonce);
          return;
        case "log":
          log[message.level](message.detail ?? {}, message.message);
          return;
        case "failed":
          this.fail(new Fault(message.code, message.message, message.fix));
          return;
        default:
          message satisfies never;
      }
    });
    this.worker.on("error", (error) =>
      this.fail(
        new Fault(
          "packet-thread",
          `the packet thread died: ${messageOf(error)}`,
          "it is a fault of namegate's: report it with this log",
          error,
        ),
      ),
    );
    this.worker.on("exit", () => {
      const wasAlive = this.alive;
      this.fail(this.failure ?? new Fault("packet-thread", "the packet thread ended", "see the log above"));
      if (wasAlive && !this.stopping) this.die();
    });
  }

  /** The supervisor (kubelet, systemd) starts us again; the kernel keeps what it knows meanwhile. */
  private die(): void {
    const message = this.failure?.message ?? "the packet thread ended";
    this.log.fatal({ error: message }, "the packet thread is gone: new connections wait until the agent is started again");
    this.emit({ type: "agent", verdict: "info", why: "degraded", message });
    setTimeout(this.onDeath, EXIT_AFTER_MS);
  }

  private answered(): void {
    this.unanswered = -ASK_TICKS;
  }

  private fail(fault: Fault): void {
    this.failure = fault;
    this.alive = false;
    for (const { reject } of this.waiting.values()) reject(fault);
    this.waiting.clear();
  }

  private settle(key: string, value: unknown): void {
    this.waiting.get(key)?.resolve(value as never);
    this.waiting.delete(key);
  }

  private post(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private request<T>(key: string, message: ToWorker): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.failure !== undefined) {
        reject(this.failure);
        return;
      }
      this.waiting.set(key, { resolve, reject });
      this.post(message);
    });
  }

  update(update: Update | undefined): Promise<{ microseconds: number; bindings: number }> {
    if (update === undefined) return Promise.resolve({ microseconds: 0, bindings: this.bindings });
    return this.request(`applied${update.id}`, update);
  }

  bind(): Promise<void> {
    return this.request("bound", { kind: "bind" });
  }

  status(): Promise<WorkerStatus> {
    const id = ++this.asked;
    return this.request(`status${id}`, { kind: "status", id });
  }

  /** Milliseconds in which it was not waiting for something to do. */
  get activeMs(): number {
    return this.worker.performance.eventLoopUtilization().active;
  }

  /** undefined: it guards no such pod. Changes nothing. */
  explain(question: WhatIf): Promise<Explained | undefined> {
    const id = ++this.asked;
    return this.request(`explained${id}`, { kind: "explain", id, question });
  }

  /** About once a second. */
  tick(nowMs: number): void {
    this.reader.tick(nowMs, this.alive);
    if (!this.alive) return;
    if (this.unanswered++ === 0) this.post({ kind: "ping" });
    if (this.unanswered <= BLOCKED_TICKS) return;
    const what = `the packet thread has not answered for ${BLOCKED_TICKS} s`;
    this.fail(new Fault("packet-thread", what, "it is a fault of namegate's, or the node has no processor time: report it with this log"));
    this.die();
  }

  async stop(): Promise<void> {
    this.stopping = true;
    this.post({ kind: "stop" });
    await new Promise<void>((resolve) => {
      this.worker.once("exit", () => resolve());
      setTimeout(() => void this.worker.terminate().then(() => resolve()), 2000).unref();
    });
  }
}
