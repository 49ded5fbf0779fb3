import type { Ip } from "./address.ts";

/** Adds the 16-bit words of bytes[start..end) to `sum` (an odd last byte is a high byte), not yet folded (RFC 1071). */
export function sumWords(bytes: Uint8Array, start: number, end: number, sum = 0): number {
  let at = start;
  for (; at + 1 < end; at += 2) sum += ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  return at < end ? sum + ((bytes[at] as number) << 8) : sum;
}

/** The pseudo header of RFC 9293 §3.1 and RFC 8200 §8.1; `length` is that of the transport header and its payload. */
export function sumPseudoHeader(source: Ip, destination: Ip, protocol: number, length: number): number {
  let sum = protocol + length;
  for (let i = 0; i < source.length; i += 2) {
    sum += (source.charCodeAt(i) << 8) | source.charCodeAt(i + 1);
    sum += (destination.charCodeAt(i) << 8) | destination.charCodeAt(i + 1);
  }
  return sum;
}

/** Folds a sum (below 2^48) to the 16-bit one's complement that goes into the header. 0 over data that holds a right checksum. */
export function checksum(sum: number): number {
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
