import { http1Inspector, websocketInspector } from "./http1.ts";
import type { Inspector, FirstBytes, NeedOf, Reading, Run } from "./inspector.ts";
import { NO_BYTES } from "./inspector.ts";
import { sshInspector } from "./ssh.ts";
import { tlsInspector } from "./tls-inspector.ts";

/**
 * Every inspector, in the order they are asked when any protocol will do: the strictest signatures first. A protocol whose
 * first bytes could be another's stands behind it.
 */
const INSPECTORS: readonly Inspector[] = [
  // tls, quic, dtls
  tlsInspector,

  // web
  http1Inspector,
  websocketInspector,

  // databases

  // messaging, mail, directories, shells
  sshInspector,

  // the node's own: names, time, calls

  // only to be named in a denial
];

export function inspectorOf(application: string): Inspector {
  const found = INSPECTORS.find((inspector) => inspector.application === application);
  if (found === undefined) throw new Error(`nothing reads ${application}`);
  return found;
}

/** Names a policy may use for several applications. */
const ALIASES: Readonly<Record<string, readonly string[]>> = { http: ["http1", "http2", "grpc"] };

/** The applications that a policy can ask for. */
export function applications(): string[] {
  const known = INSPECTORS.map((inspector) => inspector.application);
  const aliases = Object.entries(ALIASES).filter(([, names]) => names.some((name) => known.includes(name)));
  return [...known, ...aliases.map(([alias]) => alias)];
}

/**
 * Reads the first bytes of a connection. With `wanted`, only that application is tried: `bad` then means the rule does not
 * hold. Without, every inspector of the transport is: the first evidence wins; while any still needs bytes, the least
 * need; when all say no, evidence without an application. The caller decides how long to wait for a `need`: when no more
 * bytes come (or `closed`), the connection is `incomplete`.
 */
export function inspectFirst(wanted: string | undefined, first: FirstBytes): Reading {
  const names = wanted === undefined ? undefined : (ALIASES[wanted] ?? [wanted]);
  let need: NeedOf | undefined;
  let broken: Reading | undefined;
  for (const inspector of INSPECTORS) {
    if (names !== undefined && !names.includes(inspector.application)) continue;
    if (!inspector.transports.includes(first.transport)) continue;
    const reading = inspector.read(first);
    if ("need" in reading) {
      if (need === undefined || reading.need < need.need) need = reading;
    } else if ("bad" in reading) {
      if (broken === undefined || reading.application !== undefined) broken = reading;
    } else return reading;
  }
  if (need !== undefined) return need;
  if (wanted !== undefined) return broken ?? { bad: `nothing here reads ${wanted} over this transport` };
  if (broken !== undefined && "bad" in broken && broken.application !== undefined) return broken;
  return { application: undefined, serverName: undefined };
}

const scratch: FirstBytes = { transport: 0, client: { ...NO_BYTES }, server: NO_BYTES };

/** `inspectFirst` for client bytes alone, which the kernel handed over: one TCP segment or one datagram. */
export function inspect(wanted: string | undefined, bytes: Uint8Array, start: number, end: number, transport: number): Reading {
  const run: Run = scratch.client;
  run.bytes = bytes;
  run.start = start;
  run.end = end;
  scratch.transport = transport;
  return inspectFirst(wanted, scratch);
}
