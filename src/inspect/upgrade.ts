import type { Evidence } from "../model/verdict.ts";
import type { Bad } from "../base/cursor.ts";
import type { NeedOf, Reading, Run } from "./inspector.ts";
import { helloEvidence } from "./tls-evidence.ts";
import { readClientHello } from "./tls.ts";

/**
 * TLS that begins in the middle of another protocol (SSLRequest, STARTTLS, StartTLS, PRELOGIN, ...). An inspector finds out
 * where the client's first TLS record stands, and asks here for the rest.
 */

/** To be spread into the evidence of the protocol that was there before. */
export interface Upgraded {
  readonly upgrade: "tls";
  readonly serverName: string | undefined;
  readonly alpn: readonly string[];
  readonly ja4: string;
  readonly ech: boolean;
  readonly evasion?: string;
}

/**
 * The ClientHello that begins `offset` bytes behind the run's start. `need` counts from the run's start, and is never
 * asked for when the run is closed: then an unfinished hello is `bad`. Costs as much as one hello, so call it when the
 * bytes before are judged; it may be asked again with more bytes.
 */
export function readUpgrade(run: Run, offset: number): Upgraded | NeedOf | Bad {
  const hello = readClientHello(run.bytes, run.start + offset, run.end);
  if ("need" in hello) {
    return run.closed ? { bad: "a ClientHello that ends too early" } : { need: offset + hello.need, of: "client" };
  }
  if ("bad" in hello) return { bad: hello.bad };
  const { application: _, version: __, ...said } = helloEvidence("tls", hello, "t");
  return { ...said, upgrade: "tls" };
}

/**
 * readUpgrade as a whole reading for an inspector whose protocol is certain: `evidence` with what TLS says added. Where the
 * run is closed with not one byte of TLS in it, the evidence as it is.
 */
export function withUpgrade(evidence: Evidence & { readonly application: string }, run: Run, offset: number): Reading {
  const { application } = evidence;
  if (run.closed && run.end - run.start <= offset) return evidence;
  const found = readUpgrade(run, offset);
  return "upgrade" in found ? { ...evidence, ...found } : { ...found, application };
}
