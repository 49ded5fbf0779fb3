export const PIECES_BYTES_MAX = 16_384; // RFC 9000 §7.5 asks a server for 4096; post-quantum hellos have 2 KB
const FIRST_BYTES = 2048;

/**
 * A message that comes in pieces by their offset, in any order, also twice or overlapping: CRYPTO frames of QUIC, handshake
 * fragments of DTLS. The first copy of a byte stays.
 */
export class Pieces {
  bytes = new Uint8Array(FIRST_BYTES);
  private there = new Uint8Array(FIRST_BYTES);
  /** All bytes before it are there. */
  prefix = 0;
  /** How many are there. */
  count = 0;
  /** A byte came twice, and was not the same. */
  conflict = false;

  /** False when it goes beyond what is kept. */
  add(offset: number, data: Uint8Array): boolean {
    const end = offset + data.length;
    if (end > PIECES_BYTES_MAX) return false;
    while (this.bytes.length < end) {
      this.bytes = doubled(this.bytes);
      this.there = doubled(this.there);
    }
    for (let i = 0; i < data.length; i++) {
      const at = offset + i;
      if (this.there[at] === 0) {
        this.there[at] = 1;
        this.count++;
        this.bytes[at] = data[i] as number;
      } else if (this.bytes[at] !== data[i]) this.conflict = true;
    }
    while (this.prefix < this.there.length && this.there[this.prefix] === 1) this.prefix++;
    return true;
  }
}

function doubled(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const more = new Uint8Array(bytes.length * 2);
  more.set(bytes);
  return more;
}
