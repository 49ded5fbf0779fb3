/** The Huffman code of HPACK (RFC 7541 §5.2, Appendix B). */

/**
 * The code's length in bits of every octet and of EOS behind them, in base 36. The code is canonical: shorter codes come
 * first, and those of one length in the order of their octets, so the lengths are all of it.
 */
const LENGTHS =
  "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca" +
  "d67777777777777777777777878djde6f56565666577666567655677777fbeds" +
  "kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn" +
  "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu";
const EOS = 256;
const SHORTEST = 5;
const LONGEST = 30;
const PADDING_BITS_MAX = 7; // RFC 7541 §5.2: more padding than that is an error

/** Of every length: the first code, and where its octet stands in SYMBOLS. */
const FIRST = new Uint32Array(LONGEST + 2);
const START = new Uint16Array(LONGEST + 2);
const SYMBOLS = new Uint16Array(LENGTHS.length);
{
  let code = 0;
  let at = 0;
  for (let length = SHORTEST; length <= LONGEST; length++) {
    FIRST[length] = code;
    START[length] = at;
    for (let symbol = 0; symbol < LENGTHS.length; symbol++) {
      if (Number.parseInt(LENGTHS[symbol] as string, 36) !== length) continue;
      SYMBOLS[at++] = symbol;
      code++;
    }
    code *= 2;
  }
  START[LONGEST + 1] = at;
}

/** The octets coded in bytes[start..end), one char each; undefined when they are not coded so. At most 8/5 of the input. */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number): string | undefined {
  const out = Buffer.allocUnsafe(Math.ceil(((end - start) * 8) / SHORTEST));
  let length = 0;
  let code = 0;
  let bits = 0;
  let ones = true; // since the last symbol: padding is the first bits of EOS, all ones
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number;
    for (let shift = 7; shift >= 0; shift--) {
      const bit = (byte >> shift) & 1;
      ones &&= bit === 1;
      code = code * 2 + bit;
      bits++;
      if (bits < SHORTEST) continue;
      const nth = (START[bits] as number) + code - (FIRST[bits] as number);
      if (nth >= (START[bits + 1] as number)) continue;
      const symbol = SYMBOLS[nth] as number;
      if (symbol === EOS) return undefined;
      out[length++] = symbol;
      code = 0;
      bits = 0;
      ones = true;
    }
  }
  return bits <= PADDING_BITS_MAX && ones ? out.toString("latin1", 0, length) : undefined;
}
