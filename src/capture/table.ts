import type { Endpoint, Ip } from "../base/address.ts";
import type { Packet } from "../model/packet.ts";

/**
 * Connections by their two ends, whichever of them sent the packet. It reads the addresses where they stand in the packet, so
 * that a packet of a known connection costs no string.
 */

const WORDS = 10; // of a key: both ports, protocol and words of an address, two addresses; what IPv4 does not fill says nothing
const SLOTS_MIN = 1024;
const PROBES_MAX = 128; // a made-up capture may have many ends in one place

export class FlowTable<T> {
  /** Entry + 1 by hash; 0 is free. A power of two, at most half of it used. */
  #slots = new Int32Array(SLOTS_MIN);
  #keys = new Int32Array((SLOTS_MIN / 2) * WORDS);
  readonly #values: T[] = [];
  /** The key of the packet in hand, its ends in a fixed order, and its hash. */
  readonly #key = new Int32Array(WORDS);
  #hash = 0;
  /** The source of the packet in hand is the second end of its key. */
  swapped = false;

  /** The value of the packet's connection. */
  find(packet: Packet): T | undefined {
    this.#read(packet);
    const entry = this.#entry();
    return entry > 0 ? this.#values[entry - 1] : undefined;
  }

  /** Sets the value for the packet that `find` was last asked about. Returns its entry; 0 where there is no room for it. */
  set(value: T): number {
    const found = this.#entry();
    if (found > 0) {
      this.#values[found - 1] = value;
      return found;
    }
    if ((this.#values.length + 1) * 2 > this.#slots.length) this.#grow();
    const slot = this.#free(this.#hash);
    if (slot < 0) return 0;
    const entry = this.#values.push(value);
    this.#keys.set(this.#key, (entry - 1) * WORDS);
    this.#slots[slot] = entry;
    return entry;
  }

  /** One of the two ends of an entry. */
  endpoint(entry: number, second: boolean): Endpoint {
    const from = (entry - 1) * WORDS;
    const words = (this.#keys[from + 1] as number) >> 8;
    const start = from + 2 + (second ? words : 0);
    let address = "";
    for (let i = start; i < start + words; i++) {
      const w = this.#keys[i] as number;
      address += String.fromCharCode(w >>> 24, (w >>> 16) & 255, (w >>> 8) & 255, w & 255);
    }
    return { address: address as Ip, port: this.port(entry, second) };
  }

  port(entry: number, second: boolean): number {
    const ports = this.#keys[(entry - 1) * WORDS] as number;
    return second ? ports & 0xffff : ports >>> 16;
  }

  #read({ bytes, start, protocol, sourcePort, destinationPort }: Packet): void {
    const key = this.#key;
    const is4 = (bytes[start] as number) >> 4 === 4;
    const words = is4 ? 1 : 4;
    const source = start + (is4 ? 12 : 8);
    const destination = source + words * 4;
    let order = 0;
    for (let i = 0; i < words && order === 0; i++) order = word(bytes, source + i * 4) - word(bytes, destination + i * 4);
    if (order === 0) order = sourcePort - destinationPort;
    this.swapped = order > 0;
    const low = this.swapped ? destination : source;
    const high = this.swapped ? source : destination;
    key[0] = this.swapped ? (destinationPort << 16) | sourcePort : (sourcePort << 16) | destinationPort;
    key[1] = protocol | (words << 8);
    for (let i = 0; i < words; i++) {
      key[2 + i] = word(bytes, low + i * 4);
      key[2 + words + i] = word(bytes, high + i * 4);
    }
    this.#hash = hash(key, 0);
  }

  /** The entry of the key in hand, from 1; 0: none. */
  #entry(): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (let i = 0, at = this.#hash & mask; i < PROBES_MAX; i++, at = (at + 1) & mask) {
      const entry = slots[at] as number;
      if (entry === 0) return 0;
      if (this.#same((entry - 1) * WORDS)) return entry;
    }
    return 0;
  }

  #same(from: number): boolean {
    const keys = this.#keys;
    const key = this.#key;
    const words = wordsOf(key, 0);
    for (let i = 0; i < words; i++) if (keys[from + i] !== key[i]) return false;
    return true;
  }

  #free(hashed: number): number {
    const mask = this.#slots.length - 1;
    for (let i = 0, at = hashed & mask; i < PROBES_MAX; i++, at = (at + 1) & mask) if (this.#slots[at] === 0) return at;
    return -1;
  }

  #grow(): void {
    this.#slots = new Int32Array(this.#slots.length * 2);
    const keys = new Int32Array(this.#keys.length * 2);
    keys.set(this.#keys);
    this.#keys = keys;
    for (let entry = 1; entry <= this.#values.length; entry++) {
      const slot = this.#free(hash(keys, (entry - 1) * WORDS));
      if (slot >= 0) this.#slots[slot] = entry; // else its later packets begin a new connection
    }
  }
}

const word = (b: Uint8Array, o: number): number =>
  ((b[o] as number) << 24) | ((b[o + 1] as number) << 16) | ((b[o + 2] as number) << 8) | (b[o + 3] as number);

/** Words of the key at `from` that say something. */
const wordsOf = (key: Int32Array, from: number): number => 2 + 2 * ((key[from + 1] as number) >> 8);

/** FNV-1a over words, with the high bits folded into the low ones that choose the slot. */
function hash(key: Int32Array, from: number): number {
  const end = from + wordsOf(key, from);
  let h = 0x811c9dc5;
  for (let i = from; i < end; i++) {
    h = Math.imul(h ^ (key[i] as number), 0x01000193);
    h ^= h >>> 15;
  }
  return h >>> 0;
}
