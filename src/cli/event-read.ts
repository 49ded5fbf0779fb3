import type { Event } from "../model/event.ts";

/**
 * A line of events from somewhere else: another version's agent, a file, whatever stands in it. What has the wrong type is taken
 * for absent, so that what reads the event later need not look. undefined: it is no event.
 */
export function readEvent(value: unknown): Event | undefined {
  const { id, seq, time, type, verdict, mode, count, ...rest } = fields(value);
  if (typeof time !== "string" || Number.isNaN(Date.parse(time)) || typeof type !== "string" || !isVerdict(verdict)) return undefined;
  const { pod, nearest, destination, source, evidence, folded } = rest;
  return {
    id: text(id) ?? "",
    seq: number(seq) ?? 0,
    time,
    type: type as Event["type"],
    verdict,
    mode: text(mode) as Event["mode"],
    why: text(rest["why"]),
    pod: readPod(pod),
    policy: text(rest["policy"]),
    rule: text(rest["rule"]),
    policies: texts(rest["policies"]),
    nearest: readNearest(nearest),
    destination: readDestination(destination),
    source: readSource(source),
    evidence: readEvidence(evidence),
    message: text(rest["message"]),
    count: number(count) ?? 1,
    ...readFolded(folded),
  };
}

type Fields = Readonly<Record<string, unknown>>;

const fields = (value: unknown): Fields => (typeof value === "object" && value !== null ? (value as Fields) : {});
const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
const number = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);
const texts = (value: unknown): string[] => (Array.isArray(value) ? (value as unknown[]).filter((one) => typeof one === "string") : []);
const isVerdict = (value: unknown): value is Event["verdict"] =>
  value === "allow" || value === "deny" || value === "would-deny" || value === "info";

const onlyTexts = (value: unknown): Record<string, string> =>
  Object.fromEntries(Object.entries(fields(value)).flatMap(([key, one]) => (typeof one === "string" ? [[key, one] as const] : [])));

function readPod(value: unknown): Event["pod"] {
  const { namespace, name, labels, serviceAccountName } = fields(value);
  if (typeof namespace !== "string" || typeof name !== "string") return null;
  return { namespace, name, labels: onlyTexts(labels), serviceAccountName: text(serviceAccountName) ?? "" };
}

function readNearest(value: unknown): Event["nearest"] {
  const { policy, rule, clause } = fields(value);
  if (typeof policy !== "string" || typeof rule !== "string" || typeof clause !== "string") return null;
  return { policy, rule, clause: clause as NonNullable<Event["nearest"]>["clause"] };
}

function readDestination(value: unknown): Event["destination"] {
  if (typeof value !== "object" || value === null) return null;
  const { address, port, protocol, names } = fields(value);
  return { address: text(address), port: number(port), protocol: text(protocol), names: texts(names) };
}

function readSource(value: unknown): Event["source"] {
  const { address, port, interface: of } = fields(value);
  return typeof address !== "string" ? null : { address, port: number(port) ?? 0, interface: text(of) };
}

function readEvidence(value: unknown): Event["evidence"] {
  if (typeof value !== "object" || value === null) return null;
  const { dns, serverName, application, ja4, alpn, ech, version, upgrade, fields: more } = fields(value);
  const names = Array.isArray(dns) ? (dns as unknown[]).map(fields) : null;
  return {
    dns:
      names?.flatMap(({ name, via, fresh }) => (typeof name === "string" ? [{ name, via: text(via) ?? "", fresh: fresh === true }] : [])) ??
      null,
    serverName: text(serverName),
    application: text(application),
    ja4: text(ja4),
    ...(Array.isArray(alpn) && { alpn: texts(alpn) }),
    ...(typeof ech === "boolean" && { ech }),
    ...(typeof version === "string" && { version }),
    ...(typeof upgrade === "string" && { upgrade }),
    ...(more !== undefined && { fields: onlyTexts(more) }),
  };
}

function readFolded(value: unknown): Pick<Event, "folded"> {
  const { first, last } = fields(value);
  return typeof first === "string" && typeof last === "string" ? { folded: { first, last } } : {};
}
