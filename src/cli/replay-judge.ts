import { endpointText, type Endpoint, type Ip } from "../base/address.ts";
import type { Capture } from "../capture/file.ts";
import type { Connection } from "../capture/connection.ts";
import { type Flows, readFlows } from "../capture/flows.ts";
import type { Payload } from "../capture/side.ts";
import { learn } from "../dns/reply.ts";
import { type FirstBytes, type NeedOf, NO_BYTES, type Reading, type Run } from "../inspect/inspector.ts";
import { readFromTheMiddle } from "../inspect/middle.ts";
import { inspectFirst } from "../inspect/registry.ts";
import type { Learned, NameSeen } from "../model/binding.ts";
import { Protocol, protocolText } from "../model/packet.ts";
import type { Snapshot } from "../model/snapshot.ts";
import type { Evidence, Nearest, Verdict } from "../model/verdict.ts";
import { selectPolicies } from "../policy/select.ts";
import { type Decision, Guard, rulebook } from "../worker/guard.ts";
import { decideByReading } from "../worker/inspection.ts";

/** One connection as `replay -o json` prints it (DESIGN §9): these keys, always all of them; null where unknown. */
export interface ReplayLine {
  readonly transport: string;
  /** `addr:port`, `[v6]:port` */
  readonly client: string;
  readonly server: string;
  readonly application: string | null;
  readonly upgrade: string | null;
  readonly serverName: string | null;
  readonly alpn: readonly string[] | null;
  readonly ja4: string | null;
  /** null: nothing guards the client, so nothing is judged. */
  readonly verdict: "allow" | "deny" | "would-deny" | null;
  readonly why: string | null;
  /** The rule that decided; null for a default deny. */
  readonly policy: string | null;
  readonly rule: string | null;
}

export interface Replayed {
  readonly line: ReplayLine;
  /** What the client knew the server as when it connected. */
  readonly names: readonly NameSeen[];
  readonly nearest: Nearest | undefined;
}

export interface Replay {
  readonly connections: readonly Replayed[];
  readonly flows: Flows;
}

type Judgement = Pick<ReplayLine, "verdict" | "why" | "policy" | "rule"> & { readonly nearest?: Nearest | undefined };

const UNJUDGED: Judgement = { verdict: null, why: null, policy: null, rule: null };
const LEFT_ALONE: Judgement = { ...UNJUDGED, verdict: "allow" };

/** What was decided when the first packet of a connection was seen. */
interface Admitted {
  readonly guard: Guard;
  readonly names: readonly NameSeen[];
  readonly decision: Decision;
}

/**
 * Judges every connection of a capture as the agent would have, with the time of the capture: a DNS reply that a trusted
 * resolver gave to the pod's own query teaches names from then on; a connection is admitted with what its pod knew at its
 * first packet, and inspected with the first bytes that the whole capture has of it.
 */
export function replayCapture(capture: Capture, snapshot: Snapshot): Replay {
  const guards = guardsOf(snapshot);
  const resolvers = new Set(snapshot.resolvers.map(endpointKey));
  const admitted = new Map<Connection, Admitted>();
  const learned: Learned[] = [];
  const readings: Reading[] = [];
  const flows = readFlows(
    capture,
    {
      onStart(connection, timeMs) {
        if (guards.size === 0) return;
        const { client, server, transport } = connection;
        const guard = guards.get(client.address);
        if (guard === undefined || toResolver(connection, resolvers)) return;
        const names = guard.seen(server.address, seconds(timeMs));
        admitted.set(connection, { guard, names, decision: guard.decide(transport, server.port, server.address, names) });
      },
      onDns(message, connection, fromClient, timeMs) {
        const guard = guards.get(connection.client.address);
        // A reply that nobody asked for teaches nothing.
        if (guard === undefined || fromClient || !connection.clientSeen || !toResolver(connection, resolvers)) return;
        learn(message, 0, message.length, learned, guard.pod.searches);
        for (const one of learned) guard.learn(one, seconds(timeMs));
      },
      onBytes(connection) {
        // What is judged is judged with all its bytes: a later segment may disagree.
        if (admitted.has(connection) || toResolver(connection, resolvers)) return false;
        const before = readings[connection.index];
        if (before !== undefined && "need" in before && !worthAsking(connection, before)) return false;
        const reading = inspectFirst(undefined, firstBytes(connection, false));
        readings[connection.index] = reading;
        return !("need" in reading) && (connection.begun || applicationOf(reading) !== undefined);
      },
    },
    [...new Set(snapshot.resolvers.map(({ port }) => port))],
  );
  const connections = flows.connections.map((connection): Replayed => {
    let reading = readings[connection.index];
    if (reading === undefined || "need" in reading) reading = inspectFirst(undefined, firstBytes(connection, true));
    if (!connection.begun && applicationOf(reading) === undefined) reading = readFromTheMiddle(firstBytes(connection, true)) ?? reading;
    const start = admitted.get(connection);
    const guarded = guards.size > 0 && (guards.has(connection.client.address) || guards.has(connection.server.address));
    // A connection to a trusted resolver, or one that somebody else opened to a guarded pod, is none of a policy's business.
    const judgement = start !== undefined ? judge(connection, start) : guarded ? LEFT_ALONE : UNJUDGED;
    return new Told(connection, reading, judgement, start?.names ?? NO_NAMES);
  });
  return { connections, flows };
}

/** The line is written when it is asked for: a connection takes less room than its text. */
class Told implements Replayed {
  readonly #connection: Connection;
  readonly #reading: Reading;
  readonly #judgement: Judgement;
  readonly names: readonly NameSeen[];

  constructor(connection: Connection, reading: Reading, judgement: Judgement, names: readonly NameSeen[]) {
    this.#connection = connection;
    this.#reading = reading;
    this.#judgement = judgement;
    this.names = names;
  }

  get nearest(): Nearest | undefined {
    return this.#judgement.nearest;
  }

  get line(): ReplayLine {
    const { nearest: _, ...judgement } = this.#judgement;
    return { ...describe(this.#connection, this.#reading), ...judgement };
  }
}

const NO_NAMES: readonly NameSeen[] = [];
const seconds = (timeMs: number): number => Math.floor(timeMs / 1000);
const endpointKey = ({ address, port }: Endpoint): string => `${address}${port}`;

function toResolver(connection: Connection, resolvers: ReadonlySet<string>): boolean {
  if (resolvers.size === 0) return false;
  const { transport, server } = connection;
  return (transport === Protocol.UDP || transport === Protocol.TCP) && resolvers.has(endpointKey(server));
}

/** The guarded pods by address. Discover policies count where nothing stricter does, as in the agent. */
function guardsOf({ pods, policies, namespaces }: Snapshot): ReadonlyMap<Ip, Guard> {
  const guards = new Map<Ip, Guard>();
  for (const pod of pods) {
    const selected = selectPolicies(policies, pod, namespaces);
    const book = rulebook(selected) ?? rulebook(selected, true);
    if (book === undefined) continue;
    const guard = new Guard(pod, book);
    for (const address of pod.addresses) guards.set(address, guard);
  }
  return guards;
}

function judge(connection: Connection, { guard, names, decision }: Admitted): Judgement {
  const { kernel } = decision;
  const { transport, server, fromClient } = connection;
  if (kernel === "pass" || kernel === "deny" || fromClient.end === fromClient.start) return said(decision);
  // What may go on behind the end of the capture is incomplete, whatever can be said of it.
  const reading = inspectFirst(undefined, firstBytes(connection, false));
  // Bytes that were sent in two versions cannot be read for certain.
  const certain: Reading = fromClient.conflict ? { need: 0, of: "client" } : reading;
  return said(
    decideByReading(guard, { protocol: transport, port: server.port, address: server.address, names }, certain, kernel === "watch")
      .decision,
  );
}

function said({ kernel, verdict, wouldDeny }: Decision): Judgement {
  if (kernel === "deny") return denial("deny", verdict);
  if (wouldDeny !== undefined) return denial("would-deny", wouldDeny);
  return { verdict: "allow", why: null, policy: verdict.policy ?? null, rule: verdict.rule ?? null };
}

function denial(how: "deny" | "would-deny", verdict: Verdict): Judgement {
  const { why, nearest } = verdict.action === "deny" ? verdict : { why: "fault", nearest: undefined };
  return { verdict: how, why, policy: verdict.policy ?? null, rule: verdict.rule ?? null, nearest };
}

function describe({ transport, client, server }: Connection, reading: Reading) {
  const evidence = "need" in reading || "bad" in reading ? undefined : reading;
  return {
    transport: protocolText(transport).toLowerCase(),
    client: endpointText(client.address, client.port),
    server: endpointText(server.address, server.port),
    application: evidence?.application ?? ("bad" in reading ? (reading.application ?? null) : null),
    upgrade: evidence?.upgrade ?? null,
    serverName: nameSaid(evidence) ?? null,
    alpn: evidence?.alpn ?? null,
    ja4: evidence?.ja4 ?? null,
  };
}

/** HTTP's as the client writes it: with its port, and where it is an address. What a policy compares is the name alone. */
function nameSaid(evidence: Evidence | undefined): string | undefined {
  const { application, fields, serverName } = evidence ?? {};
  const host = application !== undefined && WITH_HOST.includes(application) && fields?.target === undefined;
  return (host ? fields?.host : undefined) ?? serverName;
}
const WITH_HOST = ["http1", "http2", "websocket"];

const scratch: FirstBytes = { transport: 0, client: { ...NO_BYTES }, server: { ...NO_BYTES } };

/** `closed`: this is all, also of what the capture shows no end of. Valid until the next call. */
function firstBytes({ transport, fromClient, fromServer, clientEnded, serverEnded }: Connection, closed: boolean): FirstBytes {
  scratch.transport = transport;
  fill(scratch.client, fromClient, closed || clientEnded);
  fill(scratch.server, fromServer, closed || serverEnded);
  return scratch;
}

function fill(run: Run, { bytes, start, end, ends }: Payload, closed: boolean): void {
  run.bytes = bytes;
  run.start = start;
  run.end = end;
  run.ends = ends;
  run.closed = closed;
}

const applicationOf = (reading: Reading): string | undefined => ("need" in reading ? undefined : reading.application);

/** Is what was needed there, or has the other side said something? */
function worthAsking({ fromClient, fromServer }: Connection, { need, of }: NeedOf): boolean {
  const { start, end } = of === "client" ? fromClient : fromServer;
  const other = of === "client" ? fromServer : fromClient;
  return end - start >= need || other.end > other.start;
}
