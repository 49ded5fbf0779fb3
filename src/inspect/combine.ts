import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, NeedOf, NotIt, Reading, Run } from "./inspector.ts";
import { NO_BYTES } from "./inspector.ts";

/**
 * What many inspectors say of the same bytes, as one reading. They are asked in order, and the order counts: what the first
 * of them is certain of (evidence, or `application` on a `need` or a `bad`) holds, but it has to wait while one before it
 * has seen bytes of the side that opens and still needs more: those could turn out to be the stricter protocol, and the
 * same bytes must not be two protocols because of how they were cut.
 *
 * Nothing certain: the least need. It has `release` when one of the candidates says so. That gives nothing away: what is
 * released is a legal, complete message of an application that the caller asked about, and a rule which has that application lets
 * it out anyway. The other way round, bytes held for one candidate while another waits for the server, nobody would ever speak
 * again. The caller asks again when `need` bytes of `of` are there, and when anything new of the other direction has come.
 */
export function combine(inspectors: readonly Inspector[], first: FirstBytes): Reading {
  let need: NeedOf | undefined;
  let waits = false; // somebody stricter may still be right
  let bad: NotIt | undefined;
  for (const inspector of inspectors) {
    const { start, end } = first[inspector.opens];
    const reading = unfulfillable(inspector.read(first), first);
    const certain = !("bad" in reading || "need" in reading) || reading.application !== undefined;
    if (certain && !waits) return reading;
    if ("need" in reading) {
      const { need: bytes, of, release } = reading;
      const plain: NeedOf = release === true ? { need: bytes, of, release } : { need: bytes, of };
      need = need === undefined ? plain : sooner(need, plain);
      waits ||= end > start;
    } else if (certain) break;
    else if ("bad" in reading) bad ??= reading;
  }
  return need ?? bad ?? { bad: "nothing reads this transport" };
}

/** A need of bytes that will not come is none. */
function unfulfillable(reading: Reading, first: FirstBytes): Reading {
  if (!("need" in reading) || !first[reading.of].closed) return reading;
  const bad = `the ${reading.of} ends too early`;
  return reading.application === undefined ? { bad } : { bad, application: reading.application };
}

/** The need to tell of two. */
function sooner(a: NeedOf, b: NeedOf): NeedOf {
  if ((a.release === true) !== (b.release === true)) return a.release === true ? a : b;
  if (a.of !== b.of) return a.of === "client" ? a : b;
  return b.need < a.need ? b : a;
}

/**
 * The inspectors of one transport, found by the first byte, so that a connection is read by the few that could be right and
 * not by all. Over TCP an inspector that refuses a first byte alone refuses all that begins with it; a datagram is no
 * beginning of anything, so over UDP all are asked.
 */
export class Candidates {
  readonly #all: readonly Inspector[];
  /** By first byte of the client, 256: it has sent none. Filled when first asked for. */
  readonly #byFirst: (readonly Inspector[] | undefined)[] = [];
  readonly #transport: number;

  constructor(inspectors: readonly Inspector[], transport: number) {
    this.#all = inspectors.filter(({ transports }) => transports.includes(transport));
    this.#transport = transport;
  }

  of({ client }: FirstBytes): readonly Inspector[] {
    if (this.#transport !== Protocol.TCP) return this.#all;
    const byte = client.end > client.start ? (client.bytes[client.start] as number) : 256;
    return (this.#byFirst[byte] ??= byte === 256 ? this.#all : this.#all.filter((inspector) => mayBegin(inspector, byte)));
  }
}

/** What a server-first protocol says of its client's first byte may depend on what the server said. */
function mayBegin(inspector: Inspector, byte: number): boolean {
  if (inspector.opens === "server") return true;
  const client: Run = { ...NO_BYTES, bytes: Uint8Array.of(byte), end: 1 };
  const reading = inspector.read({ transport: Protocol.TCP, client, server: NO_BYTES });
  return !("bad" in reading) || reading.application !== undefined;
}
