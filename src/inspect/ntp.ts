import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, printable, sizeOf } from "./parts.ts";

/**
 * NTP (RFC 5905 §7.3) and SNTP: client and symmetric modes with a plausible header; control messages (RFC 9327) and the
 * private mode 7 of ntpd. Nothing in it is a magic number, so every field must be in its range.
 */
const HEADER_BYTES = 48;
const STRATUM_MAX = 16;
const POLL_MAX = 17; // log2 seconds
const EXTENSION_BYTES_MIN = 16; // RFC 7822
const MAC_BYTES = [4, 20, 24]; // a key id alone (crypto-NAK), with MD5, with SHA-1
const CONTROL_BYTES = 12;
const PRIVATE_BYTES = 8;
const bad = { bad: "not NTP" };

export const ntpInspector: Inspector = {
  application: "ntp",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const leading = run.bytes[run.start] as number;
    const version = (leading >> 3) & 7;
    const mode = leading & 7;
    if (version < 1 || version > 4) return bad;
    const good = mode === 6 ? control(run) : mode === 7 ? private7(run) : mode >= 1 && mode <= 5 && time(run, version);
    return good ? { application: "ntp", serverName: undefined, version: String(version) } : bad;
  },
};

function time({ bytes, start, end }: Run, version: number): boolean {
  if (end - start < HEADER_BYTES) return false;
  const poll = ((bytes[start + 2] as number) << 24) >> 24;
  const precision = ((bytes[start + 3] as number) << 24) >> 24;
  // Root delay and dispersion are seconds in 16.16: less than 256 of them.
  if (bytes[start + 4] !== 0 || bytes[start + 8] !== 0) return false;
  if ((bytes[start + 1] as number) > STRATUM_MAX || poll < -6 || poll > POLL_MAX || precision > 32) return false;
  return trailer(bytes, start + HEADER_BYTES, end, version);
}

/** Extension fields (version 4), then perhaps a MAC. */
function trailer(bytes: Uint8Array, start: number, end: number, version: number): boolean {
  let at = start;
  while (at < end) {
    if (MAC_BYTES.includes(end - at)) return true;
    if (version < 4 || end - at < EXTENSION_BYTES_MIN) return false;
    const length = ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
    if (length < EXTENSION_BYTES_MIN || length % 4 !== 0) return false;
    at += length;
  }
  return at === end;
}

/** A request: response, error and more are 0, status and offset are 0, and its text is as long as it says (padded to 4). */
function control({ bytes, start, end }: Run): boolean {
  if (end - start < CONTROL_BYTES || (bytes[start] as number) >> 6 !== 0) return false;
  const op = bytes[start + 1] as number;
  const count = ((bytes[start + 10] as number) << 8) | (bytes[start + 11] as number);
  const padded = CONTROL_BYTES + Math.ceil(count / 4) * 4;
  if (op === 0 || op > 31 || [4, 5, 8, 9].some((i) => bytes[start + i] !== 0)) return false;
  const textual = count === 0 || printable(bytes, start + CONTROL_BYTES, Math.min(end, start + CONTROL_BYTES + count));
  return textual && (end - start === padded || MAC_BYTES.includes(end - start - padded));
}

/** A request of ntpdc: implementation 0, 2 or 3, error 0, and room for its items; it is padded with zeros. */
function private7(run: Run): boolean {
  const { bytes, start, end } = run;
  if (sizeOf(run) < PRIVATE_BYTES || (bytes[start] as number) > 0x7f || ![0, 2, 3].includes(bytes[start + 2] as number)) return false;
  const items = ((bytes[start + 4] as number) << 8) | (bytes[start + 5] as number);
  const itemBytes = ((bytes[start + 6] as number) << 8) | (bytes[start + 7] as number);
  if (items > 500 || itemBytes > 500 || (bytes[start + 3] as number) > 45) return false;
  for (let i = start + PRIVATE_BYTES + items * itemBytes; i < end; i++) if (bytes[i] !== 0) return false;
  return PRIVATE_BYTES + items * itemBytes <= sizeOf(run) && sizeOf(run) <= 500;
}
