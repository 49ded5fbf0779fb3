import { Protocol } from "../model/packet.ts";
import { NAMES_DISAGREE, type Evidence } from "../model/verdict.ts";
import { HpackDecoder, type HeaderField } from "./hpack.ts";
import { readAuthority, sameAuthority } from "./http1-authority.ts";
import { readFirstRequest } from "./http2-frames.ts";
import type { FirstBytes, Inspector, NotIt, Reading } from "./inspector.ts";
import { shown } from "./parts.ts";

/**
 * HTTP/2 with prior knowledge (RFC 9113 §3.3): the first request of the connection, and gRPC where that is what it is
 * (grpc PROTOCOL-HTTP2: POST, content-type application/grpc, path /service/method). The server name is :authority's.
 */
export const http2Inspector: Inspector = { application: "http2", transports: [Protocol.TCP], opens: "client", read: readHttp2 };

/** The same first request, where it is a call. */
export const grpcInspector: Inspector = {
  application: "grpc",
  transports: [Protocol.TCP],
  opens: "client",
  read(first) {
    const reading = readHttp2(first);
    const other = !("need" in reading) && !("bad" in reading) && reading.application !== "grpc";
    return other ? { bad: "HTTP/2 without a call" } : reading;
  },
};

/** A call of etcd v3 (etcd's rpc.proto, v3lock.proto, v3election.proto): gRPC to whoever does not ask for etcd. */
export const etcdInspector: Inspector = {
  application: "etcd",
  transports: [Protocol.TCP],
  opens: "client",
  read(first) {
    const reading = readHttp2(first);
    if ("need" in reading || "bad" in reading) return reading;
    const service = reading.fields?.service ?? "";
    const etcd = reading.application === "grpc" && ETCD_PACKAGES.some((name) => service.startsWith(name));
    return etcd ? { ...reading, application: "etcd" } : { bad: "no call of etcd" };
  },
};
const ETCD_PACKAGES = ["etcdserverpb.", "v3lockpb.", "v3electionpb."];

function readHttp2({ client }: FirstBytes): Reading {
  const found = readFirstRequest(client.bytes, client.start, client.end);
  if ("bad" in found) return found;
  if ("block" in found) {
    const fields = new HpackDecoder().decode(found.block, 0, found.block.length);
    return Array.isArray(fields) ? readRequest(fields) : broken(fields.bad);
  }
  if (!client.closed) return { need: found.need, of: "client", ...(found.waits ? { release: true } : {}) };
  return found.certain ? { application: "http2", serverName: undefined, version: "2" } : { bad: "too short for HTTP/2" };
}

const broken = (bad: string): NotIt => ({ bad, application: "http2" });

/** What the first request says; every name at most once. */
interface Said {
  readonly pseudo: Map<string, string>;
  host: string | undefined;
  contentType: string;
  userAgent: string;
}

function readRequest(fields: readonly HeaderField[]): Reading {
  const said = gather(fields);
  if (typeof said === "string") return broken(said);
  const { pseudo, host, contentType, userAgent } = said;
  const method = pseudo.get(":method");
  const protocol = pseudo.get(":protocol"); // RFC 8441: what an extended CONNECT becomes
  const authority = pseudo.get(":authority") ?? host;
  const path = pseudo.get(":path");
  const tunnel = method === "CONNECT" && protocol === undefined;
  if (method === undefined || (path === undefined) !== tunnel || pseudo.has(":scheme") === tunnel)
    return broken("not the pseudo-fields of a request");
  if (tunnel && authority === undefined) return broken("a CONNECT that names no host");
  const to = authority === undefined ? undefined : readAuthority(authority);
  if (tunnel && to?.port === undefined) return broken("a CONNECT target that is no host and port");
  const grpc = method === "POST" && isGrpc(contentType);
  const evidence: Evidence = {
    application: grpc ? "grpc" : "http2",
    serverName: to?.name,
    version: "2",
    ...(protocol === undefined ? {} : { upgrade: shown(protocol) }),
    ...(disagree(authority, host) ? { evasion: `${NAMES_DISAGREE}: :authority and Host` } : {}),
    fields: {
      ...(grpc ? callOf(path ?? "") : { method: shown(method) }),
      ...(path === undefined ? {} : { path: shown(withoutQuery(path)) }),
      ...(authority === undefined || authority === "" ? {} : { host: shown(authority) }),
      ...(tunnel && to !== undefined ? { target: `${to.host}:${to.port}` } : {}),
      ...(userAgent === "" ? {} : { application: shown(userAgent) }),
    },
  };
  return evidence;
}

const PSEUDO = [":method", ":scheme", ":authority", ":path", ":protocol"];

/** RFC 9113 §8.2.1 and §8.3: what makes a request malformed, where it could hide a name. */
function gather(fields: readonly HeaderField[]): Said | string {
  const said: Said = { pseudo: new Map(), host: undefined, contentType: "", userAgent: "" };
  let regular = false;
  for (const { name, value } of fields) {
    if (!isClean(value)) return "a control character in a value";
    if (name.startsWith(":")) {
      if (regular || !PSEUDO.includes(name) || said.pseudo.has(name)) return "a pseudo-field that is unknown, late or there twice";
      said.pseudo.set(name, value);
      continue;
    }
    regular = true;
    if (!isFieldName(name)) return "not a field name";
    if (name === "host") {
      if (said.host !== undefined) return "more than one Host";
      said.host = value;
    } else if (name === "content-type") said.contentType ||= value;
    else if (name === "user-agent") said.userAgent ||= value;
  }
  return said;
}

/** No NUL, CR or LF. */
function isClean(text: string): boolean {
  return !text.includes("\0") && !text.includes("\r") && !text.includes("\n");
}

/** Visible, not upper case, no colon. */
function isFieldName(name: string): boolean {
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    if (c <= 0x20 || c >= 0x7f || c === 0x3a || (c >= 0x41 && c <= 0x5a)) return false;
  }
  return name !== "";
}

function disagree(authority: string | undefined, host: string | undefined): boolean {
  if (authority === undefined || host === undefined || authority === host) return false;
  const a = readAuthority(authority);
  const b = readAuthority(host);
  return a === undefined || b === undefined || !sameAuthority(a, b);
}

/** `application/grpc`, `application/grpc+proto`; grpc-web is another protocol. */
function isGrpc(contentType: string): boolean {
  const type = contentType.slice(0, 17).toLowerCase();
  return type.startsWith("application/grpc") && (type.length === 16 || "+; ".includes(type.charAt(16)));
}

/** `/pkg.Service/Method`; the method is behind the last slash. */
function callOf(path: string): { service?: string; method?: string } {
  const slash = path.lastIndexOf("/");
  if (!path.startsWith("/") || slash < 2) return {};
  return { service: shown(path.slice(1, slash)), method: shown(path.slice(slash + 1)) };
}

function withoutQuery(path: string): string {
  const query = path.indexOf("?");
  return query < 0 ? path : path.slice(0, query);
}
