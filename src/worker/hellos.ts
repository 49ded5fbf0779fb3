import { join } from "node:path";
import type { Addon, BpfMap } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { FLOW_KEY_BYTES, FLOW_REPLACED, FLOW_VALUE_BYTES, KNOWN_MAX, KNOWN_VALUE_BYTES } from "../firewall/hellos.ts";
import type { Flow } from "../inspect/flow.ts";
import { HELLO_KEY_BYTES, helloKey, putAddress } from "../firewall/hello-key.ts";
import type { Opened } from "../inspect/flow-desk.ts";
import type { NameSeen } from "../model/binding.ts";
import { Protocol } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import { allowed } from "./admission.ts";
import type { Context } from "./context.ts";
import type { Decision } from "./guard.ts";
import { DECISION_SECONDS, type GuardedPod } from "./pods.ts";

/** Hellos of one pod that the kernel knows: one that sends others all the time has userspace read them. */
const PER_POD_MAX = 128;
/** Seconds after which the kernel forgets a connection that has sent no hello, or whose server has not acknowledged it. */
const FLOW_SECONDS = 60;
/** Such connections that one tick looks at, and milliseconds between two walks through them. */
const FLOWS_AT_ONCE = 256;
const WALK_MS = 10_000;

/** A hello that the kernel lets pass, and what was decided about it. */
interface Known {
  readonly key: Uint8Array;
  readonly address: Ip;
  readonly port: number;
  readonly untilMs: number;
  readonly decision: Decision;
  readonly names: readonly NameSeen[];
  readonly evidence: Evidence;
  /** Connections that have been counted. */
  counted: number;
}

/**
 * ClientHellos that were read, judged and found right, as the kernel remembers them (native/hello.bpf.c): the next connection of
 * the same pod to the same server and port with the same names, ALPN and versions needs no trip here. One is forgotten when
 * anything changes that its verdict came from: the pod's policies, a name of the address that was not known then, or one that ends.
 */
export class KnownHellos {
  private readonly context: Context;
  private readonly map: BpfMap;
  private readonly flows: BpfMap;
  private readonly byPod = new Map<GuardedPod, Map<string, Known>>();
  private readonly value = Buffer.alloc(KNOWN_VALUE_BYTES);
  private readonly flow = Buffer.alloc(FLOW_VALUE_BYTES);
  private readonly flowKey = Buffer.alloc(FLOW_KEY_BYTES);
  /** Where the walk through the kernel's connections stands. */
  private readonly last = Buffer.alloc(FLOW_KEY_BYTES);
  private walking = false;
  private walkedMs = 0;
  size = 0;

  /** `folder`: the pins (firewall/hellos.ts). What an earlier agent taught the kernel is forgotten: policies may be others now. */
  constructor(context: Context, native: Addon, folder: string) {
    this.context = context;
    this.map = new native.BpfMap({ path: join(folder, "known") });
    this.flows = new native.BpfMap({ path: join(folder, "flows") });
    const key = Buffer.alloc(HELLO_KEY_BYTES);
    for (let i = 0; i < 2 * KNOWN_MAX && this.map.next(key); i++) this.map.delete(key);
  }

  /** A verdict has fallen: `decision` about what `evidence` says. */
  learn(flow: Flow<GuardedPod>, decision: Decision, evidence: Evidence): void {
    const { owner: pod, destination: address, destinationPort: port, client } = flow;
    if (flow.watch || flow.transport !== Protocol.TCP || address === undefined || evidence.application !== "tls") return;
    if (decision.kernel !== "pass" || decision.verdict.action !== "allow" || decision.wouldDeny !== undefined) return;
    // None of these has a key; should the readers ever differ, it must not have one.
    if (evidence.evasion !== undefined || evidence.upgrade !== undefined || evidence.ech === true) return;
    const bytes = client.view();
    const key = client.position === 0 ? helloKey(flow.pod, address, port, bytes, 0, bytes.length) : undefined;
    if (key === undefined) return;
    const id = Buffer.from(key.buffer).toString("latin1");
    const nowMs = this.context.nowMs();
    const untilMs = this.until(pod, address, nowMs);
    const known = this.byPod.get(pod) ?? new Map<string, Known>();
    const before = known.get(id);
    if (before !== undefined) {
      if (untilMs <= before.untilMs) return; // the kernel knows it, but not this connection's beginning
      this.drop(pod, known, id, before);
    }
    if (untilMs <= nowMs || known.size >= PER_POD_MAX || this.size >= KNOWN_MAX) return;
    this.value.writeBigUInt64LE(process.hrtime.bigint() + BigInt(Math.floor((untilMs - nowMs) * 1e6)), 0);
    this.value.writeBigUInt64LE(0n, 8);
    try {
      this.map.put(key, this.value);
    } catch {
      return; // no memory in the kernel: it is read again
    }
    const names = pod.guard.seen(address, Math.floor(nowMs / 1000));
    known.set(id, { key, address, port, untilMs, decision, names, evidence, counted: 0 });
    this.byPod.set(pod, known);
    this.size++;
  }

  /** A connection whose first bytes come to us: what the kernel knows of it, and need not know any longer. */
  opened({ pod, podPort, destination, destinationPort }: Flow<GuardedPod>): Opened | undefined {
    if (destination === undefined) return undefined;
    putAddress(this.flowKey, 0, pod);
    putAddress(this.flowKey, 16, destination);
    this.flowKey.writeUInt16BE(podPort, 32);
    this.flowKey.writeUInt16BE(destinationPort, 34);
    if (!this.flows.get(this.flowKey, this.flow)) return undefined;
    this.flows.delete(this.flowKey);
    const begins = this.flow.readUInt32LE(0);
    const hello = (this.flow.readUInt32LE(4) - begins) | 0;
    return { begins, replaced: hello > 0 || hello === -FLOW_REPLACED };
  }

  /** The first moment at which one of the names that speak for the address ends. */
  private until(pod: GuardedPod, address: Ip, nowMs: number): number {
    let untilMs = nowMs + DECISION_SECONDS * 1000;
    for (const { expires } of pod.guard.names.get(address)?.bindings ?? [])
      if (expires * 1000 > nowMs) untilMs = Math.min(untilMs, expires * 1000);
    return untilMs;
  }

  /** Anything about the pod has changed: all that it has is judged again, or what goes to one address. */
  forget(pod: GuardedPod, address?: Ip): void {
    const known = this.byPod.get(pod);
    if (known === undefined) return;
    for (const [id, one] of known) if (address === undefined || one.address === address) this.drop(pod, known, id, one);
  }

  private drop(pod: GuardedPod, known: Map<string, Known>, id: string, one: Known): void {
    this.count(pod, one);
    this.map.delete(one.key);
    known.delete(id);
    this.size--;
    if (known.size === 0) this.byPod.delete(pod);
  }

  /** Connections that the kernel has let pass since the last look are uses of the rule. */
  private count(pod: GuardedPod, one: Known): void {
    if (!this.map.get(one.key, this.value)) return;
    const count = Number(this.value.readBigUInt64LE(8));
    const more = count - one.counted;
    if (more <= 0) return;
    one.counted = count;
    this.context.counters.inspectKnown += more;
    allowed(this.context, pod, one.decision, one.address, one.port, Protocol.TCP, one.names, one.evidence, more);
  }

  /** Now and then for each pod. */
  sweep(pod: GuardedPod, nowMs: number): void {
    const known = this.byPod.get(pod);
    if (known === undefined) return;
    for (const [id, one] of known) {
      if (one.untilMs <= nowMs) this.drop(pod, known, id, one);
      else this.count(pod, one);
    }
  }

  /** At each tick: the kernel's connections that wait for something which does not come any more. A few at a time. */
  tick(nowMs: number): void {
    if (!this.walking && nowMs - this.walkedMs < WALK_MS) return;
    const endsNs = process.hrtime.bigint() - BigInt(FLOW_SECONDS) * 1_000_000_000n;
    for (let i = 0; i < FLOWS_AT_ONCE; i++) {
      // Should the kernel have forgotten `last` meanwhile, this is the first one again.
      if (!this.flows.next(this.flowKey, this.walking ? this.last : undefined)) {
        this.walking = false;
        this.walkedMs = nowMs;
        return;
      }
      if (this.flows.get(this.flowKey, this.flow) && this.flow.readBigUInt64LE(8) < endsNs) this.flows.delete(this.flowKey);
      else {
        this.flowKey.copy(this.last);
        this.walking = true;
      }
    }
  }

  /** The last look. */
  close(): void {
    for (const [pod, known] of this.byPod) for (const one of known.values()) this.count(pod, one);
    this.map.close();
    this.flows.close();
  }
}
