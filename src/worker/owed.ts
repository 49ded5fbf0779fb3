import type { Ip } from "../base/address.ts";
import type { Context } from "./context.ts";

/** Addresses of one pod; more are simply asked for. */
const ADDRESSES_MAX = 4096;
/** An address that has taken too long so often is not tried again before its names change. */
const TRIES_MAX = 3;
/** Milliseconds of one settling, and of one address in it. */
const SETTLE_MS = 4;
const ADDRESS_MS = 4;

/**
 * Addresses whose decisions there was no time for when they were learned (the pod had had its share, or the thread had to wait for a
 * processor). The agent answers for them; but while it is away nobody does, so the kernel is told as soon as there is time.
 */
export class Owed {
  private readonly tries = new Map<Ip, number>();
  /** The one in hand. */
  private trying: { readonly address: Ip; readonly tries: number } | undefined;

  get size(): number {
    return this.tries.size;
  }

  add(address: Ip): void {
    const tries = this.trying?.address === address ? this.trying.tries + 1 : 0;
    if (tries < TRIES_MAX && (this.tries.has(address) || this.tries.size < ADDRESSES_MAX)) this.tries.set(address, tries);
  }

  /** Takes one and has it settled, which may add it again. False: there is none. */
  next(settle: (address: Ip) => void): boolean {
    const [first] = this.tries;
    if (first === undefined) return false;
    const [address, tries] = first;
    this.tries.delete(address);
    this.trying = { address, tries };
    settle(address);
    this.trying = undefined;
    return true;
  }

  clear(): void {
    this.tries.clear();
  }
}

/** Settles some of what is owed, the next pod first each time. Pods that have had their share of the thread wait. */
export function settleOwed({ pods, kernel, nowMs, now }: Pick<Context, "pods" | "kernel" | "nowMs" | "now">, after: number): number {
  const owing = [...pods.byKey.values()].filter(({ owed }) => owed.size > 0);
  const until = performance.now() + SETTLE_MS;
  let served = 0;
  while (served < owing.length && performance.now() < until) {
    const pod = owing[(after + served++) % owing.length];
    const from = performance.now();
    while (pod !== undefined && pod.work.has(nowMs()) && performance.now() < until) {
      const start = performance.now();
      if (!pod.owed.next((address) => pod.settle(address, now(), start + ADDRESS_MS))) break;
    }
    pod?.work.spend(performance.now() - from);
  }
  if (owing.length > 0) kernel.commit();
  return owing.length === 0 ? 0 : (after + served) % owing.length;
}
