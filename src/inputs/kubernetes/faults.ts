import { Fault, messageOf } from "../../base/fault.ts";
import type { ErrorKind } from "./types.ts";

/** A request to the API server that failed. */
export class ApiFault extends Fault {
  readonly kind: ErrorKind;
  /** The HTTP status, where there was one. */
  readonly status: number | undefined;
  /** What the server asked for (Retry-After). */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: ErrorKind,
    what: string,
    fix: string,
    more: { readonly cause?: unknown; readonly status?: number | undefined; readonly retryAfterMs?: number | undefined } = {},
  ) {
    super(`kubernetes-${kind}`, what, fix, more.cause);
    this.kind = kind;
    this.status = more.status;
    this.retryAfterMs = more.retryAfterMs;
  }
}

/** Of a message that came from outside. */
const MESSAGE_CHARS_MAX = 500;

/** What Node's TLS says of certificates and handshakes (tls.md "X509 certificate error codes", openssl's own). */
const TLS_CODE = /CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS|ERR_SSL|ERR_OSSL|EPROTO|CRL|SIGNATURE/;

/** No answer at all: `error` is what node:http(s) threw. `source`: where server and credentials come from. */
export function connectionFault(error: unknown, server: string, source: string): ApiFault {
  const code = codeOf(error);
  const cause = { cause: error };
  if (TLS_CODE.test(code)) {
    const fix =
      code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID"
        ? "renew the API server's certificate, or set this machine's clock"
        : `the certificate authority and the server name in ${source} must be those of this server`;
    return new ApiFault("tls", `${server}: TLS failed: ${line(messageOf(error))}${inBrackets(code)}`, fix, cause);
  }
  const words: Readonly<Record<string, readonly [string, string]>> = {
    ECONNREFUSED: ["connection refused", `is the API server running there? The address is from ${source}`],
    ENOTFOUND: ["the name cannot be resolved", `correct the server in ${source}, or this machine's DNS`],
    EAI_AGAIN: ["the name cannot be resolved now", "this machine's DNS does not answer"],
    EHOSTUNREACH: ["no route to the host", "look at this machine's routes and firewalls"],
    ENETUNREACH: ["the network is unreachable", "look at this machine's routes"],
    ETIMEDOUT: ["the connection timed out", "look at routes and firewalls between here and there"],
    ECONNRESET: ["the connection was cut", "the API server or a proxy before it ended it; it is tried again"],
  };
  const [what, fix] = words[code] ?? [
    `${line(messageOf(error))}${inBrackets(code)}`,
    `can it be reached from here? The address is from ${source}`,
  ];
  return new ApiFault("connect", `${server}: ${what}`, fix, cause);
}

/** An answer that is not 2xx. `body`: what it said, a Status object or anything else. */
export function statusFault(
  request: { readonly method: string; readonly path: string },
  status: number,
  body: string,
  source: string,
  retryAfter: string,
): ApiFault {
  const { verb, resource, group, namespace } = permissionOf(request.method, request.path);
  const asked = `${verb} ${resource}${namespace === undefined ? "" : ` in ${namespace}`}`;
  const what = `${asked}: ${status} ${statusMessage(body)}`.trimEnd();
  const seconds = retryAfter === "" ? Number.NaN : Number(retryAfter); // a date is not understood: our own wait does
  const retryAfterMs = seconds >= 0 && Number.isFinite(seconds) ? seconds * 1000 : undefined;
  const fault = (kind: ErrorKind, fix: string): ApiFault => new ApiFault(kind, what, fix, { status, retryAfterMs });
  if (status === 401) return fault("unauthorized", `the server does not know the credentials of ${source}: renew them`);
  if (status === 403) {
    const role = namespace === undefined ? "a ClusterRole" : `a Role in ${namespace}`;
    const rule = `{ apiGroups: ["${group}"], resources: ["${resource}"], verbs: ["${verb}"] }`;
    return fault("forbidden", `grant it with ${role}: ${rule}`);
  }
  if (status === 404) return fault("not-found", `does this server have ${resource}${group === "" ? "" : ` of ${group}`}?`);
  if (status === 409 || status === 422) return fault("conflict", "somebody else changed the object; it is read and tried again");
  if (status === 410) return fault("gone", "the version is too old for the server; everything is listed again");
  if (status === 429) return fault("throttled", "the server is busy (priority and fairness); it is tried again later");
  if (status >= 500) return fault("server", "the API server has a problem of its own; it is tried again");
  return fault("request", "the server does not understand the request; is it a Kubernetes API server of 1.20 or later?");
}

export interface Permission {
  readonly verb: string;
  /** `pods`, `nodes/status` */
  readonly resource: string;
  /** `` is the core group. */
  readonly group: string;
  readonly namespace: string | undefined;
}

/** What a Role must grant for a request. */
export function permissionOf(method: string, url: string): Permission {
  const [path = "", query = ""] = url.split("?");
  const parts = path.split("/").filter((part) => part !== "");
  const core = parts[0] === "api";
  const group = core ? "" : (parts[1] ?? "");
  let rest = parts.slice(core ? 2 : 3);
  let namespace: string | undefined;
  if (rest[0] === "namespaces" && rest.length > 2) {
    namespace = rest[1];
    rest = rest.slice(2);
  }
  const [kind = "", name, sub] = rest;
  const reading = new URLSearchParams(query).get("watch") === "true" ? "watch" : name === undefined ? "list" : "get";
  const verbs: Readonly<Record<string, string>> = { GET: reading, POST: "create", PUT: "update", PATCH: "patch", DELETE: "delete" };
  return { verb: verbs[method] ?? method.toLowerCase(), resource: sub === undefined ? kind : `${kind}/${sub}`, group, namespace };
}

/** The message of a Status object, or the beginning of whatever it is, on one line. */
function statusMessage(body: string): string {
  try {
    const parsed: unknown = JSON.parse(body);
    const message = typeof parsed === "object" && parsed !== null ? (parsed as { message?: unknown }).message : undefined;
    if (typeof message === "string") return line(message);
  } catch {
    // not JSON: a proxy's page
  }
  return line(body);
}

/** One printable line of bounded length. */
export function line(text: string): string {
  const flat = text
    .slice(0, MESSAGE_CHARS_MAX * 2)
    .replace(/[\p{C}\s]+/gu, " ")
    .trim();
  return flat.length > MESSAGE_CHARS_MAX ? `${flat.slice(0, MESSAGE_CHARS_MAX)}…` : flat;
}

function codeOf(error: unknown): string {
  const code = typeof error === "object" && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : "";
}

function inBrackets(code: string): string {
  return code === "" ? "" : ` (${code})`;
}
