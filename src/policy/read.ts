import { isMap, isScalar, isSeq, type Node, type Scalar } from "yaml";
import { messageOf } from "../base/fault.ts";
import type { PolicyId, Problem } from "../model/policy.ts";
import {
  addProblem,
  PROBLEMS_MAX,
  readPolicy,
  type DocumentPlace,
  type Locate,
  type ReadOptions,
  type ReadResult,
  type Sink,
} from "./document.ts";
import { fieldsOf } from "./fields.ts";
import { KINDS, type Kind } from "./schema.ts";
import { show } from "./words.ts";
import { nodeAt, offsetAt, parseYaml, pathText, type Path, type YamlDocument } from "./yaml.ts";

export type { ReadOptions, ReadResult } from "./document.ts";
export { PROBLEMS_MAX } from "./document.ts";

/** A ConfigMap holds at most 1 MiB (Kubernetes API); a quarter more for what YAML adds around it. */
export const TEXT_MAX = 1.25 * 2 ** 20;
/**
 * Punctuation and line breaks in the policies of one ConfigMap: what parsing costs, some 10 to 25 µs each on a slow core. A policy of
 * 4 KB has 600; a megabyte of brackets would keep the agents of all nodes busy for many seconds, and take all their memory.
 */
export const MARKS_MAX = 65_536;
export const POLICY_LABEL = "namegate.dev/policy";

/** The parts of a v1 ConfigMap that count. */
export interface ConfigMap {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly labels?: Readonly<Record<string, string>> | undefined };
  readonly data?: Readonly<Record<string, string>> | undefined;
}

const newSink = (file: string, options: ReadOptions): Sink => ({ file, options, result: { policies: [], problems: [], documents: [] } });

/**
 * Reads a YAML (or JSON) stream of manifests: v1 ConfigMaps with the label namegate.dev/policy: "true" (alone or in a
 * List), and bare policies. Everything else is passed over. Finds every problem, never throws; a document with a problem
 * gives no policy. `file` is only a name.
 */
export function readManifests(file: string, text: string, options: ReadOptions = {}): ReadResult {
  const sink = newSink(file, options);
  guarded(sink, () => {
    if (tooLong(text, sink)) return;
    const { documents, lines } = parseYaml(text);
    const locate: Locate = (offset) => position(lines.linePos(offset));
    for (const document of documents) readManifest(document, document.value, document.root, [], text, locate, sink);
  });
  return finish(sink);
}

/**
 * Reads one ConfigMap as the Kubernetes API gives it; whether it has the label is the caller's to know. Lines and columns
 * count in the data value, and `file` of a problem is `configmap/NAMESPACE/NAME:KEY`.
 */
export function readConfigMap(configMap: ConfigMap, options: ReadOptions = {}): ReadResult {
  const { metadata, data = {} } = configMap;
  const place = `configmap/${metadata.namespace}/${metadata.name}`;
  const results: ReadResult[] = [];
  const say = (sink: Sink) => (message: string, hint: string) => addProblem(sink, { line: 1, column: 1 }, "", message, hint);
  const fits = marksBudget();
  for (const [key, text] of Object.entries(data)) {
    const sink = newSink(`${place}:${key}`, options);
    guarded(sink, () => {
      if (!wantedKey(key, say(sink)) || tooLong(text, sink) || !fits(text, say(sink))) return;
      const { documents, lines } = parseYaml(text);
      for (const document of documents) readPolicy(document, metadata.namespace, (offset) => position(lines.linePos(offset)), sink);
    });
    results.push(finish(sink));
  }
  return mergeDocuments(results);
}

/** A mistake of ours must not end the agent, nor make half a file of policies: it becomes a problem, and the file gives none. */
function guarded(sink: Sink, read: () => void): void {
  try {
    read();
  } catch (error) {
    const { policies, documents } = sink.result;
    policies.length = 0;
    documents.forEach((document, i) => (documents[i] = { ...document, valid: false }));
    addProblem(sink, { line: 1, column: 1 }, "", `namegate failed on this file: ${messageOf(error)}`, "please report it, with the file");
  }
}

/** Joins what several files gave, in their order. A policy id that an earlier file has is a problem of the later one. */
export function mergeDocuments(results: readonly ReadResult[]): ReadResult {
  const first = new Map<PolicyId, DocumentPlace>();
  const merged: ReadResult = { policies: [], problems: [], documents: [] };
  for (const { policies, problems, documents } of results) {
    let taken: Set<PolicyId> | undefined;
    for (const problem of problems) merged.problems.push(problem);
    for (const document of documents) {
      const earlier = first.get(document.id);
      if (earlier === undefined) {
        first.set(document.id, document);
        merged.documents.push(document);
      } else {
        taken ??= new Set();
        taken.add(document.id);
        merged.problems.push(duplicate(document, earlier));
        merged.documents.push({ ...document, valid: false });
      }
    }
    for (const policy of policies) if (taken?.has(policy.id) !== true) merged.policies.push(policy);
  }
  return merged;
}

function duplicate(document: DocumentPlace, earlier: DocumentPlace): Problem {
  const { file, line, column } = document;
  const message = `the policy ${show(document.id)} is already in ${earlier.file}:${earlier.line}`;
  return { file, line, column, path: "metadata.name", message, hint: "remove one, or rename it" };
}

const position = ({ line, col }: { line: number; col: number }): { line: number; column: number } => ({
  line: Math.max(1, line),
  column: Math.max(1, col),
});

function tooLong(text: string, sink: Sink): boolean {
  if (text.length <= TEXT_MAX) return false;
  addProblem(sink, { line: 1, column: 1 }, "", `longer than ${TEXT_MAX} characters`, "a ConfigMap holds at most 1 MiB; split it");
  return true;
}

const MARKS: ReadonlySet<number> = new Set(Buffer.from("\n[]{},:?-&*!|>'\"%#@`"));

/** For the values of one ConfigMap, one after the other: are there few enough marks in all of them so far? */
function marksBudget(): (text: string, problem: (message: string, hint: string) => void) => boolean {
  let left = MARKS_MAX;
  return (text, problem) => {
    for (let i = 0; i < text.length && left >= 0; i++) if (MARKS.has(text.charCodeAt(i))) left--;
    if (left >= 0) return true;
    problem(
      `the policies of this ConfigMap have more than ${MARKS_MAX} line breaks and punctuation marks up to here`,
      "split it into several ConfigMaps",
    );
    return false;
  };
}

function finish({ file, result }: Sink): ReadResult {
  const { problems } = result;
  problems.sort((a, b) => a.line - b.line || a.column - b.column);
  if (problems.length > PROBLEMS_MAX) {
    const { line, column } = problems[PROBLEMS_MAX] as Problem;
    const rest = { file, line, column, path: "", message: "and more problems", hint: "repair the first ones and check again" };
    problems.splice(PROBLEMS_MAX, Infinity, rest);
  }
  return result;
}

/** One manifest: `value` at `path` of `document`. */
function readManifest(
  document: YamlDocument,
  value: unknown,
  root: Node | undefined,
  path: Path,
  text: string,
  locate: Locate,
  sink: Sink,
): void {
  const { apiVersion, kind, metadata, items } = fieldsOf(value);
  const problem = (at: Path, message: string, hint?: string): void =>
    addProblem(sink, locate(offsetAt(document, [...path, ...at], "key")), pathText([...path, ...at]), message, hint);
  const syntax = document.findings.filter((finding) => finding.path.length === 0);
  if (path.length === 0 && syntax.length > 0) {
    for (const { offset, message, hint } of syntax) addProblem(sink, locate(offset), "", message, hint);
    return;
  }
  if (kind === "List" || kind === "ConfigMapList") {
    if (path.length > 0 || !Array.isArray(items)) return;
    const node = nodeAt(root, ["items"]).node;
    for (const [i, item] of items.entries())
      readManifest(document, item, isSeq(node) ? (node.items[i] as Node) : undefined, ["items", i], text, locate, sink);
    return;
  }
  if (kind === "ConfigMap" && apiVersion === "v1") {
    const { labels, namespace = "default" } = fieldsOf(metadata);
    const label = fieldsOf(labels)[POLICY_LABEL];
    if (label === true) return problem(["metadata", "labels", POLICY_LABEL], "a label must be text", `put it in quotes: "true"`);
    if (label !== "true") return;
    const own = document.findings.filter((finding) => startsWith(finding.path, path));
    for (const { offset, path: at, message, hint } of own) addProblem(sink, locate(offset), pathText(at), message, hint);
    if (typeof namespace !== "string") return problem(["metadata", "namespace"], "must be text");
    if (own.length === 0) readData(document, root, path, namespace, text, locate, sink);
    return;
  }
  if (path.length > 0) return;
  if (KINDS.includes(kind as Kind) || (typeof apiVersion === "string" && apiVersion.startsWith("namegate.dev/"))) {
    const { namespace } = fieldsOf(metadata);
    readPolicy(document, typeof namespace === "string" ? namespace : "default", locate, { ...sink, options: {} });
  }
}

const startsWith = (path: Path, head: Path): boolean => head.every((step, i) => path[i] === step);

/** Is this data key to be read? `.yml` is a slip that would leave pods unguarded. */
function wantedKey(key: string, problem: (message: string, hint: string) => void): boolean {
  if (key.endsWith(".yml")) problem(`the key ${show(key)} would not be read`, `name it ${show(`${key.slice(0, -4)}.yaml`)}`);
  return key.endsWith(".yaml");
}

/** The data of a ConfigMap: each key ending in .yaml is a stream of policies. */
function readData(
  document: YamlDocument,
  root: Node | undefined,
  path: Path,
  namespace: string,
  text: string,
  locate: Locate,
  sink: Sink,
): void {
  const { node } = nodeAt(root, ["data"]);
  const fits = marksBudget();
  for (const pair of isMap(node) ? node.items : []) {
    const key = String((pair.key as Scalar).value);
    const at = [...path, "data", key];
    const keyPlace = locate((pair.key as Scalar).range?.[0] ?? document.offset);
    const problem = (message: string, hint: string | undefined): void => addProblem(sink, keyPlace, pathText(at), message, hint);
    if (!wantedKey(key, problem)) continue;
    const value = pair.value;
    if (!isScalar(value) || typeof value.value !== "string") {
      problem("must be text", "put `|` behind the key, and the policy indented below it");
      continue;
    }
    if (!fits(value.value, problem)) continue;
    const inner = parseYaml(value.value);
    const place = value.type === "BLOCK_LITERAL" ? blockLocate(value, value.value, text, locate) : undefined;
    for (const policy of inner.documents) {
      const locateInner: Locate = (offset) => {
        const { line, column } = position(inner.lines.linePos(offset));
        return place?.(line, column) ?? { ...keyPlace, note: `(line ${line}, column ${column} of ${show(key)})` };
      };
      readPolicy(policy, namespace, locateInner, sink);
    }
  }
}

/** Lines of a block scalar `|` stand as they are in the file, below its header and indented. */
function blockLocate(
  node: Scalar,
  value: string,
  text: string,
  locate: Locate,
): (line: number, column: number) => { line: number; column: number } {
  const header = locate(node.range?.[0] ?? 0).line;
  const inner = value.split("\n");
  const outer = text.slice(node.range?.[0] ?? 0, node.range?.[1] ?? 0).split(/\r?\n/);
  return (line, column) => {
    const content = inner[line - 1] ?? "";
    const written = outer[line];
    // The end of a block without a last line break: behind the last line that is there.
    if (written === undefined) return { line: header + outer.length - 1, column: (outer.at(-1) ?? "").length + 1 };
    return { line: header + line, column: column + Math.max(0, written.length - content.length) };
  };
}
