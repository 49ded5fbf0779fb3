import type { Ip } from "../base/address.ts";
import { ByteStream } from "../base/stream.ts";
import { type Packet, Protocol, TcpFlag } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import type { Direction, FirstBytes, NeedOf, Reading, Run } from "./inspector.ts";
import type { Opened } from "./flow-desk.ts";
import type { Lane } from "./flow-store.ts";
import type { Proxied } from "./proxied.ts";
import { inspectFirst } from "./registry.ts";

/** One connection whose first bytes are read: what has come of it, and what that says. */

/** A ClientHello may have 64 KiB (post-quantum key shares, padding), and headers around it. */
export const CLIENT_OCTETS_MAX = 64 * 1024 + 4096;
/** A greeting, an answer to STARTTLS: what a server says before the client must have said what it is. */
export const SERVER_OCTETS_MAX = 16 * 1024;
/** How far a server's packet may be from what its client has acknowledged: what it sends before a verdict. */
const SERVER_NEAR_OCTETS = 64 * 1024;
/** Times that one connection is read: a protocol that asks for one byte after the other is not worth more. */
const READINGS_MAX = 256;
/** How far a first segment may be from its SYN. */
const START_NEAR_OCTETS = 2 ** 20;
const DATAGRAMS_MAX = 32;
/** Bytes that the server has not acknowledged are kept this long, so that nobody can send others in their place. */
export const UNACKED_OCTETS_MAX = 256 * 1024;

/** A packet that waits for the verdict. */
export interface Waiting {
  readonly id: number;
  readonly mark: number;
  /** TCP: of its first payload byte, and of the one behind its last. */
  readonly sequence: number;
  readonly end: number;
  readonly ms: number;
}

/** What a rule makes of the evidence. `detail` is the caller's own. */
export interface Ruling {
  readonly allow: boolean;
  readonly detail: unknown;
}

/** The policy's side: pure questions about one connection. */
export interface Judge {
  rule(evidence: Evidence): Ruling;
  /** The applications that some rule would take here. */
  applications(): readonly string[];
  /** Does some rule say that the destination is a proxy? */
  proxied(): boolean;
}

export type Outcome =
  | { readonly kind: "ruled"; readonly ruling: Ruling; readonly evidence: Evidence }
  | { readonly kind: "need"; readonly need: NeedOf }
  | { readonly kind: "enough" }; // read too often

/** The datagrams of one direction, one behind the other. */
export class Datagrams {
  bytes: Uint8Array = new Uint8Array(0);
  length = 0;
  readonly ends: number[] = [];

  /** False: beyond the limit. */
  push(bytes: Uint8Array, start: number, end: number, limit: number): boolean {
    const length = this.length + end - start;
    if (length > limit || this.ends.length === DATAGRAMS_MAX) return false;
    if (length > this.bytes.length) {
      const grown = new Uint8Array(Math.min(limit, Math.max(length, 2 * this.bytes.length)));
      grown.set(this.bytes.subarray(0, this.length));
      this.bytes = grown;
    }
    this.bytes.set(bytes.subarray(start, end), this.length);
    this.length = length;
    this.ends.push(length);
    return true;
  }
}

/**
 * `reading`: no verdict. `confirming`: the evidence is fine and the bytes are on their way; the server has not yet
 * acknowledged them, so they may be a decoy that it never sees. `proxied`: each request is judged, without an end. `passed`, `denied`: over, kept for a moment for the
 * packets that were already queued.
 */
export type State = "reading" | "confirming" | "proxied" | "passed" | "denied";

export class Flow<Owner> {
  readonly key: string;
  readonly owner: Owner;
  readonly transport: number;
  /** Monitor: nothing is held or denied. */
  readonly watch: boolean;
  readonly pod: Ip;
  readonly podPort: number;
  /** As the pod addressed it; undefined while only the server has spoken. */
  destination: Ip | undefined;
  destinationPort = 0;
  state: State = "reading";
  readonly client = new ByteStream(CLIENT_OCTETS_MAX, UNACKED_OCTETS_MAX);
  server = new ByteStream(SERVER_OCTETS_MAX, 0);
  #datagrams: Datagrams | undefined;
  clientClosed = false;
  serverClosed = false;
  /** It is certain that the client's stream begins where we think it does. */
  anchored = false;
  /** A hello that the kernel knows has gone before, and the server has not acknowledged it: perhaps it was a decoy. */
  replaced = false;
  waiting: Waiting[] = [];
  /** TCP, positions in the client's stream: let go on up to here, acknowledged up to here, read for the verdict up to here. */
  sent = 0;
  acknowledged = 0;
  read = 0;
  /** Confirming: the kernel shows us the server's bare acknowledgements only. */
  narrow = false;
  /** The sequence number that the server has asked for last. */
  expected: number | undefined;
  /** The client's last acknowledgement, for a reset in its name. */
  acknowledgement = 0;
  /** Over: the kernel has been told. */
  told = false;
  /** Over: packets that the kernel was asked about again, and the last one of them. */
  asked = 0;
  lastAsked = "";
  /** To a proxy, and some request has been allowed. */
  proxied: Proxied | undefined;
  /** A denial that waits a moment: bytes from before the first that we know may still come. */
  suspect: { readonly ruling: Ruling; readonly evidence: Evidence } | undefined;
  octets = 0;
  /** In which order of time it stands (flow-store.ts), and since when. */
  lane: Lane | undefined;
  sinceMs = 0;
  stalledMs = 0;
  #need: NeedOf | undefined;
  #wanted: readonly string[] | undefined;
  #readings = 0;

  constructor(key: string, owner: Owner, transport: number, watch: boolean, pod: Ip, podPort: number) {
    this.key = key;
    this.owner = owner;
    this.transport = transport;
    this.watch = watch;
    this.pod = pod;
    this.podPort = podPort;
  }

  isTo({ destination, destinationPort }: Packet): boolean {
    return destination === this.destination && destinationPort === this.destinationPort;
  }

  get over(): boolean {
    return this.state === "passed" || this.state === "denied";
  }

  /** What it certainly is, though there is no verdict. */
  get application(): string | undefined {
    return this.#need?.application;
  }

  /** The server must have what is here before the client says more. */
  get released(): boolean {
    return this.#need?.release === true;
  }

  /** It is the server's turn: the client owes nothing. */
  get serversTurn(): boolean {
    return this.#need?.release === true || this.#need?.of === "server";
  }

  /** Position up to which the client's bytes may go without a verdict when they cannot be held any longer. */
  get loose(): number {
    return this.proxied?.waiting === true ? this.proxied.clear : this.client.reach;
  }

  get datagrams(): Datagrams {
    return (this.#datagrams ??= new Datagrams());
  }

  /**
   * May this be its server's? Another connection of the same pod port has sequence numbers elsewhere, and conntrack drops a
   * client's segment that acknowledges what its server has not sent, so the client cannot have told us others.
   */
  hasSent({ sequence }: Packet): boolean {
    return !this.client.started || Math.abs((sequence - this.acknowledgement) | 0) <= SERVER_NEAR_OCTETS;
  }

  /** Octets of memory in buffers. */
  get buffered(): number {
    return this.client.octets + this.server.octets + (this.#datagrams?.bytes.length ?? 0);
  }

  get clientOctets(): number {
    return this.transport === Protocol.TCP ? this.client.length : this.datagrams.length;
  }

  /** Bytes from before the first came: the stream begins earlier. */
  begin(sequence: number): boolean {
    const shift = -this.client.positionOf(sequence);
    if (!this.client.beginAt(sequence)) return false;
    if (this.sent > 0) this.sent += shift;
    this.#need = undefined;
    this.suspect = undefined;
    return true;
  }

  /**
   * The client's stream begins where its SYN has said, whatever it sends first: bytes from before that never reach the server, and
   * yet it acknowledges where they end. Who has sent no SYN that anybody has seen (undefined), or that of an earlier connection
   * (far from `sequence`, its first segment), is believed as to where it begins.
   */
  opened(opened: Opened | undefined, sequence: number): void {
    if (opened === undefined || Math.abs((sequence - opened.begins) | 0) > START_NEAR_OCTETS) return;
    const { begins } = opened;
    this.replaced = opened.replaced;
    if (!this.client.started) this.client.start(begins - 1);
    else if (this.client.positionOf(begins) !== 0 && !this.begin(begins)) return;
    this.anchored = true;
  }

  /** The server's acknowledgement number. */
  acknowledge(acknowledgement: number): void {
    if (!this.client.started) this.client.start(acknowledgement - 1);
    const position = this.client.positionOf(acknowledgement);
    this.expected = acknowledgement;
    // Nothing has reached the server yet: what it waits for is the first byte.
    if (this.state === "reading" && this.sent === 0) this.anchored ||= position === 0 || (position < 0 && this.begin(acknowledgement));
    else if (position <= this.sent) this.acknowledged = Math.max(this.acknowledged, position);
    this.client.trim(this.acknowledged);
  }

  /** Lets go of all bytes; where the client's stream has been read to is still known. */
  shed(): void {
    this.client.shed();
    this.server.shed();
    this.#datagrams = undefined;
    this.#need = undefined;
    this.suspect = undefined;
    this.proxied = undefined;
  }

  /** The server's bytes. False: nothing new. */
  hear({ sequence, tcpFlags, bytes, payloadStart, payloadEnd }: Packet): boolean {
    const payload = payloadEnd > payloadStart;
    if (payload) {
      const pushed = this.server.push(sequence, bytes, payloadStart, payloadEnd);
      if (pushed === "gap") this.server.beginAt(sequence);
      if (pushed === "overflow") this.serverClosed = true;
    }
    const end = (tcpFlags & TcpFlag.FIN) !== 0 && !this.server.hasGap;
    if (end) this.serverClosed = true;
    return payload || end;
  }

  /** Does a segment at position `from` say other bytes than those that were read? The server may have had neither. */
  contradicts({ sequence, bytes, payloadStart, payloadEnd }: Packet, from: number): boolean {
    const length = Math.min(payloadEnd - payloadStart, this.read - from);
    const known = Math.max(0, this.acknowledged - from); // the server has these
    return this.client.push(sequence + known, bytes, payloadStart + known, payloadStart + length) === "overlap-differs";
  }

  /** It goes to the server. */
  letGo({ end }: Waiting): void {
    if (this.transport === Protocol.TCP) this.sent = Math.max(this.sent, this.client.positionOf(end));
  }

  /** Reads what there is after bytes of `from` have come. undefined: still too few. */
  look(from: Direction, judge: Judge): Outcome | undefined {
    const closed = from === "client" ? this.clientClosed : this.serverClosed;
    const length = from === "client" ? this.clientOctets : this.server.length;
    if (this.#need !== undefined && this.#need.of === from && length < this.#need.need && !closed) return undefined;
    if (++this.#readings > READINGS_MAX) return { kind: "enough" };
    const outcome = this.#read(judge);
    this.#need = outcome.kind === "need" ? outcome.need : undefined;
    return outcome;
  }

  #read(judge: Judge): Outcome {
    this.#fill();
    const open = this.#wanted === undefined ? inspectFirst(undefined, first) : undefined;
    if (open !== undefined) {
      const ruled = rule(open, judge);
      if (ruled?.ruling.allow === true) return ruled;
    }
    // Only what some rule wants is waited for, and a rule's own application may read more in the bytes than the first that could.
    this.#wanted ??= judge.applications();
    if (this.#wanted.length > 0) {
      const reading = inspectFirst(this.#wanted, first);
      if ("need" in reading) return { kind: "need", need: reading };
      if (!("bad" in reading)) return rule(reading, judge) as Outcome;
    }
    const seen = open ?? inspectFirst(undefined, first);
    const certain = rule(seen, judge);
    if (certain !== undefined) return certain;
    const application = "need" in seen || "bad" in seen ? seen.application : undefined;
    const named = ruled(judge, { application, serverName: undefined });
    if (!named.ruling.allow) return { kind: "ruled", ...named };
    // The rule asks for nothing but the application, and this is it, broken.
    const evasion = "bad" in seen ? seen.bad : "bytes that no server would read to the end";
    return { kind: "ruled", ...ruled(judge, { application, serverName: undefined, evasion }) };
  }

  #fill(): void {
    first.transport = this.transport;
    if (this.transport === Protocol.TCP) {
      fill(first.client, this.client.view(), this.clientClosed, NO_ENDS);
      fill(first.server, this.server.view(), this.serverClosed, NO_ENDS);
    } else {
      fill(first.client, this.datagrams.bytes.subarray(0, this.datagrams.length), this.clientClosed, this.datagrams.ends);
      fill(first.server, NOTHING, false, NO_ENDS);
    }
  }
}

const NOTHING = new Uint8Array(0);
const NO_ENDS: readonly number[] = [];
const first: FirstBytes = {
  transport: 0,
  client: { bytes: NOTHING, start: 0, end: 0, ends: NO_ENDS, closed: false },
  server: { bytes: NOTHING, start: 0, end: 0, ends: NO_ENDS, closed: false },
};

function fill(run: Run, bytes: Uint8Array, closed: boolean, ends: readonly number[]): void {
  run.bytes = bytes;
  run.start = 0;
  run.end = bytes.length;
  run.ends = ends;
  run.closed = closed;
}

function ruled(judge: Judge, evidence: Evidence): { readonly ruling: Ruling; readonly evidence: Evidence } {
  return { ruling: judge.rule(evidence), evidence };
}

/** undefined: the reading is no evidence. */
function rule(reading: Reading, judge: Judge): (Outcome & { kind: "ruled" }) | undefined {
  return "need" in reading || "bad" in reading ? undefined : { kind: "ruled", ...ruled(judge, reading) };
}
