import { isAlias, isCollection, isMap, isScalar, isSeq, LineCounter, parseAllDocuments, type Node, type Pair } from "yaml";
import { messageOf } from "../base/fault.ts";
import { show } from "./words.ts";

/** Findings of one document; more are not kept. */
const FINDINGS_MAX = 1000;
/** Nesting of maps and lists; a policy needs ten. */
export const DEPTH_MAX = 32;

export type Path = readonly (string | number)[];

/** A problem at a place of a text: `offset` counts UTF-16 units from the start of the text. */
export interface Finding {
  readonly offset: number;
  readonly path: Path;
  readonly message: string;
  readonly hint: string | undefined;
}

export interface YamlDocument {
  /** Plain data: objects without a prototype, arrays, strings, numbers, booleans, null; undefined: an empty document. */
  readonly value: unknown;
  readonly root: Node | undefined;
  /** Where its content starts. */
  readonly offset: number;
  /** Syntax errors, duplicate keys, aliases, and so on. */
  readonly findings: readonly Finding[];
}

export interface YamlStream {
  readonly documents: readonly YamlDocument[];
  readonly lines: LineCounter;
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}

/** The text of a key; undefined when it is not a scalar. */
function keyText(pair: Pair): string | undefined {
  if (!isScalar(pair.key)) return undefined;
  return typeof pair.key.value === "string" ? pair.key.value : (pair.key.source ?? String(pair.key.value));
}

/** Turns nodes into plain data, by hand, so that size, depth and keys are ours to check. */
function plain(node: unknown, path: (string | number)[], findings: Finding[], fallback: number): unknown {
  const offset = startOf(node) ?? fallback;
  const find = (message: string, hint?: string, at = offset): void => {
    if (findings.length < FINDINGS_MAX) findings.push({ offset: at, path: [...path], message, hint });
  };
  if (isAlias(node)) {
    // An unquoted *.example.com is an alias to YAML, and the most common slip of all.
    if (node.source.startsWith("."))
      find(`${show(`*${node.source}`)} without quotes is an alias`, `put it in quotes: "*${node.source.slice(0, 60)}"`);
    else find("aliases (`*name`) are not allowed", "write the value out, or put quotes around it");
    return null;
  }
  if (isScalar(node)) return node.value ?? null;
  if (!isCollection(node)) return null;
  if (path.length >= DEPTH_MAX) {
    find(`nested more than ${DEPTH_MAX} deep`);
    return null;
  }
  if (isSeq(node)) {
    return node.items.map((item, i) => {
      path.push(i);
      const value = plain(item, path, findings, offset);
      path.pop();
      return value;
    });
  }
  const object = Object.create(null) as Record<string, unknown>;
  if (!isMap(node)) return object;
  const seen = new Set<string>();
  for (const pair of node.items) {
    const at = startOf(pair.key) ?? offset;
    const key = keyText(pair);
    if (key === undefined) {
      find("a key must be a plain word", undefined, at);
      continue;
    }
    path.push(key);
    if (seen.has(key)) find("the same key twice", "remove one of them", at);
    else if (key === "__proto__") find("unknown field `__proto__`", undefined, at);
    else object[key] = plain(pair.value, path, findings, at);
    seen.add(key);
    path.pop();
  }
  return object;
}

function syntaxHint(message: string): string | undefined {
  if (message.startsWith("Alias")) return 'text that starts with `*` needs quotes: "*.example.com"';
  if (message.startsWith("Tabs")) return "indent with spaces";
  return undefined;
}

/** Reads every document of a YAML (or JSON) stream. Never throws. */
export function parseYaml(text: string): YamlStream {
  const lines = new LineCounter();
  try {
    const parsed = parseAllDocuments(text, {
      lineCounter: lines,
      prettyErrors: false,
      uniqueKeys: false,
      merge: false,
      logLevel: "silent",
    });
    const documents: YamlDocument[] = [];
    for (const document of "empty" in parsed ? [] : parsed) {
      const findings: Finding[] = [];
      for (const { pos, message } of [...document.errors, ...document.warnings].slice(0, FINDINGS_MAX)) {
        findings.push({ offset: pos[0], path: [], message: `not YAML: ${message.replace(/\s+/g, " ")}`, hint: syntaxHint(message) });
      }
      const root = document.contents ?? undefined;
      const offset = startOf(root) ?? document.range[0];
      const empty = root === undefined || (isScalar(root) && root.value === null);
      const value = empty ? undefined : plain(root, [], findings, offset);
      if (!empty || findings.length > 0) documents.push({ value, root, offset, findings });
    }
    return { documents, lines };
  } catch (error) {
    // The library promises not to throw on text; a stack overflow on hostile nesting is what remains.
    const finding = { offset: 0, path: [], message: `cannot be read as YAML: ${messageOf(error)}`, hint: undefined };
    return { documents: [{ value: undefined, root: undefined, offset: 0, findings: [finding] }], lines };
  }
}

/** The node and its key at `path`, or of the nearest parent that is there. */
export function nodeAt(root: Node | undefined, path: Path): { node: Node | undefined; key: Node | undefined } {
  let node: unknown = root;
  let key: unknown;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => keyText(item) === step);
      if (pair === undefined) break;
      key = pair.key;
      node = pair.value;
    } else if (isSeq(node) && typeof step === "number" && step < node.items.length) {
      node = node.items[step];
      key = node;
    } else {
      break;
    }
  }
  return { node: (node ?? undefined) as Node | undefined, key: (key ?? undefined) as Node | undefined };
}

/** Where to point for a problem at `path`: at the value (or at the key), or at the nearest parent's. */
export function offsetAt(document: YamlDocument, path: Path, which: "key" | "value"): number {
  const { node, key } = nodeAt(document.root, path);
  const first = which === "key" || node === undefined ? key : isScalar(node) || key === undefined ? node : key;
  return startOf(first) ?? startOf(key) ?? document.offset;
}

/** `spec.egress[0].ports[1].port`; keys that are no words in quotes. */
export function pathText(path: Path): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (/^[A-Za-z_][A-Za-z0-9_-]{0,63}$/.test(step)) text += text === "" ? step : `.${step}`;
    else text += `[${JSON.stringify(step.slice(0, 64))}]`;
  }
  return text;
}
