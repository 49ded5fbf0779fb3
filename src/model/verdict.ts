import type { PolicyId } from "./policy.ts";

/** Why a connection, a query or a packet is denied. */
export type Why =
  | "denied-by-rule" // a Deny rule matched
  | "no-rule" // no rule has this destination
  | "wrong-port" // a rule has the destination, but not this protocol and port
  | "no-name" // rules with names have this port, but this pod resolved no name to this address
  | "wrong-name" // this pod resolved a name to this address, but no rule has that name on this port
  | "stale-dns" // a rule would match, but the DNS answer is older than its TTL and grace
  | "name-not-allowed" // a DNS query for a name that no rule has
  | "wrong-server-name" // the TLS server name is not one of the rule's
  | "no-server-name" // the TLS ClientHello names no server
  | "wrong-protocol" // the first bytes are not the rule's application
  | "wrong-identity" // the protocol is right, but not the user, database, client id ... that the rule has
  | "names-disagree" // two names of the server in the first bytes (TLS server name and HTTP Host) are not the same
  | "ech" // an encrypted ClientHello: the real server name cannot be seen
  | "evasion" // first bytes that only somebody who hides something sends: overlaps that differ, decoys, illegal records
  | "incomplete" // the first bytes could not be read within the limits
  | "spoofed-source" // not this interface's address
  | "mid-stream" // a connection whose beginning nobody saw: the first packet of it that came is no SYN
  | "unknown-pod" // an interface of the CNI whose pod is not known (yet)
  | "upcall-limit" // this pod opens new connections faster than its limit
  | "malformed" // the packet cannot be read
  | "fault"; // a fault of ours; the safe answer

/** The rule that came nearest to allowing what was denied, and the clause of it that failed. */
export interface Nearest {
  readonly policy: PolicyId;
  readonly rule: string;
  readonly clause: "name" | "port" | "stale" | "server-name" | "application" | "identity";
}

export type Verdict =
  | { readonly action: "allow"; readonly policy: PolicyId; readonly rule: string }
  | {
      readonly action: "deny";
      readonly why: Why;
      /** The Deny rule, where one decided. */
      readonly policy: PolicyId | undefined;
      readonly rule: string | undefined;
      readonly nearest: Nearest | undefined;
    }
  | {
      readonly action: "inspect";
      readonly policy: PolicyId;
      readonly rule: string;
      readonly application: string;
      readonly missing: "server-name" | "protocol";
    };

/** What the first payload bytes of a connection showed. */
export interface Evidence {
  /** A protocol name as in the corpus (`tls`, `postgresql`, ...), or undefined when not recognised. */
  readonly application: string | undefined;
  readonly serverName: string | undefined;
  readonly alpn?: readonly string[];
  readonly ja4?: string;
  /** An encrypted ClientHello was offered: the server name may be an outer one. */
  readonly ech?: boolean;
  /** What the connection became: `tls` behind a STARTTLS or an SSLRequest (server name, ALPN and JA4 are then of that). */
  readonly upgrade?: string;
  /** The protocol's own version, as it writes it: `3.0`, `SSH-2.0`, `5`, `1.3`. */
  readonly version?: string;
  /** What the first bytes say besides, and what a policy may ask for: FIELDS. Printable, at most FIELD_CHARS_MAX characters each. */
  readonly fields?: Fields;
  /** Legal for a server, but only somebody who hides something does it: the reason. It may begin with one of the two below. */
  readonly evasion?: string;
}

/** Two different names of the server in the first bytes: the denial is `names-disagree`. */
export const NAMES_DISAGREE = "names disagree";
/** SSLv2 or SSLv3, which a policy may allow. */
export const LEGACY_TLS = "legacy TLS";

/** No value of Fields is longer; one of this length may be cut. */
export const FIELD_CHARS_MAX = 255;
/** One octet as a field has it. What a policy asks for is written the same way, or it would never be equal. */
export function octetText(octet: number): string {
  return octet >= 0x20 && octet < 0x7f && octet !== 0x5c ? String.fromCharCode(octet) : `\\x${octet.toString(16).padStart(2, "0")}`;
}

/** Values are as the client wrote them; a byte that is no printable ASCII is written \\xHH. */
export type Fields = Readonly<Partial<Record<FieldName, string>>>;
export const FIELDS = [
  "user",
  "database",
  "clientId",
  "application", // application_name, driver, user agent, product
  "service", // Oracle service or SID, gRPC service
  "method", // HTTP method, gRPC method, command
  "path",
  "host", // HTTP Host or :authority, SIP or RTSP host, EHLO name
  "target", // what a proxy is asked for: CONNECT or absolute form, `host:port`
  "query", // DNS question
  "mechanism", // SASL, authentication
  "file",
  "server", // what a server-first protocol says it is
] as const;
export type FieldName = (typeof FIELDS)[number];

/**
 * The class of a decision as the kernel stores it: the value of our bits in skbmark, packet mark and connmark. 0 is
 * "nothing known". Source classes (who sends) and verdict classes (what was decided) are never in the mark together.
 */
export const VerdictClass = {
  /** The kernel lets the connection through from here on. */
  pass: 1,
  /** First payload bytes go to userspace, held. */
  inspect: 2,
  /** Rejected in filter, dropped in security. */
  deny: 3,
  /** A connection to a trusted resolver: its replies are held until they are learned. */
  dns: 4,
  /** The first payload bytes were fine: pass when the server has acknowledged them. What it says need not be read. */
  confirm: 5,
  /** As inspect, for Monitor: nothing is denied, and without an agent everything passes. */
  watch: 6,
  /** A packet that we sent ourselves, or have already seen in raw. */
  ours: 7,
} as const;
/**
 * `unknown`: a pod's interface, and an address that is no known pod's. `starting`: the same, while no pod is known at all; of the
 * two and `monitor` only these have the lowest bit. `enforce` has a number that no set holds as a verdict: while the mark says it, no set has answered yet (NG-NEW).
 * `picked` is on its way to a pod, not from one (firewall/picked-rules.ts).
 */
export const SourceClass = { unknown: 1, monitor: 2, unguarded: 3, spoof: 4, enforce: 5, picked: 6, starting: 7 } as const;
