import { randomBytes } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { addon, type Addon, NfVerdict, type PacketQueue, type QueueStats, type RawSender } from "../base/addon.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { hurry } from "../base/hurry.ts";
import { marks } from "../firewall/marks.ts";
import { QueueOffset } from "../firewall/rules.ts";
import type { EventDraft } from "../model/event.ts";
import { admit } from "./admission.ts";
import { knowCanary } from "./canary.ts";
import { Comparison } from "./compare.ts";
import { type Context, newCounters, sayHeldBack } from "./context.ts";
import { Desired } from "./desired.ts";
import { explain, type Explained, type WhatIf } from "./explain.ts";
import { KnownHellos } from "./hellos.ts";
import { Inspection } from "./inspection.ts";
import { Kernel } from "./kernel.ts";
import { Live } from "./live.ts";
import { Meter } from "./meter.ts";
import { NameWatch } from "./name-watch.ts";
import { settleOwed } from "./owed.ts";
import { PodTable } from "./pod-table.ts";
import type { FromWorker, ToWorker, WorkerOptions, WorkerStatus } from "./protocol.ts";
import { Queries } from "./queries.ts";
import { rehearse } from "./rehearsal.ts";
import { Replies } from "./replies.ts";
import { serversOf } from "./resolvers.ts";
import { UnknownPods } from "./unknown.ts";

/**
 * The packet thread: its event loop carries packets and what must be true for the next packet, nothing else. The control
 * thread sends it changes of the desired state; it answers when the kernel has them.
 */

/** The most that nfnetlink_queue copies: a 16-bit attribute length less its header. */
const COPY_BYTES_MAX = 65_531;
const SOCKET_BYTES = 8 * 1024 * 1024;
const TICK_MS = 1000;
/** Longest stretch of rehearsal before packets get a turn, milliseconds. */
const PLAY_MS = 1;
/** Each pod's tables are swept this often, a few pods at a time: all of them at once would keep packets waiting. */
const SWEEP_MS = 30_000;
/** Canaries of one round come within a few milliseconds: they are told together, milliseconds. */
const CANARIES_MS = 5;
/** A packet that nobody settled for this long is settled by the native watchdog, milliseconds. */
const DEADLINE_MS = 2000;

const options = workerData as WorkerOptions;
const port = parentPort;
if (port === null) throw new Error("thread.ts is a worker's entry");
const send = (message: FromWorker): void => port.postMessage(message);

/** The epoch's milliseconds as of the start, and no clock that is set: names would end, or last, and limits hold for hours. */
const steadyMs = (): number => performance.timeOrigin + performance.now();

const drafts: EventDraft[] = [];
function flushEvents(): void {
  if (drafts.length > 0) send({ kind: "events", events: drafts.splice(0) });
}

const canaries: string[] = [];
function flushCanaries(): void {
  send({ kind: "canaries", nonces: canaries.splice(0) });
}

function start(native: Addon): void {
  hurry(native);
  const socket = new native.NetlinkSocket({ receiveBuffer: SOCKET_BYTES });
  const sender = new native.RawSender();
  const kernel = new Kernel(socket, marks(options.markMask));
  const meter = new Meter(options.block);
  meter.nowMs = Date.now();
  kernel.takingOver = meter.takingOver = true;
  const context: Context = {
    kernel,
    meter,
    pods: new PodTable(),
    limits: options.limits,
    dnsServers: serversOf(options.dnsServers),
    counters: newCounters(),
    nowMs: steadyMs,
    now: () => Math.floor(steadyMs() / 1000),
    emit: (draft) => {
      if (drafts.push(draft) === 1) setImmediate(flushEvents);
    },
    canary: (nonce) => {
      if (canaries.push(nonce) === 1) setTimeout(flushCanaries, CANARIES_MS);
    },
    log: (level, message, detail) => send({ kind: "log", level, message, ...(detail === undefined ? {} : { detail }) }),
  };
  kernel.ensureSets();
  knowCanary(kernel);
  if (options.hellos !== undefined) kernel.hellos = new KnownHellos(context, native, options.hellos);
  const comparison = new Comparison(context, new native.NetlinkSocket({ receiveBuffer: SOCKET_BYTES }));
  const live = new Live(context, sender, (sources) => send({ kind: "read-connections", sources }));
  const inspection = new Inspection(context, sender);
  const queues = new Map<string, PacketQueue>();
  const watch = new NameWatch(context, randomBytes(4).readUInt32LE());
  const queriesOf = new Queries(context, sender, watch);
  const unknown = new UnknownPods(context, queriesOf, (source, index) => send({ kind: "unknown", source, index }));
  const desired = new Desired({
    context,
    live,
    comparison,
    unknown,
    groups: options.groups,
    gone: (pod) => inspection.flows.forget(pod),
    applied: (id, microseconds) => send({ kind: "applied", id, microseconds, bindings: context.pods.bindings() }),
  });

  port?.on("message", (message: ToWorker) => {
    switch (message.kind) {
      case "update":
        desired.apply(message);
        return;
      case "connections":
        if (message.part === "keep") live.keepAll(message.entries);
        else live.take(message.entries, message.part);
        return;
      case "bind":
        try {
          openQueues(native, context, queues, sender, new Replies(context, watch), queriesOf, inspection, unknown);
          send({ kind: "bound" });
          inSlices(rehearse(context));
        } catch (error) {
          fail(error);
        }
        return;
      case "status":
        send({ kind: "status", id: message.id, status: status(context, queues) });
        return;
      case "explain":
        send({ kind: "explained", id: message.id, answer: explained(context, message.question) });
        return;
      case "ping":
        send({ kind: "pong" });
        return;
      case "stop":
        for (const queue of queues.values()) queue.close();
        kernel.hellos?.close();
        flushEvents();
        process.exit(0); // of this thread only
        break;
      default:
        message satisfies never;
    }
  });
  let sweptMs = 0;
  let served = 0;
  let tickedMs = performance.now();
  setInterval(() => {
    const nowMs = context.nowMs();
    const lateMs = performance.now() - tickedMs - TICK_MS;
    tickedMs += TICK_MS + lateMs;
    meter.histograms.loop.observe(Math.max(0, lateMs));
    meter.nowMs = nowMs;
    if (!desired.ready) return;
    live.tick();
    comparison.tick(nowMs);
    inspection.sweep();
    served = settleOwed(context, served);
    const now = context.now();
    context.pods.inTurn(TICK_MS / SWEEP_MS, (pod) => {
      pod.sweep(now);
      kernel.hellos?.sweep(pod, nowMs);
      sayHeldBack(context, pod);
    });
    kernel.hellos?.tick(nowMs);
    if (nowMs - sweptMs > SWEEP_MS) {
      sweptMs = nowMs;
      watch.sweep(nowMs);
    }
    kernel.commit();
  }, TICK_MS);
}

/** A question never ends the thread. */
function explained(context: Context, question: WhatIf): Explained | undefined {
  try {
    return explain(context, question);
  } catch (error) {
    context.counters.faults++;
    context.log("error", "a question could not be answered", { error: messageOf(error) });
    return undefined;
  }
}

/** Runs `work` to its end, with a turn for packets every PLAY_MS. Nothing depends on it: should it throw, that is said. */
function inSlices(work: Generator<void, unknown>): void {
  const until = performance.now() + PLAY_MS;
  try {
    while (work.next().done !== true)
      if (performance.now() > until) {
        setImmediate(inSlices, work);
        return;
      }
  } catch (error) {
    send({ kind: "log", level: "warn", message: "the rehearsal failed: the first packets cost more", detail: { error: messageOf(error) } });
  }
}

function openQueues(
  native: Addon,
  context: Context,
  queues: Map<string, PacketQueue>,
  sender: RawSender,
  replies: Replies,
  queries: Queries,
  inspection: Inspection,
  unknown: UnknownPods,
): void {
  const open = (
    name: string,
    offset: number,
    copyRange: number,
    monitor: boolean,
    handle: (queue: PacketQueue, count: number) => void,
  ): void => {
    const queue = new native.PacketQueue({
      queue: options.queueBase + offset,
      copyRange,
      maxLength: 16_384,
      receiveBuffer: 4 * SOCKET_BYTES,
      batch: name === "reply" ? 32 : 64,
      gso: true,
      failOpen: monitor,
      deadlineMs: DEADLINE_MS,
      deadlineVerdict: monitor ? NfVerdict.accept : NfVerdict.drop,
    });
    queues.set(name, queue);
    queue.start(
      (count) => handle(queue, count),
      (what, detail) => {
        if (name === "inspect" && what === "rebind") inspection.lost();
        context.log("warn", `queue ${name}: ${what}`, { detail });
        context.emit({ type: "limit", verdict: "info", why: `queue-${what}`, message: `queue ${name}: ${what} ${detail}`.trim() });
      },
    );
  };
  // Replies first: a name that waits costs more than a connection that waits. Overload lets them through, unlearned.
  open("reply", QueueOffset.reply, COPY_BYTES_MAX, true, (queue, count) => replies.hold(queue, count));
  open("query", QueueOffset.query, 4096, false, (queue, count) => queries.judge(queue, count));
  open("inspect", QueueOffset.inspect, COPY_BYTES_MAX, false, (queue, count) => inspection.read(queue, count, false));
  open("watch", QueueOffset.watch, COPY_BYTES_MAX, true, (queue, count) => inspection.read(queue, count, true));
  open("monitor", QueueOffset.monitor, 256, true, (queue, count) => admit(context, queue, count, true, sender, unknown));
  open("admission", QueueOffset.admission, 256, false, (queue, count) => admit(context, queue, count, false, sender, unknown));
}

function status(context: Context, queues: ReadonlyMap<string, PacketQueue>): WorkerStatus {
  const stats: Record<string, QueueStats> = {};
  for (const [name, queue] of queues) stats[name] = queue.stats();
  const { kernel, counters, pods } = context;
  return {
    queues: stats,
    sets: kernel.sizes(),
    counters: {
      ...counters,
      bindingsEvicted: [...pods.byKey.values()].reduce((sum, { guard }) => sum + guard.names.evictions, 0),
      setWrites: kernel.writes,
      setFull: kernel.full,
      setFailures: kernel.failures,
    },
    pods: Object.fromEntries(
      [...pods.byKey].map(([key, pod]) => [
        key,
        { bindings: pod.guard.names.bindings, addresses: pod.guard.names.size, ruleHits: Object.fromEntries(pod.ruleHits) },
      ]),
    ),
  };
}

function fail(error: unknown): void {
  const fault = error instanceof Fault ? error : kernelFault(error);
  send({ kind: "failed", code: fault.code, message: fault.message, fix: fault.fix });
}

function kernelFault(error: unknown): Fault {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  if (code === "EPERM" || code === "EACCES")
    return new Fault("no-privilege", `the kernel refused: ${messageOf(error)}`, "run as root, or with CAP_NET_ADMIN and CAP_NET_RAW");
  if (code === "EBUSY")
    return new Fault(
      "queue-busy",
      `another process listens on our queues: ${messageOf(error)}`,
      "is another agent running on this node? stop it, or choose other queues with --queue-base",
    );
  return new Fault(
    "kernel",
    `the kernel side cannot be set up: ${messageOf(error)}`,
    "run `namegate doctor` to see what this kernel lacks",
  );
}

try {
  start(addon());
} catch (error) {
  fail(error);
}
