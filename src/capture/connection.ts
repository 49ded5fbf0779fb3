import type { Endpoint } from "../base/address.ts";
import { NOTHING, type Payload } from "./side.ts";
import type { FlowTable } from "./table.ts";

/** A connection of a capture, as far as it was read. */
export interface Connection {
  /** From 0, in the order of appearance. */
  readonly index: number;
  /** IP protocol number. */
  readonly transport: number;
  /**
   * Who sent the SYN; where the capture has none (or it is not TCP), who sent the first packet seen, unless the ports tell
   * otherwise. Made anew each time.
   */
  readonly client: Endpoint;
  readonly server: Endpoint;
  readonly fromClient: Payload;
  readonly fromServer: Payload;
  /** TCP: a SYN was seen. Without it the bytes may be from the middle, and client and server are a guess. */
  readonly begun: boolean;
  /** TCP: this side has sent a FIN, or one of the two a RST. */
  readonly clientEnded: boolean;
  readonly serverEnded: boolean;
  /** A packet came from the client, with or without payload. */
  readonly clientSeen: boolean;
}

/** Bits of `flags`. */
export const Mark = {
  begun: 1,
  clientEnded: 2,
  serverEnded: 4,
  clientSeen: 8,
  /** The client is the second end of the key in the table. */
  clientSecond: 16,
  /** A payload was seen. */
  spoke: 32,
  /** Enough is known: nothing more is kept. */
  settled: 64,
} as const;

/** What is kept of a connection: few words, for captures have many. Its ends stand in the table. */
export class Tracked implements Connection {
  readonly index: number;
  readonly transport: number;
  fromClient: Payload = NOTHING;
  fromServer: Payload = NOTHING;
  /** TCP: sequence number of the first byte of each side, as a signed number; undefined until known. */
  clientBase: number | undefined;
  serverBase: number | undefined;
  flags: number;
  readonly #table: FlowTable<Tracked>;
  /** In the table; 0 until `enter`. */
  #entry = 0;

  constructor(index: number, transport: number, clientSecond: boolean, table: FlowTable<Tracked>) {
    this.index = index;
    this.transport = transport;
    this.flags = clientSecond ? Mark.clientSecond : 0;
    this.#table = table;
  }

  /** Takes its place in the table for the packet that was last looked for; false where there is none. */
  enter(): boolean {
    this.#entry = this.#table.set(this);
    return this.#entry > 0;
  }

  has(mark: number): boolean {
    return (this.flags & mark) !== 0;
  }

  get client(): Endpoint {
    return this.#table.endpoint(this.#entry, this.has(Mark.clientSecond));
  }

  get server(): Endpoint {
    return this.#table.endpoint(this.#entry, !this.has(Mark.clientSecond));
  }

  get serverPort(): number {
    return this.#table.port(this.#entry, !this.has(Mark.clientSecond));
  }

  get begun(): boolean {
    return this.has(Mark.begun);
  }

  get clientEnded(): boolean {
    return this.has(Mark.clientEnded);
  }

  get serverEnded(): boolean {
    return this.has(Mark.serverEnded);
  }

  get clientSeen(): boolean {
    return this.has(Mark.clientSeen);
  }
}
