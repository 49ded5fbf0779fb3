import { Protocol } from "../model/packet.ts";
import type { TlsTerms } from "../model/policy.ts";
import { LEGACY_TLS, type Evidence } from "../model/verdict.ts";

/**
 * How an application and TLS go together. `is`: it begins with a ClientHello. `upgrades`: TLS may begin in the middle of it
 * (SSLRequest, STARTTLS, ...). `wrapped`: TLS may be around it, from the first byte. `never`.
 */
export type WithTls = "is" | "upgrades" | "wrapped" | "never";

/** What the policy stage must know about an application. */
interface Application {
  readonly tcp: boolean;
  readonly udp: boolean;
  /** Its first bytes name a server (TLS server name, HTTP Host). */
  readonly serverName: boolean;
  readonly tls: WithTls;
  /** The ALPN names with which a TLS client says that it is inside (IANA, TLS Application-Layer Protocol Negotiation IDs). */
  readonly alpn: readonly string[];
}

function over(transports: "tcp" | "udp" | "both", tls: WithTls = "never", alpn: readonly string[] = [], serverName = false): Application {
  return { tcp: transports !== "udp", udp: transports !== "tcp", serverName, tls, alpn };
}
const http = over("tcp", "wrapped", [], true);

/** Every application name that a rule may have (schema.json lists the same; a test compares them). */
export const APPLICATIONS: ReadonlyMap<string, Application> = new Map([
  ["tls", over("tcp", "is", [], true)],
  ["quic", over("udp", "is", [], true)],
  ["dtls", over("udp", "is", [], true)],
  ["http", http],
  ["http1", http],
  ["http2", http],
  ["grpc", http],
  ["websocket", http],
  ["dns", over("both", "wrapped", ["dot", "doq"])],
  ["mdns", over("udp")],
  ["postgresql", over("tcp", "upgrades", ["postgresql"])],
  ["mysql", over("tcp", "upgrades")],
  ["redis", over("tcp", "wrapped")],
  ["mongodb", over("tcp", "wrapped")],
  ["kafka", over("tcp", "wrapped")],
  ["cassandra", over("tcp", "wrapped")],
  ["mssql", over("tcp", "upgrades", ["tds/8.0"])],
  ["oracle", over("tcp", "wrapped")],
  ["couchbase", over("tcp", "wrapped")],
  ["elasticsearch", over("tcp", "wrapped")],
  ["memcached", over("both", "wrapped")],
  ["etcd", over("tcp", "wrapped")],
  ["zookeeper", over("tcp", "wrapped")],
  ["amqp", over("tcp", "upgrades")],
  ["mqtt", over("tcp", "wrapped", ["mqtt", "x-amzn-mqtt-ca"])],
  ["nats", over("tcp", "upgrades")],
  ["stomp", over("tcp", "wrapped")],
  ["openwire", over("tcp", "wrapped")],
  ["pulsar", over("tcp", "wrapped")],
  ["rocketmq", over("tcp", "wrapped")],
  ["zmtp", over("tcp")],
  ["thrift", over("tcp", "wrapped")],
  ["dubbo", over("tcp", "wrapped")],
  ["fastcgi", over("tcp", "wrapped")],
  ["smtp", over("tcp", "upgrades")],
  ["imap", over("tcp", "upgrades", ["imap"])],
  ["pop3", over("tcp", "upgrades", ["pop3"])],
  ["ftp", over("tcp", "upgrades", ["ftp"])],
  ["irc", over("tcp", "upgrades", ["irc"])],
  ["xmpp", over("tcp", "upgrades", ["xmpp-client", "xmpp-server"])],
  ["ldap", over("both", "upgrades")],
  ["kerberos", over("both")],
  ["ssh", over("tcp")],
  ["telnet", over("tcp", "upgrades")],
  ["git", over("tcp")],
  ["rsync", over("tcp", "wrapped")],
  ["smb", over("tcp")],
  ["dcerpc", over("both")],
  ["netbios", over("both")],
  ["rdp", over("both", "upgrades")],
  ["ntp", over("udp")],
  ["snmp", over("both", "wrapped")],
  ["dhcpv6", over("udp")],
  ["tftp", over("udp")],
  ["sip", over("both", "wrapped", ["sip/2"])],
  ["rtsp", over("both", "wrapped")],
  ["rtcp", over("both")],
  ["stun", over("both", "upgrades", ["stun.turn", "stun.nat-discovery"])],
  ["proxy", over("tcp")],
  ["socks", over("tcp", "wrapped")],
  ["openvpn", over("both")],
  ["wireguard", over("udp")],
  ["bittorrent", over("both")],
  ["stratum", over("tcp", "wrapped")],
  ["db-lsp-disc", over("udp")],
]);

/** Does the client say in its first bytes which server it wants (TLS server name, HTTP Host)? */
export function namesServer(application: string): boolean {
  return APPLICATIONS.get(application)?.serverName === true;
}

/** How a rule's application and TLS go together; undefined: nobody knows the application. */
export function withTls(application: string): WithTls | undefined {
  return APPLICATIONS.get(application)?.tls;
}

/** Can `application` be spoken over this IP protocol? `tls` over UDP means QUIC or DTLS. */
export function carries(protocol: number, application: string): boolean {
  const known = APPLICATIONS.get(application);
  if (known === undefined) return true;
  if (protocol === Protocol.TCP) return known.tcp;
  return protocol === Protocol.UDP && (known.udp || application === "tls");
}

/** HTTP that `http` stands for. A WebSocket is a tunnel, and has its own name. */
const HTTP: readonly string[] = ["http", "http1", "http2", "grpc"];
export const isHttp = (application: string | undefined): boolean => application !== undefined && HTTP.includes(application);

function isSame(wanted: string, seen: string, protocol: number): boolean {
  if (wanted === seen || (wanted === "http" && isHttp(seen))) return true;
  return wanted === "tls" && protocol === Protocol.UDP && (seen === "quic" || seen === "dtls");
}

/** Could first bytes of the application `seen` be what the rule wants, whatever else they say? */
export function mayBeApplication(wanted: string, seen: string, protocol: number, terms: TlsTerms): boolean {
  if (isSame(wanted, seen, protocol) || (wanted === "websocket" && isHttp(seen))) return true;
  if (withTls(wanted) === "is" || withTls(seen) !== "is") return false;
  return (APPLICATIONS.get(wanted)?.alpn.length ?? 0) > 0 || terms.opaque === "Allow";
}

/**
 * Is what the first bytes showed what the rule wants? `http` is any HTTP, `tls` over UDP is QUIC or DTLS. An application may
 * go on in TLS where it has a way to; TLS from the first byte is it when the client offers only its own ALPN names, or when
 * the rule takes opaque TLS for it. SSLv2 and SSLv3 are no TLS unless the rule says so.
 */
export function isApplication(wanted: string, evidence: Evidence, protocol: number, terms: TlsTerms): boolean {
  const { application: seen, upgrade } = evidence;
  if (wanted === "websocket" && upgrade === "websocket" && isHttp(seen)) return true; // extended CONNECT of HTTP/2, RFC 8441
  if (seen === undefined || (terms.legacy === "Deny" && evidence.evasion?.startsWith(LEGACY_TLS) === true)) return false;
  // An HTTP request that asks for another protocol may get it; h2c is still HTTP.
  if (upgrade !== undefined && upgrade !== "tls" && upgrade !== "dtls" && !(isHttp(seen) && upgrade === "h2c")) return false;
  if (isSame(wanted, seen, protocol)) return true;
  if (withTls(wanted) === "is" || withTls(seen) !== "is") return false;
  const own = APPLICATIONS.get(wanted)?.alpn ?? [];
  const offered = evidence.alpn ?? [];
  return (offered.length > 0 && offered.every((name) => own.includes(name))) || (terms.opaque === "Allow" && seen !== "quic");
}
