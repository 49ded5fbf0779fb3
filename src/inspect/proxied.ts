import { ByteStream } from "../base/stream.ts";
import type { Packet } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import { type Flow, type Judge, type Ruling, SERVER_OCTETS_MAX, UNACKED_OCTETS_MAX } from "./flow.ts";
import { requestEvidence } from "./http1.ts";
import { Http1Requests } from "./http1-requests.ts";
import type { FirstBytes, Reading } from "./inspector.ts";
import { NO_BYTES } from "./inspector.ts";
import { inspectFirst } from "./registry.ts";

/**
 * A connection to an HTTP proxy (RFC 9112 §3.2.2, RFC 9110 §9.3.6): each request is judged by what it asks the proxy for,
 * as long as the connection lives. Only an agreed CONNECT (or a WebSocket) ends that: what is inside of it is read like a
 * connection of its own, and then the kernel may answer. A tunnel to port 443 must be TLS; any other may be anything, but
 * where it is TLS or HTTP it must name the target.
 */

const TLS_PORT = ":443";
const INSIDE = ["tls", "http1"];
/** As for any other connection (flow.ts). */
const READINGS_MAX = 256;
/** A segment further away than any window is another connection's, with the same ports. */
const FAR_OCTETS = 1024 * 1024;
/** Acknowledgements that overtake each other, and a FIN: so far from what we know may the client's be. */
const ACK_SLACK_OCTETS = 64 * 1024;
/** Where the pod has used up its memory: one segment in flight. */
const TIGHT_OCTETS = 4096;

/** `on`: all is judged. `part`: a head, or a tunnel's first message, goes on. `wait`: it is the proxy's turn. `through`: the kernel's. */
export type Next =
  | { readonly kind: "on" | "part" | "wait" | "through" }
  | { readonly kind: "denied"; readonly ruling: Ruling; readonly evidence: Evidence }
  | { readonly kind: "bad"; readonly why: string };

export class Proxied {
  /** Position in the client's stream up to which all is judged: a segment that ends behind it waits. */
  clear = 0;
  private readonly requests = new Http1Requests();
  /** Of the last request. */
  private evidence: Evidence | undefined;
  private tunnel = false;
  private wanted = 0;
  private readings = 0;
  /** The client's last acknowledgement, and the sequence number behind the server's last byte. */
  private heard: number;
  private spoken: number;

  constructor({ acknowledgement, server }: Pick<Flow<unknown>, "acknowledgement" | "server">) {
    this.heard = acknowledgement;
    this.spoken = acknowledgement;
    if (server.started) this.speaks(server.sequenceAt(server.reach));
  }

  /** Nothing may go on before the proxy has answered. */
  get waiting(): boolean {
    return this.requests.waiting;
  }

  /** Reads on after the client, or the proxy, has said something. `ruled` is told of each request that is allowed. */
  read(flow: Flow<unknown>, judge: Judge, ruled: (ruling: Ruling, evidence: Evidence) => void): Next {
    const { client } = flow;
    for (;;) {
      if (this.tunnel) return this.inside(flow, judge, ruled);
      const bytes = client.view();
      const step = this.requests.next(bytes, 0, bytes.length);
      if (step.kind === "bad") return step;
      client.consume(step.at);
      this.clear = client.position - this.requests.unfinished;
      switch (step.kind) {
        case "request": {
          const evidence = requestEvidence(step.request);
          const ruling = judge.rule(evidence);
          if (!ruling.allow) return { kind: "denied", ruling, evidence };
          ruled(ruling, evidence);
          this.evidence = evidence;
          // The client has had all that was said before, so the answer begins behind that.
          flow.server = new ByteStream(SERVER_OCTETS_MAX, 0);
          flow.server.start(this.heard - 1);
          break;
        }
        case "more":
          return { kind: this.requests.unfinished > 0 ? "part" : this.waiting ? "wait" : "on" };
        case "wait":
          return { kind: "wait" };
        case "tunnel":
          this.tunnel = true;
          break;
        default:
          step satisfies never;
      }
    }
  }

  /** The proxy's bytes. True: it has answered, so read on. */
  answered({ server }: Flow<unknown>, { sequence, bytes, payloadStart, payloadEnd }: Packet): boolean {
    this.speaks(sequence + payloadEnd - payloadStart);
    if (!this.waiting) return false;
    const start = payloadStart + Math.max(0, -server.positionOf(sequence));
    server.push(sequence + start - payloadStart, bytes, start, payloadEnd);
    const there = server.view();
    this.requests.answer(there, 0, there.length);
    server.consume(there.length);
    return !this.waiting;
  }

  /** Is it the same connection, or has its port begun another? Its acknowledgements tell: nobody can choose the server's numbers. */
  continues(acknowledgement: number): boolean {
    if (((acknowledgement - this.heard) | 0) < -ACK_SLACK_OCTETS || ((this.spoken - acknowledgement) | 0) < -ACK_SLACK_OCTETS) return false;
    this.heard = acknowledgement;
    return true;
  }

  /** May this be the proxy's next packet, or one that it sends again? */
  isNear(sequence: number): boolean {
    return Math.abs((sequence - this.spoken) | 0) < FAR_OCTETS;
  }

  private speaks(next: number): void {
    const ahead = (next - this.spoken) | 0;
    if (ahead > 0 && ahead < FAR_OCTETS) this.spoken = next | 0;
  }

  /** What a tunnel begins with is judged once. */
  private inside(flow: Flow<unknown>, judge: Judge, ruled: (ruling: Ruling, evidence: Evidence) => void): Next {
    const asked = this.evidence as Evidence;
    let evidence = asked;
    if (asked.fields?.method === "CONNECT") {
      const bytes = flow.client.view();
      if (bytes.length === 0) return { kind: "on" };
      if (bytes.length < this.wanted && !flow.clientClosed) return { kind: "part" };
      if (++this.readings > READINGS_MAX) return { kind: "bad", why: "a tunnel read too often without an answer" };
      first.client = { bytes, start: 0, end: bytes.length, ends: [], closed: flow.clientClosed };
      const reading = inspectFirst(INSIDE, first);
      if ("need" in reading) {
        this.wanted = reading.need;
        return { kind: "part" };
      }
      evidence = tunnelEvidence(asked, reading);
    } else if (asked.application !== "websocket") return { kind: "bad", why: `the proxy itself goes on as ${asked.upgrade}` };
    const ruling = judge.rule(evidence);
    if (!ruling.allow) return { kind: "denied", ruling, evidence };
    if (evidence !== asked) ruled(ruling, evidence);
    return { kind: "through" };
  }
}

const first: FirstBytes = { transport: 6, client: NO_BYTES, server: NO_BYTES };

/** The CONNECT, and what it has become: `upgrade` as behind STARTTLS. */
function tunnelEvidence(asked: Evidence, reading: Exclude<Reading, { need: number }>): Evidence {
  const inner: Evidence = "bad" in reading ? { application: reading.application, serverName: undefined } : reading;
  const { application, serverName, alpn, ja4, ech, evasion } = inner;
  const tls = application === "tls";
  const upgrade = tls || asked.fields?.target?.endsWith(TLS_PORT) === true ? (application ?? "unknown") : undefined;
  const { upgrade: _, ...request } = asked;
  return {
    ...request,
    serverName: tls ? serverName : (serverName ?? asked.serverName),
    ...(upgrade !== undefined && { upgrade }),
    ...(alpn !== undefined && { alpn }),
    ...(ja4 !== undefined && { ja4 }),
    ...(ech !== undefined && { ech }),
    ...(evasion !== undefined && { evasion }),
  };
}

/**
 * What is to be done with a client's segment: `read` the stream on; it lies beyond a `gap`; the server has all of it (`known`),
 * so that only its header is of use; `other`: it is another connection's.
 */
export type Taken = "read" | "gap" | "known" | "other" | "drop" | "differs";

/** Puts a segment into the client's stream; `tight`: the pod has used up its memory. */
export function takeSegment(flow: Flow<unknown>, proxied: Proxied, packet: Packet, tight: boolean): Taken {
  const { client, acknowledged } = flow;
  const { sequence, acknowledgement, bytes, payloadStart, payloadEnd } = packet;
  const from = client.positionOf(sequence);
  const end = from + payloadEnd - payloadStart;
  if (Math.abs(from - client.reach) > FAR_OCTETS || !proxied.continues(acknowledgement)) return "other";
  flow.acknowledgement = acknowledgement;
  if (from < 0 && acknowledged === 0) return "differs";
  if (end <= acknowledged) return "known";
  // What the server has not acknowledged is kept, to be compared with whatever is sent again.
  if (end - acknowledged > (tight ? TIGHT_OCTETS : UNACKED_OCTETS_MAX)) return "drop";
  const skip = Math.max(0, acknowledged - from);
  switch (client.push(sequence + skip, bytes, payloadStart + skip, payloadEnd)) {
    case "overlap-differs":
      return "differs";
    case "overflow":
      return "drop";
    case "gap":
      return "gap";
    case "in-order":
    case "old":
      return "read";
  }
}
