import type { Evidence } from "../model/verdict.ts";
import { amqpInspector } from "./amqp.ts";
import { bittorrentInspector } from "./bittorrent.ts";
import { Candidates, combine } from "./combine.ts";
import { dbLspDiscInspector } from "./db-lsp-disc.ts";
import { dcerpcInspector } from "./dcerpc.ts";
import { dhcpv6Inspector } from "./dhcpv6.ts";
import { dnsInspector, mdnsInspector } from "./dns.ts";
import { dtlsInspector } from "./dtls.ts";
import { dubboInspector } from "./dubbo.ts";
import { fastcgiInspector } from "./fastcgi.ts";
import { ftpInspector } from "./ftp.ts";
import { gitInspector } from "./git.ts";
import { http1Inspector, websocketInspector } from "./http1.ts";
import { etcdInspector, grpcInspector, http2Inspector } from "./http2.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { imapInspector } from "./imap.ts";
import { NO_BYTES } from "./inspector.ts";
import { ircInspector } from "./irc.ts";
import { kafkaInspector } from "./kafka.ts";
import { kerberosInspector } from "./kerberos.ts";
import { ldapInspector } from "./ldap.ts";
import { mqttInspector } from "./mqtt.ts";
import { natsInspector } from "./nats.ts";
import { netbiosInspector } from "./netbios.ts";
import { ntpInspector } from "./ntp.ts";
import { openvpnInspector } from "./openvpn.ts";
import { openwireInspector } from "./openwire.ts";
import { pop3Inspector } from "./pop3.ts";
import { proxyInspector } from "./proxy.ts";
import { pulsarInspector } from "./pulsar.ts";
import { quicInspector } from "./quic.ts";
import { cassandraInspector } from "./cassandra.ts";
import { couchbaseInspector } from "./couchbase.ts";
import { elasticsearchInspector } from "./elasticsearch.ts";
import { memcachedInspector } from "./memcached.ts";
import { mongodbInspector } from "./mongodb.ts";
import { mssqlInspector } from "./mssql.ts";
import { mysqlInspector } from "./mysql.ts";
import { oracleInspector } from "./oracle.ts";
import { postgresqlInspector } from "./postgresql.ts";
import { rdpInspector } from "./rdp.ts";
import { redisInspector } from "./redis.ts";
import { rocketmqInspector } from "./rocketmq.ts";
import { rsyncInspector } from "./rsync.ts";
import { rtcpInspector } from "./rtcp.ts";
import { rtspInspector } from "./rtsp.ts";
import { sipInspector } from "./sip.ts";
import { smbInspector } from "./smb.ts";
import { smtpInspector } from "./smtp.ts";
import { snmpInspector } from "./snmp.ts";
import { socksInspector } from "./socks.ts";
import { sshInspector } from "./ssh.ts";
import { stompInspector } from "./stomp.ts";
import { stratumInspector } from "./stratum.ts";
import { stunInspector } from "./stun.ts";
import { telnetInspector } from "./telnet.ts";
import { tftpInspector } from "./tftp.ts";
import { thriftInspector } from "./thrift.ts";
import { wireguardInspector } from "./wireguard.ts";
import { xmppInspector } from "./xmpp.ts";
import { zmtpInspector } from "./zmtp.ts";
import { zookeeperInspector } from "./zookeeper.ts";
import { tlsInspector } from "./tls-inspector.ts";

/**
 * Every inspector, in the order they are asked when any protocol will do: the strictest signatures first. A protocol whose
 * first bytes could be another's stands behind it.
 */
export const INSPECTORS: readonly Inspector[] = [
  // TLS may begin behind its greeting
  natsInspector,
  // stricter than what stands below and could begin like it: memcached, a greeting of MySQL
  thriftInspector,
  socksInspector,

  // tls, quic, dtls
  tlsInspector,
  quicInspector,
  dtlsInspector,

  // web
  http1Inspector,
  websocketInspector,
  http2Inspector,
  grpcInspector,
  etcdInspector,

  // databases
  postgresqlInspector,
  cassandraInspector,
  mongodbInspector,
  mssqlInspector,
  oracleInspector,
  elasticsearchInspector,
  couchbaseInspector,
  zookeeperInspector,
  memcachedInspector,
  redisInspector,
  mysqlInspector,

  // messaging, mail, directories, shells
  amqpInspector,
  mqttInspector,
  stompInspector,
  openwireInspector,
  zmtpInspector,
  dubboInspector,
  pulsarInspector,
  rocketmqInspector,
  kafkaInspector,
  smtpInspector,
  ftpInspector,
  pop3Inspector,
  imapInspector,
  xmppInspector,
  ircInspector,
  telnetInspector,
  ldapInspector,
  kerberosInspector,
  sshInspector,

  // the node's own: names, time, calls
  netbiosInspector,
  mdnsInspector,
  dnsInspector,
  sipInspector,
  rtspInspector,
  stunInspector,
  snmpInspector,
  dhcpv6Inspector,
  tftpInspector,
  rtcpInspector,

  // only to be named in a denial
  bittorrentInspector,
  stratumInspector,
  proxyInspector,
  gitInspector,
  rsyncInspector,
  smbInspector,
  rdpInspector,
  dcerpcInspector,
  fastcgiInspector,
  dbLspDiscInspector,
  wireguardInspector,
  openvpnInspector,
  ntpInspector,
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

const byTransport = new Map<number, Candidates>();

/**
 * Reads the first bytes of a connection. With `wanted` (an application, or all that a rule could accept) only these are
 * tried: `bad` then means that the rule does not hold, and a second call without `wanted` tells what it is instead. Without,
 * every inspector of the transport is; when all say no, the answer is evidence without an application. How the readings of
 * several become one, and when to ask again: combine.ts. The caller decides how long to wait for a `need`: when no more bytes
 * come, it says `closed`, or the connection is `incomplete`.
 */
export function inspectFirst(wanted: string | readonly string[] | undefined, first: FirstBytes): Reading {
  if (wanted !== undefined) return combine(named(wanted, first.transport), first);
  let candidates = byTransport.get(first.transport);
  if (candidates === undefined) byTransport.set(first.transport, (candidates = new Candidates(INSPECTORS, first.transport)));
  const reading = combine(candidates.of(first), first);
  return "bad" in reading && reading.application === undefined ? UNKNOWN : reading;
}

const UNKNOWN: Evidence = { application: undefined, serverName: undefined };

/** By transport and wanted names. Few: a list follows from the rules that match. */
const byNames = new Map<string, readonly Inspector[]>();
const BY_NAMES_MAX = 256;

function named(wanted: string | readonly string[], transport: number): readonly Inspector[] {
  const key = `${transport} ${typeof wanted === "string" ? wanted : wanted.join()}`;
  let inspectors = byNames.get(key);
  if (inspectors === undefined) {
    const names = (typeof wanted === "string" ? [wanted] : wanted).flatMap((name) => ALIASES[name] ?? [name]);
    inspectors = INSPECTORS.filter(({ application, transports }) => names.includes(application) && transports.includes(transport));
    if (byNames.size >= BY_NAMES_MAX) byNames.clear();
    byNames.set(key, inspectors);
  }
  return inspectors;
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
