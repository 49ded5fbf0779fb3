import { endpointText, type Endpoint, type Ip } from "../base/address.ts";
import type { Capture } from "../capture/file.ts";
import { type Connection, type Flows, type Payload, readFlows } from "../capture/flows.ts";
import { learn } from "../dns/reply.ts";
import type { FirstBytes, Reading, Run } from "../inspect/inspector.ts";
import { inspectFirst } from "../inspect/registry.ts";
import type { Learned, NameSeen } from "../model/binding.ts";
import { Protocol, protocolText } from "../model/packet.ts";
import type { Snapshot } from "../model/snapshot.ts";
import type { Nearest, Verdict } from "../model/verdict.ts";
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
  const flows = readFlows(
    capture,
    {
      onStart(connection, timeMs) {
        const { client, server, transport } = connection;
        const guard = guards.get(client.address);
        if (guard === undefined || toResolver(connection, resolvers)) return;
        const names = guard.seen(server.address, seconds(timeMs));
        admitted.set(connection, { guard, names, decision: guard.decide(transport, server.port, server.address, names) });
      },
      onDns(message, connection, fromClient, timeMs) {
        const guard = guards.get(connection.client.address);
        // A reply that nobody asked for teaches nothing.
        if (guard === undefined || fromClient || connection.fromClient.packets === 0 || !toResolver(connection, resolvers)) return;
        learn(message, 0, message.length, learned, guard.pod.searches);
        for (const one of learned) guard.learn(one, seconds(timeMs));
      },
    },
    [...new Set(snapshot.resolvers.map(({ port }) => port))],
  );
  const connections = flows.connections.map((connection): Replayed => {
    const first = firstBytes(connection);
    const reading = inspectFirst(undefined, first);
    // All that the capture has; but only a FIN says that there is no more to come.
    if (!connection.fromClient.closed) first.client.closed = false;
    if (!connection.fromServer.closed) first.server.closed = false;
    const soFar = first.client.closed && first.server.closed ? reading : inspectFirst(undefined, first);
    const start = admitted.get(connection);
    const guarded = guards.has(connection.client.address) || guards.has(connection.server.address);
    // A connection to a trusted resolver, or one that somebody else opened to a guarded pod, is none of a policy's business.
    const { nearest, ...judgement } = start !== undefined ? judge(connection, start, soFar) : guarded ? LEFT_ALONE : UNJUDGED;
    return { line: { ...describe(connection, reading), ...judgement }, names: start?.names ?? [], nearest };
  });
  return { connections, flows };
}

const seconds = (timeMs: number): number => Math.floor(timeMs / 1000);
const endpointKey = ({ address, port }: Endpoint): string => `${address}${port}`;

function toResolver({ transport, server }: Connection, resolvers: ReadonlySet<string>): boolean {
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

function judge({ transport, server, fromClient }: Connection, { guard, names, decision }: Admitted, reading: Reading): Judgement {
  const { kernel } = decision;
  if (kernel === "pass" || kernel === "deny" || fromClient.bytes.length === 0) return said(decision);
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
    serverName: evidence?.serverName ?? null,
    alpn: evidence?.alpn ?? null,
    ja4: evidence?.ja4 ?? null,
  };
}

function firstBytes({ transport, fromClient, fromServer }: Connection): FirstBytes {
  return { transport, client: run(fromClient), server: run(fromServer) };
}

/** All that the capture has: no more will come. */
function run({ bytes, datagrams }: Payload): Run {
  if (datagrams.length === 0) return { bytes, start: 0, end: bytes.length, ends: [], closed: true };
  const ends: number[] = [];
  let end = 0;
  for (const datagram of datagrams) ends.push((end += datagram.length));
  const joined = new Uint8Array(end);
  for (const [i, datagram] of datagrams.entries()) joined.set(datagram, (ends[i] as number) - datagram.length);
  return { bytes: joined, start: 0, end, ends, closed: true };
}
