import { Protocol } from "../model/packet.ts";
import { readDnsMessage } from "./dns-message.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { firstDatagram, latin1, more, shown, sizeOf } from "./parts.ts";

/**
 * NetBIOS over TCP and UDP (RFC 1002): name service (§4.2, DNS messages with names of a form of their own), datagrams (§4.4),
 * and the session request (§4.3.2). What is carried in a session is another protocol (smb).
 */
const NAME_LETTERS = 32; // RFC 1001 §14.1: 16 octets, two letters from A to P each
const SESSION_REQUEST = 0x81;
const SESSION_HEADER_BYTES = 4;
const SESSION_NAMES_BYTES = 68; // two names of 34
const DATAGRAM_HEADER_BYTES = 14;
const bad = { bad: "not NetBIOS" };

export const netbiosInspector: Inspector = {
  application: "netbios",
  transports: [Protocol.UDP, Protocol.TCP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.TCP) return session(first.client);
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const message = readDnsMessage(run.bytes, run.start, run.end);
    if (message !== undefined) return isNetbiosName(message.name) ? named(message.name) : bad;
    return datagram(run);
  },
};

function session(run: Run): Reading {
  const { bytes, start } = run;
  const head = [SESSION_REQUEST, 0, 0, SESSION_NAMES_BYTES, NAME_LETTERS];
  for (const [i, octet] of head.entries()) if (i < sizeOf(run) && bytes[start + i] !== octet) return bad;
  if (sizeOf(run) < SESSION_HEADER_BYTES + SESSION_NAMES_BYTES) return more(run, SESSION_HEADER_BYTES + SESSION_NAMES_BYTES);
  const called = nameAt(run, start + SESSION_HEADER_BYTES);
  return called === undefined ? bad : named(called);
}

/** Type, flags, id, source address and port, length, offset; two names, the first is the source's. */
function datagram(run: Run): Reading {
  const { bytes, start } = run;
  const type = bytes[start] ?? 0;
  if (sizeOf(run) < DATAGRAM_HEADER_BYTES + 34 || type < 0x10 || type > 0x12 || (bytes[start + 1] as number) > 15) return bad;
  const length = ((bytes[start + 10] as number) << 8) | (bytes[start + 11] as number);
  if (length !== sizeOf(run) - DATAGRAM_HEADER_BYTES) return bad;
  const source = nameAt(run, start + DATAGRAM_HEADER_BYTES);
  return source === undefined ? bad : named(source);
}

function nameAt({ bytes, end }: Run, at: number): string | undefined {
  if (at + NAME_LETTERS + 1 >= end || bytes[at] !== NAME_LETTERS) return undefined;
  const name = latin1(bytes, at + 1, at + 1 + NAME_LETTERS);
  return isNetbiosName(name) ? name : undefined;
}

/** Is the first label of this name of the encoded form? */
export function isNetbiosName(name: string): boolean {
  if (name.length < NAME_LETTERS || (name.length > NAME_LETTERS && name[NAME_LETTERS] !== ".")) return false;
  for (let i = 0; i < NAME_LETTERS; i++) if (name.charCodeAt(i) < 0x41 || name.charCodeAt(i) > 0x50) return false;
  return true;
}

/** 15 characters padded with blanks, and one for the kind of service. */
function named(encoded: string): Reading {
  let name = "";
  for (let i = 0; i < NAME_LETTERS - 2; i += 2) {
    name += String.fromCharCode(((encoded.charCodeAt(i) - 0x41) << 4) | (encoded.charCodeAt(i + 1) - 0x41));
  }
  const shownName = shown(name.trimEnd().toLowerCase());
  return { application: "netbios", serverName: shownName === "" ? undefined : shownName };
}
