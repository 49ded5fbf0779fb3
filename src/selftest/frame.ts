import { type Ip, putIp } from "../base/address.ts";
import { checksum, sumWords } from "../base/checksum.ts";
import { CANARY_DESTINATION, CANARY_PROTOCOL } from "../model/canary.ts";

/** Locally administered, so that it is no vendor's. */
const SOURCE_MAC = [0x02, 0x6e, 0x67, 0x00, 0x00, 0x01];
const ETHERNET = 14;

/**
 * An Ethernet frame to `mac` (six octets) with one canary from `source`. It is not to travel: hop limit 1, and its
 * destination leads nowhere.
 */
export function canaryFrame(mac: readonly number[], source: Ip, nonce: Uint8Array): Uint8Array {
  const v4 = source.length === 4;
  const header = v4 ? 20 : 40;
  const frame = new Uint8Array(ETHERNET + header + nonce.length);
  frame.set([...mac, ...SOURCE_MAC, ...(v4 ? [0x08, 0x00] : [0x86, 0xdd])]);
  const ip = frame.subarray(ETHERNET);
  if (v4) {
    const total = header + nonce.length;
    ip.set([0x45, 0, total >> 8, total & 255, 0, 0, 0x40, 0, 1, CANARY_PROTOCOL]);
    putIp(ip, 12, source);
    putIp(ip, 16, CANARY_DESTINATION[4]);
    const sum = checksum(sumWords(ip, 0, header));
    ip.set([sum >> 8, sum & 255], 10);
  } else {
    ip.set([0x60, 0, 0, 0, nonce.length >> 8, nonce.length & 255, CANARY_PROTOCOL, 1]);
    putIp(ip, 8, source);
    putIp(ip, 24, CANARY_DESTINATION[6]);
  }
  ip.set(nonce, header);
  return frame;
}
