import { parseIp } from "../base/address.ts";
import { Fault } from "../base/fault.ts";
import { dnsName } from "../base/name.ts";
import type { NameSeen } from "../model/binding.ts";
import type { Event } from "../model/event.ts";
import { Protocol, protocolText } from "../model/packet.ts";
import type { Mode, Policy } from "../model/policy.ts";
import type { Pod, PodKey, Snapshot } from "../model/snapshot.ts";
import { type Evidence, NAMES_DISAGREE } from "../model/verdict.ts";
import { selectPolicies } from "../policy/select.ts";
import { suggestRule, type Suggestion } from "../policy/suggest.ts";
import type { Explained, WhatIf } from "../worker/explain.ts";
import type { PodUpdate } from "../worker/protocol.ts";
import type { Outside } from "./source.ts";
import { strictest } from "./status.ts";
import { hostText, parseTarget, type Target, TARGET_FORMS } from "./target.ts";

/** The answer to `explain`. */
export interface Explanation {
  readonly pod: {
    readonly namespace: string;
    readonly name: string;
    readonly mode: Mode | null;
    /** A policy in Monitor or Enforce selects it. */
    readonly guarded: boolean;
    /** What is said here really happens to its packets. */
    readonly enforced: boolean;
    readonly why: string | null;
    readonly policies: readonly string[];
  } | null;
  readonly to: { readonly host: string; readonly port: number; readonly protocol: string } | null;
  /** The event that was asked about. */
  readonly event: Event | null;
  /** What the event's names and first bytes give with the policies of now; null: they cannot be judged once more. */
  readonly replay: Explained | null;
  /** The same destination with the names and policies of now. null: nobody guards the pod. */
  readonly now: Explained | null;
  readonly suggestion: Suggestion | null;
}

/** What it needs of the agent. */
export interface ExplainDeps {
  readonly pods: () => readonly PodUpdate[];
  readonly outside: () => readonly Outside[];
  readonly snapshot: () => Snapshot | undefined;
  readonly enforcing: () => boolean;
  readonly unenforceable: () => ReadonlyMap<PodKey, string>;
  readonly judge: (question: WhatIf) => Promise<Explained | undefined>;
  readonly find: (id: string) => Event | undefined;
  /** The time of the oldest event that is still known. */
  readonly oldest: () => string | undefined;
}

const ID_CHARS_MAX = 64;
/** Reasons that are not the policies', or whose bytes are not in the event. */
const NOT_REPLAYED: ReadonlySet<string> = new Set([
  "incomplete",
  "upcall-limit",
  "malformed",
  "fault",
  "unknown-pod",
  "spoofed-source",
  "mid-stream",
]);
/** Reasons for which a query is refused. */
const OF_QUERIES: ReadonlySet<string> = new Set(["name-not-allowed", "denied-by-rule"]);
/** Reasons that only first bytes can give. */
const BY_FIRST_BYTES: ReadonlySet<string> = new Set([
  "wrong-protocol",
  "no-server-name",
  "wrong-server-name",
  "wrong-identity",
  "names-disagree",
  "ech",
  "evasion",
]);

/** Answers `{id}`, or `{pod, to, serverName?, application?}`; a Fault where there is no answer. */
export async function explain(request: Readonly<Record<string, unknown>>, deps: ExplainDeps): Promise<Explanation> {
  const { id, pod, to } = request;
  if (typeof id === "string") return explainEvent(id, deps);
  if (typeof pod !== "string" || typeof to !== "string")
    throw new Fault("request", "explain what?", "name an event's id, or a pod and where it would go: --pod NAMESPACE/NAME --to HOST:PORT");
  const target = parseTarget(to);
  if (typeof target === "string") throw new Fault("target", `--to ${JSON.stringify(to.slice(0, 100))}: ${target}`, `write ${TARGET_FORMS}`);
  const state = podState(pod, deps);
  const evidence = assumedEvidence(request);
  const now = (await deps.judge({ pod, ...target, evidence, names: undefined })) ?? null;
  return {
    pod: state,
    to: { host: hostText(target), port: target.port, protocol: protocolText(target.protocol) },
    event: null,
    replay: null,
    now,
    suggestion: now === null ? null : suggestFor(state, target, evidence, now),
  };
}

async function explainEvent(id: string, deps: ExplainDeps): Promise<Explanation> {
  const event = id.length > ID_CHARS_MAX ? undefined : deps.find(id);
  if (event === undefined) {
    const oldest = deps.oldest();
    throw new Fault(
      "no-event",
      `no event ${JSON.stringify(id.slice(0, ID_CHARS_MAX))} in this agent's memory${oldest === undefined ? "" : ` (it goes back to ${oldest})`}`,
      "is it of another node, or of an earlier run? Give the file or collector's export that has it with --file, or ask anew with --pod NAMESPACE/NAME --to HOST:PORT",
    );
  }
  const { pod, destination, why } = event;
  const key = pod === null ? undefined : `${pod.namespace}/${pod.name}`;
  const state = key === undefined || podOf(key, deps) === undefined ? null : podState(key, deps);
  const target = targetOf(event);
  const base = { pod: state, event, suggestion: suggestRule(event) };
  if (target === undefined || key === undefined || state === null)
    return { ...base, to: destination === null ? null : placeOf(event), replay: null, now: null };
  const question = { pod: key, ...target, evidence: evidenceOf(event) };
  // As it was known then; a connection by name is one to an address by now.
  const replays = event.type === "connection" && !(why !== null && NOT_REPLAYED.has(why));
  const replay = replays ? ((await deps.judge({ ...question, names: namesOf(event) })) ?? null) : null;
  const now = (await deps.judge({ ...question, names: undefined })) ?? null;
  return { ...base, to: placeOf(event), replay, now };
}

function podOf(
  key: PodKey,
  { pods, outside }: ExplainDeps,
): { readonly pod: Pod; readonly policies: readonly string[] | undefined; readonly why?: string } | undefined {
  return (
    pods().find(({ pod }) => pod.key === key) ??
    outside()
      .map((one) => ({ ...one, policies: undefined }))
      .find(({ pod }) => pod.key === key)
  );
}

function podState(key: PodKey, deps: ExplainDeps): NonNullable<Explanation["pod"]> {
  const found = podOf(key, deps);
  if (found === undefined)
    throw new Fault(
      "no-pod",
      `no pod ${JSON.stringify(key.slice(0, 320))} on this node`,
      "write NAMESPACE/NAME; an agent knows the pods of its own node (`namegate status` lists them), and `kubectl namegate explain` asks the right one",
    );
  const snapshot = deps.snapshot();
  const all = new Map((snapshot?.policies ?? []).map((policy) => [policy.id, policy]));
  const selecting: readonly Policy[] =
    found.policies === undefined
      ? selectPolicies([...all.values()], found.pod, snapshot?.namespaces ?? {})
      : found.policies.flatMap((id) => all.get(id) ?? []);
  const mode = strictest(selecting.map((policy) => policy.mode));
  const guarded = mode === "Enforce" || mode === "Monitor";
  const why =
    deps.unenforceable().get(key) ??
    found.why ??
    (guarded && !deps.enforcing() ? "the rules are not in force: see `namegate status`" : null);
  return {
    namespace: found.pod.namespace,
    name: found.pod.name,
    mode: mode === "None" ? null : mode,
    guarded,
    enforced: guarded && why === null,
    why,
    policies: selecting.map(({ id }) => id),
  };
}

const WORD_CHARS_MAX = 64;

/** What the caller supposes of the first bytes. */
function assumedEvidence({ serverName, application }: Readonly<Record<string, unknown>>): Evidence | undefined {
  if (serverName === undefined && application === undefined) return undefined;
  const name = typeof serverName === "string" ? dnsName(serverName) : undefined;
  if (serverName !== undefined && name === undefined)
    throw new Fault("request", "--server-name is no host name", "write a name as it stands in a ClientHello, like api.example.com");
  const seen = application ?? "tls";
  if (typeof seen !== "string" || seen.length > WORD_CHARS_MAX)
    throw new Fault("request", "--application is no name of a protocol", "write one as `replay` prints it: tls, http1, postgresql, …");
  return { application: seen, serverName: name };
}

function targetOf({ destination, type, why }: Event): Target | undefined {
  // A packet with a stolen address says nothing about what its pod may do.
  if (destination === null || type === "spoofed") return undefined;
  const protocol = Object.hasOwn(Protocol, destination.protocol ?? "")
    ? Protocol[destination.protocol as keyof typeof Protocol]
    : Number(destination.protocol ?? NaN);
  const port = destination.port ?? 0;
  if (!Number.isInteger(protocol) || protocol < 0 || protocol > 255) return undefined;
  // Of a query that was refused the name is the matter, not the resolver.
  if (type === "dns" && why !== null && OF_QUERIES.has(why)) {
    const name = dnsName(destination.names[0] ?? "");
    return name === undefined ? undefined : { name, address: undefined, port: 443, protocol: Protocol.TCP };
  }
  const address = parseIp(destination.address ?? "");
  return address === undefined ? undefined : { name: undefined, address, port, protocol };
}

function placeOf({ destination }: Event): Explanation["to"] {
  return {
    host: destination?.names[0] ?? destination?.address ?? "?",
    port: destination?.port ?? 0,
    protocol: destination?.protocol ?? "?",
  };
}

function namesOf({ evidence }: Event): NameSeen[] {
  return (evidence?.dns ?? []).flatMap(({ name, via, fresh }): NameSeen[] => {
    const known = dnsName(name);
    return known === undefined ? [] : [{ name: known, via: via === "cname" ? "cname" : "asked", fresh }];
  });
}

function evidenceOf({ evidence, why, message }: Event): Evidence | undefined {
  const { application, serverName, dns: _, ja4, ...more } = evidence ?? { application: null, serverName: null, dns: null, ja4: null };
  if (application === null && serverName === null && (why === null || !BY_FIRST_BYTES.has(why))) return undefined;
  return {
    application: application ?? undefined,
    serverName: serverName ?? undefined,
    ...more,
    ...(ja4 !== null && { ja4 }),
    ...(why === "evasion" && { evasion: message ?? "evasion" }),
    ...(why === "names-disagree" && { evasion: NAMES_DISAGREE }),
  };
}

/** The rule that would allow it; null: it is allowed, or the first bytes are to tell. */
function suggestFor(
  pod: NonNullable<Explanation["pod"]>,
  { name, port, protocol }: Target,
  evidence: Evidence | undefined,
  { query, cases: [one] }: Explained,
): Suggestion | null {
  if (one === undefined) return null;
  const refused = query?.action === "refuse" ? query.why : null;
  const denied = one.verdict === "deny" || one.verdict === "would-deny";
  if (refused === null && !denied) return null;
  const bound = one.names.map(({ name: known, via, secondsLeft }) => ({ name: known, via, fresh: secondsLeft > 0 }));
  const dns = name === undefined ? bound : [{ name, via: "asked", fresh: true }];
  return suggestRule({
    id: "",
    seq: 0,
    time: "",
    type: "connection",
    verdict: one.verdict === "would-deny" && refused === null ? "would-deny" : "deny",
    mode: one.mode,
    why: refused === "denied-by-rule" ? refused : denied ? one.why : "no-name",
    pod: { namespace: pod.namespace, name: pod.name, labels: {}, serviceAccountName: "" },
    policy: one.policy,
    rule: one.rule,
    policies: pod.policies,
    nearest: one.nearest,
    destination: {
      address: one.address,
      port,
      protocol: protocolText(protocol),
      names: name === undefined ? bound.map(({ name: n }) => n) : [name],
    },
    source: null,
    evidence: { dns, serverName: evidence?.serverName ?? null, application: evidence?.application ?? null, ja4: null },
    message: null,
    count: 1,
  });
}
