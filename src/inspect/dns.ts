import { Protocol } from "../model/packet.ts";
import { badFlags, DNS_HEADER_BYTES, type DnsMessage, readDnsMessage } from "./dns-message.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { isNetbiosName } from "./netbios.ts";
import { firstDatagram, more, printable, shown, sizeOf } from "./parts.ts";

/** DNS over UDP, and over TCP with a length before every message (RFC 1035 §4.2, RFC 7766). Read whole, to its last octet. */
const bad = { bad: "not a DNS query" };
const QUESTION_BYTES_MIN = 5; // the root, type, class

export const dnsInspector: Inspector = {
  application: "dns",
  transports: [Protocol.UDP, Protocol.TCP],
  opens: "client",
  read(first: FirstBytes): Reading {
    if (first.transport === Protocol.TCP) return overTcp(first);
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    // A response can only come first where the recording began too late.
    return evidence(readDnsMessage(run.bytes, run.start, run.end, isResponse(run.bytes[run.start + 2])), first.client.closed);
  },
};

function overTcp({ client, server }: FirstBytes): Reading {
  // Of a recording that has only the server's half, the response.
  const recorded = client.closed && sizeOf(client) === 0;
  const run = recorded ? server : client;
  const { bytes, start } = run;
  const have = sizeOf(run);
  const length = have < 2 ? 0 : ((bytes[start] as number) << 8) | (bytes[start + 1] as number);
  if (have >= 2 && length < DNS_HEADER_BYTES + QUESTION_BYTES_MIN) return bad;
  if (have >= 6 && badFlags(((bytes[start + 4] as number) << 8) | (bytes[start + 5] as number))) return bad;
  if (have >= 6 && isResponse(bytes[start + 4]) !== recorded) return bad;
  if (!mayBe(run, recorded)) return bad;
  if (have < 2 + length || have < 2) return more(run, 2 + Math.max(length, DNS_HEADER_BYTES));
  return evidence(readDnsMessage(bytes, start + 2, start + 2 + length, recorded), recorded);
}

/** What of a message's counts and first name is there already fits: one question, and few records in a query. */
function mayBe({ bytes, start, end }: Run, response: boolean): boolean {
  const most = response ? [0, 1] : [0, 1, 0, 0, 0, 1, 0, 2]; // an IXFR has an authority; EDNS and TSIG
  for (const [i, max] of most.entries()) if (start + 6 + i < end && (bytes[start + 6 + i] as number) > max) return false;
  if (start + 7 < end && bytes[start + 7] !== 1) return false;
  let label = start + 2 + DNS_HEADER_BYTES;
  while (label < end && bytes[label] !== 0 && label - start < 2 + DNS_HEADER_BYTES + 255) {
    const length = bytes[label] as number;
    const stop = Math.min(label + 1 + length, end);
    if (length > 63 || (stop > label + 1 && !printable(bytes, label + 1, stop))) return false;
    label += 1 + length;
  }
  return true;
}

const isResponse = (flags: number | undefined): boolean => (flags ?? 0) > 127;

function evidence(message: DnsMessage | undefined, recorded: boolean): Reading {
  if (message === undefined || message.questions !== 1 || isMulticast(message) || isNetbiosName(message.name)) return bad;
  if (message.response ? !recorded : message.opcode === 0 && message.answers > 0) return bad;
  const query = shown(message.name.toLowerCase());
  return { application: "dns", serverName: query === "" ? undefined : query, fields: { query: query === "" ? "." : query } };
}

/** RFC 6762 §18: id 0, no recursion; its names end in `.local`, or ask for a name of a link-local address. */
function isMulticast({ id, opcode, recursion, name }: DnsMessage): boolean {
  return id === 0 && opcode === 0 && !recursion && (name.toLowerCase().endsWith(".local") || name.startsWith("_"));
}

export const mdnsInspector: Inspector = {
  application: "mdns",
  transports: [Protocol.UDP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const run = firstDatagram(first);
    if (!("bytes" in run)) return run;
    const message = readDnsMessage(run.bytes, run.start, run.end);
    if (message === undefined || !isMulticast(message)) return { bad: "not multicast DNS" };
    return { application: "mdns", serverName: shown(message.name), fields: { query: shown(message.name) } };
  },
};
