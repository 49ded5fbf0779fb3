import { table } from "./status.ts";

/**
 * Answers of several agents as one. What an agent says is read leniently (agents of two versions answer during an upgrade)
 * and is data: text for a terminal loses its control characters.
 */
export interface Answer {
  readonly node: string;
  /** The command's JSON; undefined when there is none. */
  readonly value: unknown;
  /** Why there is none. */
  readonly why: string | undefined;
}

/** Which pods of an answer are wanted. */
export interface Scope {
  /** undefined: all namespaces. */
  readonly namespace: string | undefined;
  /** undefined: all pods of the namespace. */
  readonly pod: string | undefined;
}

type Fields = Readonly<Record<string, unknown>>;

export interface Merged {
  /** Every node answered, and every agent is ready. */
  readonly ready: boolean;
  readonly nodes: readonly Fields[];
  readonly pods: readonly Fields[];
  readonly policies: readonly Fields[];
}

export const fields = (value: unknown): Fields => (typeof value === "object" && value !== null ? (value as Fields) : {});
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);
export const text = (value: unknown, otherwise = ""): string =>
  typeof value === "string" ? value : typeof value === "number" || typeof value === "boolean" ? String(value) : otherwise;

/** Nothing that a terminal would obey, C1, bidirectional controls and line separators included. */
export function plain(value: string): string {
  return value.replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, (one) => `\\u{${(one.codePointAt(0) ?? 0).toString(16)}}`);
}

/** Does this object (a pod of a status, `pod` of an event) lie in the scope? */
export function inScope(pod: unknown, { namespace, pod: name }: Scope): boolean {
  const one = fields(pod);
  return (namespace === undefined || one["namespace"] === namespace) && (name === undefined || one["name"] === name);
}

/** Is an event of interest: of a pod in the scope, or of a policy in its namespace; of agent and rules only where everything is. */
export function eventInScope(event: unknown, scope: Scope): boolean {
  if (scope.namespace === undefined) return true;
  const { pod, policy } = fields(event);
  if (fields(pod)["name"] !== undefined) return inScope(pod, scope);
  return scope.pod === undefined && typeof policy === "string" && policy.startsWith(`${scope.namespace}/`);
}

export function mergeStatus(answers: readonly Answer[], scope: Scope): Merged {
  const nodes: Fields[] = [];
  const pods: Fields[] = [];
  const policies = new Map<string, { mode: string; valid: boolean; inForce: number; of: number; errors: Set<string> }>();
  for (const { node, value, why } of answers) {
    const status = fields(value);
    if (why !== undefined) {
      nodes.push({ node, ready: false, why });
      continue;
    }
    const { ready, mode, effectiveMode, since } = status;
    nodes.push({ node, ready: ready === true, mode, effectiveMode, since });
    for (const pod of list(status["pods"])) if (inScope(pod, scope)) pods.push({ node, ...fields(pod) });
    for (const raw of list(status["policies"])) {
      const policy = fields(raw);
      const name = text(policy["name"]);
      // A cluster policy has no namespace in its name, and counts everywhere.
      if (name === "" || (scope.namespace !== undefined && name.includes("/") && !name.startsWith(`${scope.namespace}/`))) continue;
      const one = policies.get(name) ?? { mode: "", valid: true, inForce: 0, of: 0, errors: new Set<string>() };
      one.mode = text(policy["mode"], one.mode);
      one.valid &&= policy["valid"] === true;
      one.inForce += policy["inForce"] === true ? 1 : 0;
      one.of++;
      for (const error of list(policy["errors"])) one.errors.add(text(error));
      policies.set(name, one);
    }
  }
  return {
    ready: nodes.every(({ ready }) => ready === true),
    nodes,
    pods,
    policies: [...policies]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, { errors, ...rest }]) => ({ name, ...rest, errors: [...errors] })),
  };
}

export function statusText({ nodes, pods, policies }: Merged): string {
  const of = (one: Fields, field: string): string => plain(text(one[field], "-"));
  const attachment = (pod: Fields): string => {
    const { kind, interface: name } = fields(pod["attachment"]);
    return plain(`${text(kind, "-")} ${text(name)}`.trim());
  };
  const enforced = (pod: Fields): string =>
    pod["guarded"] !== true ? "-" : pod["enforced"] === true ? "yes" : `NO: ${plain(text(pod["why"], "the agent is not ready"))}`;
  const state = (node: Fields): string =>
    node["why"] !== undefined ? `NO ANSWER: ${of(node, "why")}` : node["ready"] === true ? "ready" : "NOT READY";
  const lines = [
    ...table([
      ["NODE", "MODE", "IN EFFECT", "SINCE", "STATE"],
      ...nodes.map((node) => [of(node, "node"), of(node, "mode"), of(node, "effectiveMode"), of(node, "since"), state(node)]),
    ]),
    "",
    ...table([
      ["NODE", "POD", "MODE", "ENFORCED", "ATTACHMENT", "NAMES", "POLICIES"],
      ...pods.map((pod) => [
        of(pod, "node"),
        `${of(pod, "namespace")}/${of(pod, "name")}`,
        of(pod, "mode"),
        enforced(pod),
        attachment(pod),
        text(pod["bindings"], "0"),
        list(pod["policies"])
          .map((one) => plain(text(one)))
          .join(" ") || "-",
      ]),
    ]),
    "",
    ...table([
      ["POLICY", "MODE", "VALID", "IN FORCE ON"],
      ...policies.map((one) => [
        of(one, "name"),
        of(one, "mode"),
        one["valid"] === true ? "yes" : "NO",
        `${of(one, "inForce")} of ${of(one, "of")} nodes`,
      ]),
    ]),
    ...policies.flatMap((one) => list(one["errors"]).map((error) => `  ${plain(text(error))}`)),
  ];
  return `${lines.join("\n")}\n`;
}

/** The answer's objects, whether it is one array, one object with a list, or an object a line. */
export function rows(value: unknown): readonly Fields[] {
  if (Array.isArray(value)) return value.map(fields);
  const lists = Object.values(fields(value)).filter((one) => Array.isArray(one));
  return lists.length === 1 ? list(lists[0]).map(fields) : value === undefined ? [] : [fields(value)];
}

/**
 * A rule is unused when every agent that answered says so: a rule that one node needs is needed. `hits` add up, and the
 * latest `lastHit` and `observedSince` stand (RFC 3339 in UTC sorts as text). It is conclusive when every answer is.
 */
export function mergeUnused(answers: readonly Answer[]): readonly Fields[] {
  const answered = answers.filter(({ why }) => why === undefined);
  const seen = new Map<string, { rule: Fields; count: number; hits: number; lastHit: string; since: string; conclusive: boolean }>();
  for (const { value } of answered) {
    const mine = new Map(rows(value).map((row) => [JSON.stringify([row["policy"], row["rule"]]), row]));
    for (const [key, row] of mine) {
      const one = seen.get(key) ?? { rule: row, count: 0, hits: 0, lastHit: "", since: "", conclusive: true };
      one.count++;
      one.hits += typeof row["hits"] === "number" ? row["hits"] : 0;
      if (text(row["lastHit"]) > one.lastHit) one.lastHit = text(row["lastHit"]);
      if (text(row["observedSince"]) > one.since) one.since = text(row["observedSince"]);
      one.conclusive &&= row["conclusive"] !== false;
      seen.set(key, one);
    }
  }
  return [...seen.values()]
    .filter(({ count }) => count === answered.length)
    .map(({ rule, hits, lastHit, since, conclusive }) => ({
      ...rule,
      hits,
      lastHit: lastHit === "" ? null : lastHit,
      ...(since === "" ? {} : { observedSince: since, conclusive }),
      nodes: answered.length,
    }));
}
