import { Protocol } from "../model/packet.ts";

/** What the policy stage must know about an application: what carries it, and whether its first bytes name a server. */
interface Application {
  readonly tcp: boolean;
  readonly udp: boolean;
  readonly serverName: boolean;
}

const TCP: Application = { tcp: true, udp: false, serverName: false };
const UDP: Application = { tcp: false, udp: true, serverName: false };
const BOTH: Application = { tcp: true, udp: true, serverName: false };
const NAMED: Application = { tcp: true, udp: false, serverName: true };

/** Every application name that a rule may have (schema.json lists the same; a test compares them). */
export const APPLICATIONS: ReadonlyMap<string, Application> = new Map([
  ["tls", NAMED],
  ["quic", { tcp: false, udp: true, serverName: true }],
  ["dtls", { tcp: false, udp: true, serverName: true }],
  ["http", NAMED],
  ["http1", NAMED],
  ["http2", NAMED],
  ["grpc", NAMED],
  ["dns", BOTH],
  ["postgresql", TCP],
  ["mysql", TCP],
  ["redis", TCP],
  ["mongodb", TCP],
  ["kafka", TCP],
  ["cassandra", TCP],
  ["mssql", TCP],
  ["oracle", TCP],
  ["amqp", TCP],
  ["mqtt", TCP],
  ["ldap", BOTH],
  ["smtp", TCP],
  ["imap", TCP],
  ["pop3", TCP],
  ["ftp", TCP],
  ["ssh", TCP],
  ["zookeeper", TCP],
  ["nats", TCP],
  ["memcached", BOTH],
  ["couchbase", TCP],
  ["elasticsearch", TCP],
  ["ntp", UDP],
  ["sip", BOTH],
  ["rtsp", BOTH],
  ["tftp", UDP],
]);

/** Does the client say in its first bytes which server it wants (TLS server name, HTTP Host)? */
export function namesServer(application: string): boolean {
  return APPLICATIONS.get(application)?.serverName === true;
}

/** Can `application` be spoken over this IP protocol? `tls` over UDP means QUIC or DTLS. */
export function carries(protocol: number, application: string): boolean {
  const known = APPLICATIONS.get(application);
  if (known === undefined) return true;
  if (protocol === Protocol.TCP) return known.tcp;
  return protocol === Protocol.UDP && (known.udp || application === "tls");
}

/** Is what was `seen` in the first bytes what the rule wants? `http` is any HTTP, `tls` over UDP is QUIC or DTLS. */
export function isApplication(wanted: string, seen: string | undefined, protocol: number): boolean {
  if (seen === undefined) return false;
  if (wanted === "http") return seen === "http1" || seen === "http2" || seen === "grpc" || seen === "http";
  if (wanted === "tls" && protocol === Protocol.UDP) return seen === "quic" || seen === "dtls" || seen === "tls";
  return wanted === seen;
}
