import type { Evidence } from "../model/verdict.ts";
import type { Flow, Judge, Ruling, Waiting } from "./flow.ts";

/**
 * `go`: on its way, the next packet is looked at too. `confirm`: and of the server's packets only bare acknowledgements; `reopen`:
 * all of them again. `hold`: later, by `Desk.settle`. `pass` and `deny`: and the kernel answers
 * for the connection from now on. `ask`: the kernel knows by now, it may look again. `strip`: goes on without its payload.
 */
export type Fate = "go" | "confirm" | "reopen" | "hold" | "drop" | "pass" | "deny" | "ask" | "strip";

export type Reason = "evasion" | "incomplete";

/** How a connection began. `begins`: the sequence number of the client's first byte. `replaced`: see Flow. */
export interface Opened {
  readonly begins: number;
  readonly replaced: boolean;
}

/** What the engine needs of its surroundings. */
export interface Desk<Owner> {
  judge(flow: Flow<Owner>): Judge;
  /** A TCP connection's client has sent its first bytes: what the kernel knows of it, which then forgets it. */
  opened?(flow: Flow<Owner>): Opened | undefined;
  /** Settles a packet that was held. */
  settle(flow: Flow<Owner>, packet: Waiting, fate: "go" | "drop" | "pass" | "deny"): void;
  /** The verdict; called once a flow. */
  ruled(flow: Flow<Owner>, ruling: Ruling, evidence: Evidence): void;
  /** Denied without a rule's word, or (watch) what would have been; called once a flow. */
  refused(flow: Flow<Owner>, why: Reason, message: string): void;
  /** A denied TCP connection: the server's end, and where no packet of the client's is at hand the client's end, must be told. */
  reset(flow: Flow<Owner>, end: "server" | "client", sequence: number, acknowledgement: number): void;
  count(what: "stalls" | "confirmed" | "limited"): void;
}
