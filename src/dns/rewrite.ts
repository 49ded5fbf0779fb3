import { checksum, sumPseudoHeader, sumWords } from "../base/checksum.ts";
import { type Packet, Protocol } from "../model/packet.ts";

/** Packets whose payload was changed in place, and what retransmissions of it have to say. */

const UDP_CHECKSUM_AT = 6; // RFC 768
const TCP_CHECKSUM_AT = 16; // RFC 9293 §3.1

/**
 * Gives a UDP or TCP packet whose payload was changed (not its length) a right checksum, and answers the whole of it. The
 * checksum is made anew, for that of a queued packet may be unfinished (offload). Undefined: not all of the packet is here.
 */
export function resealed(packet: Packet): Uint8Array | undefined {
  const { bytes, start, end, transport, protocol, source, destination } = packet;
  const u16 = (at: number): number => ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  const length = source.length === 4 ? u16(start + 2) : 40 + u16(start + 4);
  if (length !== end - start || packet.fragment) return undefined;
  const at = transport + (protocol === Protocol.UDP ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT);
  bytes[at] = bytes[at + 1] = 0;
  const sum = checksum(sumWords(bytes, transport, end, sumPseudoHeader(source, destination, protocol, end - transport)));
  const written = sum === 0 && protocol === Protocol.UDP ? 0xffff : sum; // 0 would mean: none
  bytes[at] = written >> 8;
  bytes[at + 1] = written & 255;
  return bytes.subarray(start, end);
}

interface Place {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

interface Patch extends Place {
  readonly sequence: number;
  readonly octets: Uint8Array;
}

/** A client acknowledges a reply within milliseconds; what is older than this many replies is not sent again. */
const PATCHES_MAX = 16;
const OCTETS_MAX = 128 * 1024;
/** Times that a segment is kept back for the sake of the rest of its message; then the sender cannot go on without it. */
const WAITS_MAX = 3;

/** Messages on TCP streams to one pod that were changed: whatever segments they come in, they say the same. Bounded. */
export class Patches {
  readonly #patches: Patch[] = [];
  readonly #waits: (Place & { sequence: number; times: number })[] = [];
  #octets = 0;

  /** `octets` stand at `sequence` of the stream that `packet` belongs to, from now on. Keeps `octets`. */
  add({ source, destination, sourcePort, destinationPort }: Packet, sequence: number, octets: Uint8Array): void {
    this.#patches.push({ source, destination, sourcePort, destinationPort, sequence, octets });
    this.#octets += octets.length;
    while (this.#patches.length > PATCHES_MAX || this.#octets > OCTETS_MAX) this.#octets -= this.#patches.shift()?.octets.length ?? 0;
  }

  /** Writes into the payload of `packet` what belongs there. True: something did. */
  apply(packet: Packet): boolean {
    const { bytes, payloadStart, payloadEnd } = packet;
    let changed = false;
    for (const patch of this.#patches) {
      if (!isSame(patch, packet)) continue;
      const shift = (patch.sequence - packet.sequence) | 0; // where the patch begins, from the payload's first octet
      const from = Math.max(0, -shift);
      const to = Math.min(patch.octets.length, payloadEnd - payloadStart - shift);
      if (from >= to) continue;
      bytes.set(patch.octets.subarray(from, to), payloadStart + shift + from);
      changed = true;
    }
    return changed;
  }

  /** May this segment wait until the message in it is whole? The sender sends it again; not for ever. */
  mayWait(packet: Packet): boolean {
    const { source, destination, sourcePort, destinationPort, sequence } = packet;
    const known = this.#waits.find((wait) => wait.sequence === sequence && isSame(wait, packet));
    if (known !== undefined) return ++known.times <= WAITS_MAX;
    this.#waits.push({ source, destination, sourcePort, destinationPort, sequence, times: 1 });
    if (this.#waits.length > PATCHES_MAX) this.#waits.shift();
    return true;
  }
}

function isSame(a: Place, b: Place): boolean {
  return (
    a.sourcePort === b.sourcePort && a.destinationPort === b.destinationPort && a.source === b.source && a.destination === b.destination
  );
}
