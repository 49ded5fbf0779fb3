import type { Policy, PolicyId, Problem } from "../model/policy.ts";
import { buildPolicy, policyId } from "./build.ts";
import { fieldsOf } from "./fields.ts";
import { API_VERSION, KINDS, schemaErrors, type Kind } from "./schema.ts";
import { checkMeaning } from "./semantics.ts";
import { oneOf, show, suggest } from "./words.ts";
import { offsetAt, pathText, type Finding, type Path, type YamlDocument } from "./yaml.ts";

/** More problems of one file are not listed. */
export const PROBLEMS_MAX = 200;
export interface ReadOptions {
  /** ClusterEgressPolicies are read from ConfigMaps of this namespace only; undefined: from all. */
  readonly clusterNamespace?: string | undefined;
}

/** A policy document that was found, valid or not. */
export interface DocumentPlace {
  readonly id: PolicyId;
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** Did it give a policy? If not, the last good one of this id stays. */
  readonly valid: boolean;
}

export interface ReadResult {
  readonly policies: Policy[];
  readonly problems: Problem[];
  readonly documents: DocumentPlace[];
  /** Files that were not read yet: what they gave before stays. `configmap/NAMESPACE/NAME` stands for all its keys. */
  readonly unread?: readonly string[];
}

/** Where an offset of a text is in the file that a person has: line and column from 1, and a note where that is not exact. */
export type Locate = (offset: number) => { readonly line: number; readonly column: number; readonly note?: string };

/** Where findings and policies of one file go. */
export interface Sink {
  readonly file: string;
  readonly options: ReadOptions;
  readonly result: ReadResult;
}

export function addProblem(sink: Sink, at: ReturnType<Locate>, path: string, message: string, hint: string | undefined): void {
  const { line, column, note } = at;
  sink.result.problems.push({ file: sink.file, line, column, path, message: note === undefined ? message : `${message} ${note}`, hint });
}

/** May a ConfigMap of this namespace hold such a policy? */
const mayHold = (kind: Kind, namespace: string, { clusterNamespace }: ReadOptions): boolean =>
  kind === "EgressPolicy" || clusterNamespace === undefined || clusterNamespace === namespace;

/** One policy document of a ConfigMap in `namespace`. */
export function readPolicy(document: YamlDocument, namespace: string, locate: Locate, sink: Sink): void {
  const findings: Finding[] = [...document.findings];
  const report = (path: Path, message: string, hint?: string, which: "key" | "value" = "value"): void => {
    findings.push({ offset: offsetAt(document, path, which), path, message, hint });
  };
  const { kind: written, apiVersion, metadata } = fieldsOf(document.value);
  const kind =
    typeof written === "string" ? (KINDS.find((known) => known === written) ?? (suggest(written, KINDS) as Kind | undefined)) : undefined;
  if (document.value !== undefined && kind === undefined) {
    const path = written === undefined ? [] : ["kind"];
    report(
      path,
      written === undefined ? "`kind` is missing" : `${typeof written === "string" ? show(written) : "this"} is no kind of policy`,
      `use kind: ${oneOf(KINDS)}`,
    );
    if (apiVersion !== API_VERSION) report(apiVersion === undefined ? [] : ["apiVersion"], `must have apiVersion: ${API_VERSION}`);
  } else if (kind !== undefined) {
    findings.push(...judgeDocument(kind, namespace, document, sink.options));
  }
  const { name, namespace: own } = fieldsOf(metadata);
  // Ids are printed: a name that no object can have, and that could paint on a terminal, has none.
  const named = kind !== undefined && typeof name === "string" && /^[\x21-\x7e]{1,253}$/.test(name);
  // A document in the wrong place has no claim to its id: a tenant's must not push out the cluster's own.
  const id = named && mayHold(kind, namespace, sink.options) ? policyId(kind, namespace, name) : undefined;
  if (named && kind === "EgressPolicy" && typeof own === "string" && own !== namespace) {
    report(["metadata", "namespace"], `${show(own)} is not the namespace of its ConfigMap`, `use ${show(namespace)}, or leave it out`);
  }
  const place =
    id === undefined ? undefined : { id, file: sink.file, ...lineOf(locate(offsetAt(document, ["metadata", "name"], "value"))) };
  const earlier = sink.result.documents.find((other) => other.id === id);
  if (place !== undefined && earlier !== undefined) {
    report(["metadata", "name"], `the policy ${show(place.id)} is already in ${earlier.file}:${earlier.line}`, "remove one, or rename it");
  }
  for (const { offset, path, message, hint } of findings) addProblem(sink, locate(offset), pathText(path), message, hint);
  const valid = kind !== undefined && findings.length === 0;
  if (valid) sink.result.policies.push(buildPolicy(kind, namespace, document.value));
  if (place !== undefined && earlier === undefined) sink.result.documents.push({ ...place, valid });
}

const lineOf = ({ line, column }: ReturnType<Locate>): { line: number; column: number } => ({ line, column });

/** What schema and meaning have against a document; where both see the same thing, the sentence of the latter. */
function judgeDocument(kind: Kind, namespace: string, document: YamlDocument, options: ReadOptions): Finding[] {
  const findings: Finding[] = [];
  const add = (path: Path, message: string, hint?: string, which: "key" | "value" = "value"): void => {
    if (findings.length <= PROBLEMS_MAX) findings.push({ offset: offsetAt(document, path, which), path, message, hint });
  };
  checkMeaning(kind, document.value, add);
  if (!mayHold(kind, namespace, options)) {
    add(
      ["kind"],
      `a ClusterEgressPolicy in the namespace ${show(namespace)}`,
      `only ConfigMaps of ${show(options.clusterNamespace ?? "")} may hold one; use EgressPolicy here`,
    );
  }
  const said = [...document.findings, ...findings].map(({ path }) => pathText(path));
  const heads = new Set(said.flatMap((path) => prefixes(path)));
  const errors = schemaErrors(kind, document.value);
  for (const error of errors) {
    const path = pathText(error.path);
    const better = said.includes(path) || (error.conditional && (heads.has(path) || prefixes(path).some((head) => said.includes(head))));
    if (better) continue;
    const twin = findings.some((other) => other.message === error.message && pathText(other.path) === path);
    if (!twin) add(error.path, error.message, error.hint, error.which);
  }
  // The schema is the one truth: nothing that it refuses passes for want of words.
  if (errors.length > 0 && findings.length + document.findings.length === 0) add([], "does not fit the schema");
  return findings;
}

/** `a`, `a.b` and `a.b[0]` of `a.b[0]`. */
function prefixes(path: string): string[] {
  const ends = [...path.matchAll(/[.[]/g)].map((match) => match.index);
  return [...ends.map((end) => path.slice(0, end)), path];
}
