import { ipText, parseIp } from "../base/address.ts";
import { dnsName } from "../base/name.ts";
import type { Event } from "../model/event.ts";
import { Protocol } from "../model/packet.ts";
import type { PolicyId } from "../model/policy.ts";
import type { Why } from "../model/verdict.ts";
import { APPLICATIONS, carries, isHttp, namesServer, withTls } from "./application.ts";

export type Suggestion =
  | {
      readonly kind: "rule";
      /** Where it belongs; undefined: no policy selects the pod. */
      readonly policy: PolicyId | undefined;
      /** An entry of `spec.egress`, to be pasted. */
      readonly yaml: string;
      /** What a person should look at before pasting. */
      readonly notes: readonly string[];
    }
  | { readonly kind: "none"; readonly why: string };

/** Where no rule helps, or none should. */
const NO_RULE: Readonly<Partial<Record<Why, string>>> = {
  "denied-by-rule": "a Deny rule decided, and Accept rules do not overrule it: change or remove that rule",
  "stale-dns": "a rule has this destination already: the pod uses an old answer; raise `dns.grace` or `dns.minTtl` of the policy",
  evasion: "the first bytes are such that nobody can be sure what they are: find out who sends them",
  "names-disagree": "two names of the server in the first bytes differ: find out who sends them",
  incomplete: "the first bytes could not be read within the limits, so nobody knows what to allow",
  "spoofed-source": "no rule allows another address than the pod's own",
  "mid-stream": "no rule allows a connection that nobody saw begin; a new one is judged",
  "unknown-pod": "the pod was not known yet",
  "upcall-limit": "the pod opens connections faster than its limit",
  malformed: "the packet cannot be read",
  fault: "a fault of namegate's own",
};

/** What an event carries of a text (alerts/formats/bound.ts); half a rule would be none. */
export const SUGGESTION_CHARS_MAX = 1024;
const NAME_CHARS_MAX = 63; // of a rule, schema.json
const NAMES_MAX = 16;

/**
 * The narrowest rule that would allow what the event says was denied: its name where the pod resolved one, its port, and the application where it
 * was seen. Pure. Everything in the event may be hostile: what is written into the rule went through a door or is a word of ours.
 */
export function suggestRule(event: Event): Suggestion {
  const { type, verdict, destination, why } = event;
  // Of the `dns` events only a refused query is about a rule; what is said of resolvers is beside the denial of the connection.
  const query = type === "dns" && (why === "name-not-allowed" || why === "denied-by-rule");
  if ((type !== "connection" && !query) || (verdict !== "deny" && verdict !== "would-deny"))
    return { kind: "none", why: "nothing was denied" };
  const never = why !== null && Object.hasOwn(NO_RULE, why) ? NO_RULE[why as Why] : undefined;
  if (never !== undefined) return { kind: "none", why: never };
  if (destination === null) return { kind: "none", why: "the event names no destination" };
  return type === "dns" ? forQuery(event) : forConnection(event);
}

/**
 * The rule of `suggestRule` as an event carries it: notes as comments, and its YAML, whole. Undefined: no rule helps. Where it is
 * too long, fewer of the address's names are in it.
 */
export function suggestionText(event: Event): string | undefined {
  const { evidence } = event;
  const suggestion = suggestRule(event);
  if (suggestion.kind === "none") return undefined;
  const { policy, notes, yaml } = suggestion;
  const head = policy === undefined ? [] : [`for spec.egress of ${policy}`];
  const text = `${[...head, ...notes].map((line) => `# ${line}\n`).join("")}${yaml}`;
  if (text.length <= SUGGESTION_CHARS_MAX) return text;
  const names = evidence?.dns ?? [];
  if (evidence === null || names.length < 2) return yaml.length <= SUGGESTION_CHARS_MAX ? yaml : undefined;
  return suggestionText({ ...event, evidence: { ...evidence, dns: names.slice(0, Math.min(NAMES_MAX, names.length) >> 1) } });
}

function forQuery(event: Event): Suggestion {
  const name = dnsName(event.destination?.names[0] ?? "");
  if (name === undefined) return { kind: "none", why: "the name in the query is no host name" };
  return rule(event, { names: [name], ports: ["{ protocol: TCP, port: 443 }"], label: name }, [
    "a query says nothing about ports: 443 is a guess, and any port lets the query through",
  ]);
}

function forConnection(event: Event): Suggestion {
  const address = parseIp(event.destination?.address ?? "");
  if (address === undefined) return { kind: "none", why: "the event has no address" };
  const port = portOf(event);
  if (port === undefined) return { kind: "none", why: "the protocol has no ports, and a rule for all of it would be too wide" };
  const evidence = applicationOf(event, port.protocol);
  if (typeof evidence === "string") return { kind: "none", why: evidence };
  const notes: string[] = [];
  const names = evidence.byAddress ? [] : namesOf(event);
  if (names.length === 0) notes.push("the pod resolved no name to this address that a rule could have: the rule is for the address alone");
  if (evidence.application === undefined && (port.protocol === Protocol.TCP || port.protocol === Protocol.UDP))
    notes.push("the first bytes were not looked at: add `application:` if you know what is spoken here");
  if (evidence.ech) notes.push("with an encrypted ClientHello the visible server name may not be the real one");
  if (event.why === "wrong-identity") notes.push("this allows every user, database, path and so on");
  if (event.why === "wrong-server-name") notes.push("the client names another server than the one it resolved: is that meant?");
  const networks = names.length === 0 ? [ipText(address)] : undefined;
  return rule(event, { names, networks, ports: [port.text], label: `${names[0] ?? ipText(address)}-${port.label}`, ...evidence }, notes);
}

function portOf({ destination }: Event): { protocol: number; text: string; label: string } | undefined {
  const name = destination?.protocol ?? "";
  const port = destination?.port ?? 0;
  if (!Object.hasOwn(Protocol, name)) return undefined;
  const protocol = Protocol[name as keyof typeof Protocol];
  if (protocol === Protocol.ICMP || protocol === Protocol.ICMPv6)
    return { protocol, text: `{ protocol: ${name}, type: ${port >> 8}, code: ${port & 255} }`, label: name };
  return port < 1 || port > 65_535 ? undefined : { protocol, text: `{ protocol: ${name}, port: ${port} }`, label: String(port) };
}

interface Spoken {
  readonly application: string | undefined;
  readonly tls: readonly string[];
  readonly ech: boolean;
  /** A rule with names would want a server name that the client does not give. */
  readonly byAddress: boolean;
}

/** What the rule must say of the first bytes; text: why no rule can. */
function applicationOf({ evidence }: Event, protocol: number): Spoken | string {
  const { application: seen, upgrade } = evidence ?? {};
  const nothing = { application: undefined, tls: [], ech: false, byAddress: false };
  if (evidence === null || seen === null || seen === undefined) return nothing;
  if (evidence.fields?.target !== undefined) return "what a proxy may be asked for stands in `http.proxy` of the proxy's rule";
  const application = upgrade === "websocket" && isHttp(seen) ? "websocket" : seen;
  const spoken = carries(protocol, application) && (application !== "tls" || protocol === Protocol.TCP);
  if (!APPLICATIONS.has(application) || !spoken) return nothing;
  if (
    upgrade !== undefined &&
    application !== "websocket" &&
    upgrade !== "tls" &&
    upgrade !== "dtls" &&
    !(isHttp(seen) && upgrade === "h2c")
  )
    return `the connection became ${upgrade.replace(/[^a-z0-9-]/g, "?").slice(0, 40)}, which no rule can want`;
  const hello = withTls(seen) === "is" || upgrade === "tls" || upgrade === "dtls";
  const ech = evidence.ech === true;
  const nameless = evidence.serverName === null;
  const inBand = hello && withTls(seen) !== "is";
  const missing = nameless && hello && !inBand;
  return {
    application,
    tls: [...(ech && withTls(application) !== "never" ? ["ech: Allow"] : []), ...(missing ? ["missingServerName: Allow"] : [])],
    ech,
    byAddress: (nameless && !hello && namesServer(seen)) || (!nameless && dnsName(evidence.serverName ?? "") === undefined),
  };
}

/** What this pod asked for and may still use, and what the client itself said. */
function namesOf({ evidence }: Event): string[] {
  const asked = (evidence?.dns ?? []).flatMap(({ name, via, fresh }) => {
    const found = fresh && via === "asked" ? dnsName(name) : undefined;
    return found === undefined ? [] : [found];
  });
  if (asked.length === 0) return [];
  const said = dnsName(evidence?.serverName ?? "");
  if (said === undefined) return [...new Set(asked)].slice(0, NAMES_MAX);
  return asked.includes(said) ? [said] : [asked[0] as string, said];
}

interface Parts extends Partial<Spoken> {
  readonly names: readonly string[];
  readonly networks?: readonly string[] | undefined;
  readonly ports: readonly string[];
  readonly label: string;
}

function rule(event: Event, parts: Parts, notes: readonly string[]): Suggestion {
  const label = parts.label.replace(/[^A-Za-z0-9_.-]/g, "-").slice(0, NAME_CHARS_MAX - "allow-".length);
  const list = (values: readonly string[]): string => `[${values.map((one) => JSON.stringify(one)).join(", ")}]`;
  const lines = [
    `- name: ${JSON.stringify(`allow-${label}`.replace(/[_.-]+$/, ""))}`,
    "  action: Accept",
    "  to:",
    parts.names.length > 0 ? `  - domainNames: ${list(parts.names)}` : `  - networks: ${list(parts.networks ?? [])}`,
    "  ports:",
    ...parts.ports.map((port) => `  - ${port}`),
    ...(parts.application === undefined ? [] : [`  application: ${parts.application}`]),
    ...(parts.tls === undefined || parts.tls.length === 0 ? [] : [`  tls: { ${parts.tls.join(", ")} }`]),
  ];
  // A namespace's own policy, where there is one: its owner can change it, and it is asked whatever Admin policies pass on.
  const own = event.policies.filter((policy) => policy.includes("/"));
  const near = event.nearest?.policy;
  const policy = own.find((one) => one === near) ?? own[0] ?? near ?? event.policies[0];
  return { kind: "rule", policy, yaml: `${lines.join("\n")}\n`, notes };
}
