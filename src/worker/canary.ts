import { NfVerdict } from "../base/addon.ts";
import { family } from "../base/address.ts";
import { CANARY_DESTINATION, CANARY_LINKS, CANARY_NONCE_OCTETS, CANARY_POD, CANARY_PROTOCOL } from "../model/canary.ts";
import { SourceClass } from "../model/verdict.ts";
import type { Context, Held, Settlement } from "./context.ts";
import type { Kernel } from "./kernel.ts";

/** The kernel knows the pod that is not there as a guarded one. */
export function knowCanary(kernel: Kernel): void {
  for (const of of [4, 6] as const) {
    const address = CANARY_POD[of];
    kernel.putFixed("src", of, { address, bits: address.length * 8, iface: CANARY_LINKS.pod, mark: SourceClass.enforce });
  }
}

/**
 * Is this a canary, come as far as a pod's new connection would? Then it is told and dropped. One with a class of its own
 * came from elsewhere than its source address says, and is nobody's proof.
 */
export function isCanary(context: Context, { packet, mark }: Held, answer: Settlement): boolean {
  if (packet.protocol !== CANARY_PROTOCOL || packet.destination !== CANARY_DESTINATION[family(packet.destination)]) return false;
  answer.verdict = NfVerdict.drop;
  context.counters.canaries++;
  const { bytes, payloadStart, payloadEnd, source } = packet;
  if (context.kernel.marks.classOf(mark) !== 0 || payloadEnd - payloadStart !== CANARY_NONCE_OCTETS) return true;
  // A pod may send some of its own making: then those that come by its interface are lost, and nobody else's.
  if (source !== CANARY_POD[family(source)] && context.pods.of(source)?.canaries.take(context.nowMs()) !== true) return true;
  context.canary(Buffer.from(bytes.subarray(payloadStart, payloadEnd)).toString("hex"));
  return true;
}
