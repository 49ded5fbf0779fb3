import type { DnsName } from "../base/name.ts";
import { type Message, nameOfWire } from "./message.ts";

/** CNAMEs followed from the asked name. Resolvers give up at 8 to 17. */
export const HOPS_MAX = 16;

/**
 * The names of one reply, from the asked one along its CNAMEs, compared octet by octet in folded wire form. Index 0 is
 * the asked name. Reused: `begin` empties it.
 */
export class Chain {
  length = 0;
  /** Where each name's labels begin in the message: the same place is the same name. */
  readonly #leads = new Int32Array(HOPS_MAX + 1);
  readonly #hashes = new Int32Array(HOPS_MAX + 1);
  readonly #lengths = new Uint16Array(HOPS_MAX + 1);
  /** Least TTL of the CNAMEs from the asked name to this one; 2^31-1 for the asked name. */
  readonly ttls = new Int32Array(HOPS_MAX + 1);
  readonly #wires = new Uint8Array((HOPS_MAX + 1) * 256);
  /** Made when first asked for (`#named`). */
  readonly #names: (DnsName | undefined)[] = new Array<DnsName | undefined>(HOPS_MAX + 1).fill(undefined);
  readonly #named = new Uint8Array(HOPS_MAX + 1);
  /** The last owner that was looked up, and its index: records of one owner come together. */
  #lastLead = -1;
  #lastIndex = -1;

  begin(): void {
    this.length = 0;
    this.#lastLead = -1;
  }

  /** Adds the name that `message` has just walked, which begins at `at`. False when full or when it is there already. */
  add(message: Message, at: number, ttl: number): boolean {
    if (this.length > HOPS_MAX || this.#indexOfWalked(message) >= 0) return false;
    const i = this.length++;
    this.#leads[i] = message.lead(at);
    this.#hashes[i] = message.hash;
    this.#lengths[i] = message.wireLength;
    this.ttls[i] = i === 0 ? ttl : Math.min(ttl, this.ttls[i - 1] as number);
    for (let k = 0; k < message.wireLength; k++) this.#wires[i * 256 + k] = message.wire[k] as number;
    this.#named[i] = 0;
    this.#lastLead = -1;
    return true;
  }

  /** The DnsName at `index`, undefined where the octets make none. */
  name(index: number): DnsName | undefined {
    if (this.#named[index] === 0) {
      this.#names[index] = nameOfWire(this.#wires, index * 256, this.#lengths[index] as number);
      this.#named[index] = 1;
    }
    return this.#names[index];
  }

  /** The index of the name at `at` in the message, -1 when it is not on the chain, -2 when it is malformed. */
  indexOf(message: Message, at: number): number {
    const lead = message.lead(at);
    if (lead < 0) return -2;
    if (lead === this.#lastLead) return this.#lastIndex;
    let index = -1;
    for (let i = 0; i < this.length && index < 0; i++) if (this.#leads[i] === lead) index = i;
    if (index < 0) {
      if (!message.walk(lead)) return -2;
      index = this.#indexOfWalked(message);
    }
    this.#lastLead = lead;
    this.#lastIndex = index;
    return index;
  }

  #indexOfWalked(message: Message): number {
    for (let i = 0; i < this.length; i++) {
      if (this.#hashes[i] === message.hash && this.#lengths[i] === message.wireLength && this.#sameWire(i, message)) return i;
    }
    return -1;
  }

  #sameWire(index: number, message: Message): boolean {
    message.work -= message.wireLength;
    const base = index * 256;
    for (let k = 0; k < message.wireLength; k++) if (this.#wires[base + k] !== message.wire[k]) return false;
    return true;
  }
}
