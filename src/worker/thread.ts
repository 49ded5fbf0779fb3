import { parentPort, workerData } from "node:worker_threads";
import { addon, type Addon, NfVerdict, type PacketQueue, type QueueStats, type RawSender } from "../base/addon.ts";
import { family, type Ip, parseIp } from "../base/address.ts";
import { collect } from "../base/collect.ts";
import { Fault, messageOf } from "../base/fault.ts";
import type { Element } from "../firewall/ipset.ts";
import { marks } from "../firewall/marks.ts";
import { QueueOffset } from "../firewall/rules.ts";
import type { EventDraft } from "../model/event.ts";
import type { Policy, PolicyId } from "../model/policy.ts";
import type { PodKey } from "../model/snapshot.ts";
import { SourceClass } from "../model/verdict.ts";
import { admit } from "./admission.ts";
import { knowCanary } from "./canary.ts";
import { Comparison } from "./compare.ts";
import { type Context, newCounters } from "./context.ts";
import { type Rulebook, rulebook } from "./guard.ts";
import { hurry } from "./hurry.ts";
import { Inspection } from "./inspection.ts";
import { Kernel } from "./kernel.ts";
import { Live } from "./live.ts";
import { GuardedPod, PodTable } from "./pods.ts";
import type { FromWorker, PodUpdate, ToWorker, Update, WorkerOptions, WorkerStatus } from "./protocol.ts";
import { Queries } from "./queries.ts";
import { Replies } from "./replies.ts";

/**
 * The packet thread: its event loop carries packets and what must be true for the next packet, nothing else. The control
 * thread sends it changes of the desired state; it answers when the kernel has them.
 */

/** The most that nfnetlink_queue copies: a 16-bit attribute length less its header. */
const COPY_BYTES_MAX = 65_531;
const SOCKET_BYTES = 8 * 1024 * 1024;
const TICK_MS = 500;
/** Longest stretch of policy work before packets get a turn, milliseconds. */
const SLICE_MS = 4;
const SWEEP_MS = 30_000;
/** A packet that nobody settled for this long is settled by the native watchdog, milliseconds. */
const DEADLINE_MS = 2000;

const options = workerData as WorkerOptions;
const port = parentPort;
if (port === null) throw new Error("thread.ts is a worker's entry");
const send = (message: FromWorker): void => port.postMessage(message);

const drafts: EventDraft[] = [];
function flushEvents(): void {
  if (drafts.length > 0) send({ kind: "events", events: drafts.splice(0) });
}

function start(native: Addon): void {
  hurry();
  const socket = new native.NetlinkSocket({ receiveBuffer: SOCKET_BYTES });
  const sender = new native.RawSender();
  const kernel = new Kernel(socket, marks(options.markMask));
  const context: Context = {
    kernel,
    pods: new PodTable(),
    limits: options.limits,
    counters: newCounters(),
    nowMs: () => Date.now(),
    now: () => Math.floor(Date.now() / 1000),
    emit: (draft) => {
      if (drafts.push(draft) === 1) setImmediate(flushEvents);
    },
    canary: (nonce) => send({ kind: "canary", nonce }),
    log: (level, message, detail) => send({ kind: "log", level, message, ...(detail === undefined ? {} : { detail }) }),
  };
  kernel.ensureSets();
  knowCanary(kernel);
  const comparison = new Comparison(context, new native.NetlinkSocket({ receiveBuffer: SOCKET_BYTES }));
  const live = new Live(context, sender, (sources) => send({ kind: "read-connections", sources }));
  const inspection = new Inspection(context, sender);
  const queues = new Map<string, PacketQueue>();
  const desired = new Desired(context, live, comparison, (pod) => inspection.flows.forget(pod));

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
          openQueues(native, context, queues, sender, new Replies(context), new Queries(context, sender), inspection);
          send({ kind: "bound" });
        } catch (error) {
          fail(error);
        }
        return;
      case "status":
        send({ kind: "status", id: message.id, status: status(context, queues) });
        return;
      case "stop":
        for (const queue of queues.values()) queue.close();
        flushEvents();
        process.exit(0); // of this thread only
        break;
      default:
        message satisfies never;
    }
  });
  let sweptMs = 0;
  setInterval(() => {
    const nowMs = context.nowMs();
    if (!desired.ready) return;
    live.tick();
    comparison.tick(nowMs);
    inspection.sweep();
    if (nowMs - sweptMs > SWEEP_MS) {
      sweptMs = nowMs;
      for (const pod of context.pods.byKey.values()) pod.sweep(context.now());
      kernel.commit();
    }
  }, TICK_MS);
}

/** Applies updates one after the other, with a pause for packets between pods. */
class Desired {
  ready = false;
  private readonly context: Context;
  private readonly live: Live;
  private readonly comparison: Comparison;
  private readonly gone: (pod: GuardedPod) => void;
  private readonly policies = new Map<PolicyId, Policy>();
  /** Pods with the same policies share one compiled rulebook. */
  private readonly books = new Map<string, Rulebook | undefined>();
  /** What the kernel has of known pods that nobody guards. */
  private readonly free = new Map<PodKey, readonly (readonly ["src" | "guard", Element])[]>();
  private prefixes: readonly string[] = [];
  private readonly waiting: Update[] = [];
  private working = false;

  constructor(context: Context, live: Live, comparison: Comparison, gone: (pod: GuardedPod) => void) {
    this.context = context;
    this.gone = gone;
    this.live = live;
    this.comparison = comparison;
  }

  apply(update: Update): void {
    this.waiting.push(update);
    if (!this.working) this.next();
  }

  private next(): void {
    const update = this.waiting.shift();
    this.working = update !== undefined;
    if (update === undefined) return;
    const from = performance.now();
    const work = this.steps(update);
    const slice = (): void => {
      const until = performance.now() + SLICE_MS;
      for (;;) {
        const { done } = work.next();
        if (done === true) break;
        // Before the first answer there are no packets to be kept waiting.
        if (this.ready && performance.now() > until) {
          this.context.kernel.commit();
          setImmediate(slice);
          return;
        }
      }
      this.context.kernel.commit();
      const first = !this.ready;
      if (first) this.takeOver();
      send({
        kind: "applied",
        id: update.id,
        microseconds: Math.round((performance.now() - from) * 1000),
        bindings: this.context.pods.bindings(),
      });
      this.live.tick();
      this.next();
    };
    slice();
  }

  /** The first state is complete: what an earlier agent left in the kernel is read back, or removed. */
  private takeOver(): void {
    const restored = this.comparison.restore();
    this.comparison.runNow();
    if (restored > 0) collect();
    this.ready = true;
    for (const pod of this.context.pods.byKey.values()) this.live.judge(pod, true);
    if (restored > 0) this.context.log("info", "bindings read back from the kernel", { restored });
  }

  private *steps(update: Update): Generator<void> {
    const { kernel, pods } = this.context;
    if (update.resolvers !== undefined) this.setResolvers(update.resolvers);
    if (update.interfacePrefixes !== undefined) this.setPrefixes(update.interfacePrefixes);
    for (const id of update.removedPolicies) this.policies.delete(id);
    for (const policy of update.policies) this.policies.set(policy.id, policy);
    if (update.policies.length + update.removedPolicies.length > 0) this.books.clear();
    for (const key of update.removedPods) {
      this.setFree(key, [], "");
      const pod = pods.byKey.get(key);
      if (pod === undefined) continue;
      this.remove(pod);
      yield;
    }
    for (const pod of update.pods) {
      yield* this.put(pod);
      kernel.commit();
      yield;
    }
  }

  private remove(pod: GuardedPod): void {
    pod.remove();
    this.context.pods.delete(pod);
    this.gone(pod);
    this.live.release(pod);
  }

  private *put({ pod, attachment, policies }: PodUpdate): Generator<void> {
    const { kernel, pods, limits } = this.context;
    const key = policies.join("\n");
    if (!this.books.has(key)) this.books.set(key, rulebook(policies.flatMap((id) => this.policies.get(id) ?? [])));
    const book = this.books.get(key);
    const old = pods.byKey.get(pod.key);
    const same =
      old !== undefined &&
      old.pod.uid === pod.uid &&
      old.pod.interface === pod.interface &&
      old.pod.addresses.join() === pod.addresses.join();
    if (old !== undefined && (!same || book === undefined)) this.remove(old);
    // Whoever had one of its addresses has another by now, or is gone; removed later, it would take ours along.
    for (const address of pod.addresses) {
      const holder = pods.of(address);
      if (holder !== undefined && holder.pod.key !== pod.key) this.remove(holder);
    }
    const covered = (iface: string): boolean => this.prefixes.some((prefix) => iface.startsWith(prefix));
    this.setFree(
      pod.key,
      book === undefined && attachment.kind === "routed" && covered(attachment.interface) ? pod.addresses : [],
      attachment.interface,
    );
    if (book === undefined) return;
    if (old !== undefined && same) {
      yield* old.update(book, attachment, covered, this.context.now(), pod);
      this.live.judge(old, !this.ready);
      return;
    }
    const guarded = new GuardedPod(pod, book, attachment, kernel, limits, (now) => pods.makeRoom(limits.bindings, now), options.groups);
    pods.set(guarded);
    guarded.writeFixed(covered);
    this.live.judge(guarded, !this.ready);
  }

  /**
   * A known pod that nobody guards is left alone where a prefix covers its interface; what the prefix covers and nobody
   * knows is stopped, and so is its address on another interface.
   */
  private setFree(key: PodKey, addresses: readonly Ip[], iface: string): void {
    const { kernel, pods } = this.context;
    for (const [role, element] of this.free.get(key) ?? []) {
      // The address may be a guarded pod's by now.
      if (role === "src" || pods.of(element.address) === undefined) kernel.removeFixed(role, family(element.address), element);
    }
    const elements = addresses.flatMap((address) => [
      ["src", { address, bits: address.length * 8, iface, mark: SourceClass.unguarded }] as const,
      ["guard", { address, mark: SourceClass.spoof }] as const,
    ]);
    for (const [role, element] of elements) kernel.putFixed(role, family(element.address), element);
    if (elements.length > 0) this.free.set(key, elements);
    else this.free.delete(key);
  }

  private setResolvers(resolvers: NonNullable<Update["resolvers"]>): void {
    const { kernel, pods } = this.context;
    kernel.setResolvers(resolvers);
    const now = this.context.now();
    for (const pod of pods.byKey.values()) for (const { address } of resolvers) pod.forget(address, now);
  }

  private setPrefixes(prefixes: readonly string[]): void {
    const { kernel } = this.context;
    for (const any of ["0.0.0.0", "::"]) {
      const address = parseIp(any);
      if (address === undefined) continue;
      const of = address.length === 4 ? 4 : 6;
      for (const iface of this.prefixes) kernel.removeFixed("src", of, { address, bits: 0, iface, wildcard: true });
      for (const iface of prefixes) kernel.putFixed("src", of, { address, bits: 0, iface, wildcard: true, mark: SourceClass.unknown });
    }
    this.prefixes = prefixes;
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
      batch: copyRange > 8192 ? 32 : 64,
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
  open("monitor", QueueOffset.monitor, 256, true, (queue, count) => admit(context, queue, count, true, sender));
  open("admission", QueueOffset.admission, 256, false, (queue, count) => admit(context, queue, count, false, sender));
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
  const fault = error instanceof Fault ? error : explain(error);
  send({ kind: "failed", code: fault.code, message: fault.message, fix: fault.fix });
}

function explain(error: unknown): Fault {
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
