import { NfVerdict, type PacketQueue } from "../base/addon.ts";
import type { Reading } from "../inspect/inspector.ts";
import { inspect } from "../inspect/registry.ts";
import type { Evidence, Verdict } from "../model/verdict.ts";
import { VerdictClass } from "../model/verdict.ts";
import type { Question } from "../policy/evaluate.ts";
import { limited, report } from "./admission.ts";
import { type Context, eachPacket } from "./context.ts";
import type { Decision, Guard } from "./guard.ts";

/**
 * First payload bytes of connections whose rule wants evidence. In this version one segment must hold the whole of it: a
 * ClientHello that goes on in the next segment is denied as `incomplete`. `watch` is Monitor's side: it only speaks.
 */
export function inspectPayload(context: Context, queue: PacketQueue, count: number, watch: boolean): void {
  const { kernel, counters, pods } = context;
  eachPacket(context, queue, count, watch ? NfVerdict.accept : NfVerdict.drop, (held, answer) => {
    const { packet } = held;
    const pod = pods.of(packet.source);
    if (pod === undefined) return;
    if (packet.payloadEnd <= packet.payloadStart) {
      answer.verdict = NfVerdict.accept; // nothing to see yet, and nothing decided
      return;
    }
    const nowMs = context.nowMs();
    if (!pod.work.has(nowMs))
      return limited(context, pod, held, watch ? "info" : "deny", "more first packets than this pod's share of the packet thread can read");
    const from = performance.now();
    counters.inspected++;
    const reading = inspect(undefined, packet.bytes, packet.payloadStart, packet.payloadEnd, packet.protocol);
    const names = pod.guard.seen(packet.destination, context.now());
    const { decision, evidence } = decideByReading(
      pod.guard,
      { protocol: packet.protocol, port: packet.destinationPort, address: packet.destination, names },
      reading,
      watch,
    );
    if (decision.kernel === "deny") counters.inspectedDenied++;
    answer.verdict = NfVerdict.repeat;
    answer.mark = kernel.marks.put(held.mark, decision.kernel === "deny" ? VerdictClass.deny : VerdictClass.pass);
    report(context, pod, held, decision, names, evidence);
    pod.work.spend(performance.now() - from);
  });
}

/** The decision once the first payload bytes were read. Bytes that do not tell yet are `incomplete`: no more are waited for. */
export function decideByReading(
  guard: Guard,
  { protocol, port, address, names }: Question,
  reading: Reading,
  watch: boolean,
): { readonly decision: Decision; readonly evidence: Evidence } {
  const evidence: Evidence = "need" in reading || "bad" in reading ? { application: undefined, serverName: undefined } : reading;
  const decision = guard.decide(protocol, port, address, names, evidence);
  return { decision: "need" in reading ? incomplete(decision, watch) : decision, evidence };
}

function incomplete(decision: Decision, watch: boolean): Decision {
  const verdict: Verdict & { action: "deny" } = {
    action: "deny",
    why: "incomplete",
    policy: undefined,
    rule: undefined,
    nearest: "nearest" in decision.verdict ? decision.verdict.nearest : undefined,
  };
  return watch ? { ...decision, kernel: "pass", wouldDeny: verdict } : { kernel: "deny", verdict, mode: "Enforce", wouldDeny: undefined };
}
