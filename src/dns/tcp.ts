import { ByteStream } from "../base/stream.ts";
import { type Packet, TcpFlag } from "../model/packet.ts";
import { HEADER_OCTETS, MESSAGE_OCTETS_MAX } from "./message.ts";

/**
 * What a segment did. `complete`: in order, and no message is unfinished. `partial`: in order, the last message is not.
 * `empty`: no payload. `old`: a retransmission of what was read. `gap`: kept for later, or too old to compare.
 * `overlap-differs`, `overflow`: the stream is lost: it could mean two things, or is beyond the limits. `unknown`: the
 * stream is lost or its SYN was never seen; reading from the middle would let a sender choose what is read as a message.
 * `restarted`: a SYN with another number while a message is unfinished; not believed. `refused`: `onMessage` said so; the
 * stream is lost, so that a retransmission of what was refused does not pass as `old`.
 */
export type Fed = "complete" | "partial" | "empty" | "old" | "gap" | "overlap-differs" | "overflow" | "unknown" | "restarted" | "refused";

export interface TcpLimits {
  readonly connections: number;
  /** Bytes of buffers, in all. */
  readonly octets: number;
  readonly idleMs: number;
}

export const TCP_LIMITS: TcpLimits = { connections: 4096, octets: 32 * 1024 * 1024, idleMs: 120_000 };

/** Two octets of length and the longest message (RFC 1035 §4.2.2). */
const STREAM_OCTETS_MAX = 2 + MESSAGE_OCTETS_MAX;

interface Connection {
  /** undefined: lost; remembered, so that a SYN of an untrusted sender does not make it new. */
  stream: ByteStream | undefined;
  octets: number;
  lastMs: number;
}

/**
 * `false` refuses the message: nothing behind it is read, and the stream is lost. Any other result goes on. `sequence`: that
 * of the message's first octet.
 */
export type OnMessage = (bytes: Uint8Array, start: number, end: number, sequence: number) => unknown;

/**
 * DNS over TCP (RFC 7766), one direction of many connections: feed it the packets of pods to resolvers, and another one
 * those of resolvers to pods. Bounded by count and bytes: the longest unused is forgotten, and what then comes is `unknown`.
 */
export class TcpMessages {
  /** Does a SYN always begin anew? True for resolvers, never for pods, which can send one in the middle of a message. */
  readonly #senderTrusted: boolean;
  readonly #limits: TcpLimits;
  /** Least recently used first. */
  readonly #connections = new Map<string, Connection>();
  #octets = 0;
  /** Forgotten for the limits' sake. */
  evicted = 0;

  constructor(sender: "pod" | "resolver", limits: TcpLimits = TCP_LIMITS) {
    this.#senderTrusted = sender === "resolver";
    this.#limits = limits;
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Bytes of buffers held. */
  get octets(): number {
    return this.#octets;
  }

  /**
   * Takes one TCP packet and calls `onMessage` for each message that is now whole (without its length; the bytes are good
   * during the call only). `nowMs` never goes back.
   */
  feed(packet: Packet, nowMs: number, onMessage: OnMessage): Fed {
    this.expire(nowMs);
    const key = keyOf(packet);
    const flags = packet.tcpFlags;
    let connection = this.#connections.get(key);
    if ((flags & TcpFlag.SYN) !== 0) {
      if (connection !== undefined && !this.#mayRestart(connection, packet.sequence)) return "restarted";
      connection = this.#started(key, connection, packet.sequence);
    }
    // A stream that began before us, or was idle for long, is joined where a trusted sender's segment is whole messages.
    if (connection === undefined && this.#senderTrusted && isWholeMessages(packet))
      connection = this.#started(key, connection, packet.sequence - 1);
    if (connection === undefined) return packet.payloadEnd > packet.payloadStart ? "unknown" : "empty";
    const fed = this.#push(connection, packet, onMessage);
    if (fed !== "unknown" && fed !== "gap") this.#touch(key, connection, nowMs); // a stuck stream must grow idle
    if ((flags & (TcpFlag.FIN | TcpFlag.RST)) !== 0 && (this.#senderTrusted || isBetweenMessages(connection)))
      this.#forget(key, connection);
    else this.#bound();
    return fed;
  }

  /** What is there of the next message on the connection of `packet`, with its length; good until the next packet. */
  pending(packet: Packet): Uint8Array | undefined {
    return this.#connections.get(keyOf(packet))?.stream?.view();
  }

  /** Forgets the connections that have been idle too long. */
  expire(nowMs: number): void {
    for (const [key, connection] of this.#connections) {
      if (nowMs - connection.lastMs < this.#limits.idleMs) return;
      this.#forget(key, connection);
    }
  }

  #mayRestart(connection: Connection, synSequence: number): boolean {
    return this.#senderTrusted || isBetweenMessages(connection) || connection.stream?.isFrom(synSequence) === true;
  }

  #started(key: string, old: Connection | undefined, synSequence: number): Connection {
    if (old?.stream?.isFrom(synSequence) === true) return old; // the SYN again
    if (old !== undefined) this.#forget(key, old);
    const connection: Connection = { stream: new ByteStream(STREAM_OCTETS_MAX), octets: 0, lastMs: 0 };
    connection.stream?.start(synSequence);
    return connection;
  }

  #push(connection: Connection, packet: Packet, onMessage: OnMessage): Fed {
    const { stream } = connection;
    if (packet.payloadEnd <= packet.payloadStart) return "empty";
    if (stream === undefined) return "unknown";
    const sequence = packet.sequence + ((packet.tcpFlags & TcpFlag.SYN) !== 0 ? 1 : 0); // payload in a SYN: RFC 7413
    const pushed = stream.push(sequence, packet.bytes, packet.payloadStart, packet.payloadEnd);
    if (pushed === "overlap-differs" || pushed === "overflow") return this.#lose(connection, pushed);
    this.#account(connection, stream.octets);
    if (pushed !== "in-order") return pushed;
    const left = readMessages(stream, onMessage);
    return left === "refused" ? this.#lose(connection, left) : left;
  }

  #lose(connection: Connection, why: Fed): Fed {
    this.#account(connection, 0);
    connection.stream = undefined;
    return why;
  }

  #touch(key: string, connection: Connection, nowMs: number): void {
    connection.lastMs = nowMs;
    this.#connections.delete(key);
    this.#connections.set(key, connection);
  }

  #account(connection: Connection, octets: number): void {
    this.#octets += octets - connection.octets;
    connection.octets = octets;
  }

  #forget(key: string, connection: Connection): void {
    this.#octets -= connection.octets;
    connection.octets = 0;
    this.#connections.delete(key);
  }

  #bound(): void {
    for (const [key, connection] of this.#connections) {
      if (this.#connections.size <= this.#limits.connections && this.#octets <= this.#limits.octets) return;
      this.#forget(key, connection);
      this.evicted++;
    }
  }
}

function keyOf(packet: Packet): string {
  const ports = String.fromCharCode(packet.sourcePort, packet.destinationPort);
  return `${ports}${packet.source}${packet.destination}`;
}

function isWholeMessages({ bytes, payloadStart, payloadEnd }: Packet): boolean {
  let at = payloadStart;
  while (payloadEnd - at >= 2 + HEADER_OCTETS) {
    const length = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
    if (length < HEADER_OCTETS) return false;
    at += 2 + length;
  }
  return at > payloadStart && at === payloadEnd;
}

function isBetweenMessages(connection: Connection): boolean {
  const { stream } = connection;
  return stream !== undefined && stream.length === 0 && !stream.hasGap;
}

/** Hands over every whole message at the head of the stream, until one is refused. */
function readMessages(stream: ByteStream, onMessage: OnMessage): "complete" | "partial" | "refused" {
  const view = stream.view();
  let at = 0;
  while (view.length - at >= 2) {
    const end = at + 2 + (((view[at] as number) << 8) | (view[at + 1] as number));
    if (end > view.length) break;
    if (onMessage(view, at + 2, end, (stream.readSequence + at + 2) >>> 0) === false) return "refused";
    at = end;
  }
  stream.consume(at);
  return at === view.length && !stream.hasGap ? "complete" : "partial";
}
