import { ipText, parseIp } from "../base/address.ts";
import { dnsName, namePattern, type NamePattern } from "../base/name.ts";
import type { IdentityTerm } from "../model/policy.ts";
import { FIELD_CHARS_MAX, octetText, type Evidence, type FieldName } from "../model/verdict.ts";
import { hasName, nameSet, type NameSet } from "./names.ts";

/** What a policy may ask about who the client says it is: `block: { list: field }`, as in `postgresql: { users: [ … ] }`. */
export const IDENTITY: Readonly<Record<string, Readonly<Record<string, FieldName>>>> = {
  http: { methods: "method", paths: "path", hosts: "host" },
  grpc: { services: "service", methods: "method" },
  postgresql: { users: "user", databases: "database" },
  mysql: { users: "user", databases: "database" },
  redis: { users: "user", databases: "database" },
  mongodb: { users: "user", databases: "database" },
  kafka: { clientIds: "clientId" },
  mssql: { users: "user", databases: "database", applications: "application" },
  oracle: { services: "service", users: "user" },
  mqtt: { clientIds: "clientId", users: "user" },
};

/** The applications whose rules may have a block: `http` is for each of HTTP/1 and HTTP/2 too. */
export function applicationsOf(block: string): readonly string[] {
  return block === "http" ? ["http", "http1", "http2"] : [block];
}

/** What a protocol's documents say of a client that does not mention it. */
const WHEN_ABSENT: Readonly<Record<string, Readonly<Partial<Record<FieldName, string>>>>> = { redis: { database: "0", user: "default" } };

/** A term ready to be asked. */
export interface Identity {
  readonly field: FieldName;
  readonly exact: ReadonlySet<string>;
  /** What stands before a `*` at the end. */
  readonly prefixes: readonly string[];
  /** `host` only. */
  readonly names: NameSet | undefined;
}

export function compileIdentity({ field, values }: IdentityTerm): Identity {
  if (field === "host") {
    const patterns = values.map((value) => namePattern(value)).filter((pattern): pattern is NamePattern => pattern !== undefined);
    const addresses = values.map((value) => parseIp(value)).flatMap((ip) => (ip === undefined ? [] : [ipText(ip)]));
    return { field, exact: new Set(addresses), prefixes: [], names: nameSet(patterns) };
  }
  const wild = values.filter((value) => value.endsWith("*"));
  return {
    field,
    exact: new Set(values.filter((value) => !value.endsWith("*")).map(fieldText)),
    prefixes: wild.map((value) => fieldText(value.slice(0, -1))),
    names: undefined,
  };
}

/** `text` as Evidence has it: printable ASCII, any other octet of its UTF-8 as \xHH. */
export function fieldText(text: string): string {
  let out = "";
  for (const octet of Buffer.from(text)) out += octetText(octet);
  return out;
}

/** Does the evidence say it, and is it one of the rule's? `wanted`: the rule's application. */
export function isIdentity(identity: Identity, wanted: string, evidence: Evidence): boolean {
  const { field, exact, prefixes, names } = identity;
  const value = valueOf(field, wanted, evidence);
  if (value === undefined) return false;
  if (names !== undefined) return isHost(value, names, exact);
  if (field === "path") return isPath(value, exact, prefixes);
  const cut = value.length >= FIELD_CHARS_MAX;
  return (!cut && exact.has(value)) || prefixes.some((prefix) => value.startsWith(prefix));
}

function valueOf(field: FieldName, wanted: string, evidence: Evidence): string | undefined {
  const { application, upgrade, fields } = evidence;
  // A gRPC call has a method of its own; to HTTP each is a POST (gRPC over HTTP2, Request-Headers).
  if (field === "method" && application === "grpc" && wanted !== "grpc") return "POST";
  const value = fields?.[field];
  if (value !== undefined || application === undefined || upgrade !== undefined) return value;
  return Object.hasOwn(WHEN_ABSENT, application) ? WHEN_ABSENT[application]?.[field] : undefined;
}

/** `name`, `name:port`, `192.0.2.1:port`, `[2001:db8::1]:port`. */
function isHost(text: string, names: NameSet, addresses: ReadonlySet<string>): boolean {
  const bracket = text.startsWith("[") ? text.indexOf("]") : 0;
  const colon = text.indexOf(":", Math.max(bracket, 0));
  const host = bracket > 0 ? text.slice(1, bracket) : colon < 0 ? text : text.slice(0, colon);
  const ip = parseIp(host);
  if (ip !== undefined) return addresses.has(ipText(ip));
  const name = dnsName(host);
  return name !== undefined && hasName(names, name);
}

/**
 * The path without its query. One that a server could read as another (dot segments, encoded or not; encoded slashes;
 * backslashes), or that was cut, is only within a rule that has every path.
 */
function isPath(value: string, exact: ReadonlySet<string>, prefixes: readonly string[]): boolean {
  if (prefixes.some((prefix) => prefix === "" || (prefix === "/" && value.startsWith("/")))) return true;
  const query = value.indexOf("?");
  if (query < 0 && value.length >= FIELD_CHARS_MAX) return false;
  const path = query < 0 ? value : value.slice(0, query);
  return isPlain(path) && (exact.has(path) || prefixes.some((prefix) => path.startsWith(prefix)));
}

const AMBIGUOUS = ["\\", "%2e", "%2f", "%5c", "%00", "%252e", "%252f", "%255c"];

function isPlain(path: string): boolean {
  const lower = path.toLowerCase();
  if (AMBIGUOUS.some((part) => lower.includes(part))) return false;
  // `..;x` is `..` to a server that knows path parameters.
  return path.split("/").every((segment) => segment !== "." && segment !== ".." && !segment.startsWith(".;") && !segment.startsWith("..;"));
}
