// What the agent's words mean to a person.

/** Form, colour and word together, so that no one of them is needed. */
export const VERDICTS = {
  deny: { icon: "✕", word: "Denied" },
  "would-deny": { icon: "△", word: "Would deny" },
  allow: { icon: "✓", word: "Allowed" },
  info: { icon: "•", word: "Info" },
};

const WHY = {
  "denied-by-rule": "A Deny rule has this destination.",
  "no-rule": "No rule has this destination.",
  "wrong-port": "A rule has this destination, but not this protocol and port.",
  "no-name": "Rules with names have this port, but this pod resolved no name to this address.",
  "wrong-name": "The pod resolved a name to this address, but no rule has that name on this port.",
  "stale-dns": "A rule would match, but the DNS answer is older than its TTL and the grace.",
  "name-not-allowed": "A DNS query for a name that no rule has. It was answered with REFUSED.",
  "wrong-server-name": "The server name in the first bytes is not one of the rule's.",
  "no-server-name": "The TLS ClientHello names no server.",
  "wrong-protocol": "The first bytes are not the application of the rule.",
  "wrong-identity": "The protocol is right, but not the user, database, path or the like that the rule has.",
  "names-disagree": "Two names of the server in the first bytes are not the same.",
  ech: "An encrypted ClientHello: the real server name cannot be seen.",
  evasion: "First bytes that only somebody who hides something sends.",
  incomplete: "The first bytes could not be read within the limits.",
  "spoofed-source": "The source address is not this interface's.",
  "mid-stream": "Nobody saw the connection begin: its first packet is no SYN.",
  "unknown-pod": "The pod of this interface is not known yet.",
  "upcall-limit": "The pod opens new connections faster than its limit.",
  malformed: "The packet cannot be read.",
  fault: "A fault of namegate's own; the safe answer was given.",
  "dns-tunnel": "Queries that look as if they carried data.",
  "untrusted-resolver": "DNS with a server that is not trusted: what it answers teaches nothing.",
  "dns-over-tls": "DNS over TLS or QUIC: what is asked and answered cannot be seen.",
  "dns-over-https": "DNS over HTTPS: what is asked and answered cannot be seen.",
};
/** Of what is neither allowed nor denied: what somebody should look at. */
const ALARMS = new Set([
  "not-enforcing",
  "effective-mode-lowered",
  "policy-mode-lowered",
  "policy-invalid",
  "input-invalid",
  "no-resolver",
  "degraded",
  "unenforceable",
  "rules-restored",
  "rules-contended",
  "groups-restored",
  "set-repaired",
  "queue-full",
  "alerts-lost",
  "alerts-refused",
]);
const CLAUSES = {
  name: "its names do not have it",
  port: "its ports do not have it",
  stale: "its name was resolved too long ago",
  "server-name": "the server name is not one of its names",
  application: "the first bytes are another protocol",
  identity: "user, database, path or the like is another one",
};

const word = (table, key) => (typeof key === "string" && Object.hasOwn(table, key) ? table[key] : undefined);

export const verdictOf = (verdict) => word(VERDICTS, verdict) ?? VERDICTS.info;
export const isAlarm = ({ verdict, why }) => verdict === "info" && ALARMS.has(why);
export const whyText = (why) => word(WHY, why);
export const clauseText = (clause) => word(CLAUSES, clause) ?? clause;

export const podText = (pod) => (pod === null || pod === undefined ? "" : `${pod.namespace}/${pod.name}`);

export function addressText(destination) {
  if (!destination?.address) return "";
  const { address, port, protocol } = destination;
  return `${address.includes(":") ? `[${address}]` : address}:${port ?? 0}/${protocol ?? "?"}`;
}

/** The name by which a person knows where an event went. */
export function nameOf(event) {
  const server = event.evidence?.serverName;
  const name = event.destination?.names?.[0];
  return (event.why === "wrong-server-name" || event.why === "names-disagree" ? (server ?? name) : (name ?? server)) ?? "";
}

const pad = (n, width = 2) => String(n).padStart(width, "0");
export function clock(time) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? "" : `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}
export const millis = (time) => `.${pad(new Date(time).getMilliseconds(), 3)}`;
export function whole(time) {
  const at = new Date(time);
  return time ? `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(time)}` : "";
}

export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - new Date(time).getTime()) / 1000));
  if (!Number.isFinite(seconds)) return "never";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

/** `12 345`, with narrow spaces that do not break. */
export const number = (n) => String(n ?? 0).replace(/\B(?=(?:\d{3})+$)/g, "\u202f");
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
