import type { Bad } from "../base/cursor.ts";
import type { DnsName } from "../base/name.ts";
import { Flag, HEADER_OCTETS, Message, Rcode, Type } from "./message.ts";

/** One question as a stub resolver asks it. Only opcode 0 (QUERY) is a question about a name; others are for the policy to refuse. */
export interface Query {
  readonly id: number;
  readonly flags: number;
  readonly opcode: number;
  /** Recursion desired. */
  readonly rd: boolean;
  /** undefined: the root, or a name with octets that no host name has. */
  readonly qname: DnsName | undefined;
  readonly qtype: number;
  readonly qclass: number;
  /** Has an OPT record (RFC 6891). */
  readonly edns: boolean;
  /** The DO bit of that record (RFC 3225). */
  readonly dnssecOk: boolean;
  /** Offset in `bytes` after the question. */
  readonly questionEnd: number;
}

/** Additional records read in a query: OPT, TSIG or SIG(0), and room for what comes. */
const ADDITIONALS_MAX = 8;
/** UDP payload that the replies built here offer (DNS flag day 2020). */
const EDNS_UDP_OCTETS = 1232;
/** EDNS option and code (RFC 8914 §2, §4.19). */
const EXTENDED_ERROR = 15;
const EDE_PROHIBITED = 18;

const message = new Message();

/**
 * Reads a whole DNS query, strictly: one question, no answers, no authorities, a few additional records of which at most
 * one is OPT with the root as owner, and nothing behind: what a resolver might read otherwise than we do is `bad`.
 */
export function readQuery(bytes: Uint8Array, start: number, end: number): Query | Bad {
  if (!message.open(bytes, start, end)) return { bad: "no whole header" };
  const { id, flags } = message;
  if ((flags & Flag.QR) !== 0) return { bad: "a reply" };
  if (message.questions !== 1) return { bad: "not exactly one question" };
  if (message.answers !== 0 || message.authorities !== 0) return { bad: "records in a query" };
  if (message.additionals > ADDITIONALS_MAX) return { bad: "too many additional records" };
  if (!message.question() || !message.walk(message.owner)) return { bad: "the question cannot be read" };
  const qname = message.name();
  const qtype = message.type;
  const qclass = message.class;
  const questionEnd = message.at;
  let edns = false;
  let dnssecOk = false;
  for (let i = 0; i < message.additionals; i++) {
    if (!message.record() || message.lead(message.owner) < 0) return { bad: "an additional record cannot be read" };
    if (message.type !== Type.OPT) continue;
    if (edns || bytes[message.owner] !== 0) return { bad: "two OPT records, or one with a name" };
    edns = true;
    dnssecOk = ((bytes[message.owner + 7] as number) & 0x80) !== 0; // root, type, class, extended rcode, version, flags
  }
  if (message.at !== message.end) return { bad: "octets after the message" };
  return { id, flags, opcode: (flags & Flag.OPCODE) >> 11, rd: (flags & Flag.RD) !== 0, qname, qtype, qclass, edns, dnssecOk, questionEnd };
}

/**
 * The reply that refuses a query: REFUSED with the question's own octets (so 0x20 case is kept) and, when the query has
 * EDNS, Extended DNS Error 18 (Prohibited). A query that cannot be read gets a FORMERR header. undefined: fewer than 12
 * octets, or a reply, which nobody may answer.
 */
export function refused(bytes: Uint8Array, start: number, end: number): Uint8Array | undefined {
  const query = readQuery(bytes, start, end);
  if (message.end - start < HEADER_OCTETS || (message.flags & Flag.QR) !== 0) return undefined;
  const kept = message.flags & (Flag.OPCODE | Flag.RD | Flag.CD); // CD: RFC 4035 §3.2.2
  if ("bad" in query) return header(message.id, Flag.QR | Flag.RA | kept | Rcode.FORMERR, 0, 0, HEADER_OCTETS);
  const question = bytes.subarray(start + HEADER_OCTETS, query.questionEnd);
  const opt = HEADER_OCTETS + question.length;
  const reply = header(query.id, Flag.QR | Flag.RA | kept | Rcode.REFUSED, 1, query.edns ? 1 : 0, opt + (query.edns ? 17 : 0));
  reply.set(question, HEADER_OCTETS);
  if (query.edns) {
    // Root owner, OPT, UDP size, extended rcode 0, version 0, DO as asked, one option of two octets.
    reply.set(
      [
        0,
        0,
        Type.OPT,
        EDNS_UDP_OCTETS >> 8,
        EDNS_UDP_OCTETS & 255,
        0,
        0,
        query.dnssecOk ? 0x80 : 0,
        0,
        0,
        6,
        0,
        EXTENDED_ERROR,
        0,
        2,
        0,
        EDE_PROHIBITED,
      ],
      opt,
    );
  }
  return reply;
}

function header(id: number, flags: number, questions: number, additionals: number, length: number): Uint8Array {
  const reply = new Uint8Array(length);
  reply.set([id >> 8, id & 255, flags >> 8, flags & 255, 0, questions, 0, 0, 0, 0, 0, additionals]);
  return reply;
}
