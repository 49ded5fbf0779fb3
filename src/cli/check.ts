import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { messageOf } from "../base/fault.ts";
import type { Problem } from "../model/policy.ts";
import { mergeDocuments, readManifests, type ReadResult } from "../policy/read.ts";

export interface Writer {
  write(text: string): unknown;
}
export interface Output {
  readonly stdout: Writer;
  readonly stderr: Writer;
}

const USAGE = `usage: namegate check FILE… [-o text|json] [--cluster-namespace NAME]

Reads policies from ConfigMap manifests (or bare policies) and prints every problem.
A folder stands for its *.yaml, *.yml and *.json files, and those of its folders.

  -o, --output text|json       how to print (default text)
  --cluster-namespace NAME     the namespace where ClusterEgressPolicies may be (default: any)

exit code: 0 no problem, 1 problems, 2 wrong usage or an unreadable file
`;

/** Folders within folders; a link may lead in a circle. */
const DEPTH_MAX = 8;
/** Characters of a source line shown under a problem. */
const SHOWN_MAX = 160;

/** `namegate check`: what is wrong with these policies? Returns the exit code. */
export async function check(argv: readonly string[], out: Output): Promise<number> {
  const wanted = readArguments(argv);
  if (typeof wanted === "string") {
    if (wanted === "") out.stdout.write(USAGE);
    else out.stderr.write(`namegate check: ${wanted}\n\n${USAGE}`);
    return wanted === "" ? 0 : 2;
  }
  const texts = new Map<string, string>();
  const results: ReadResult[] = [];
  let unreadable = 0;
  for (const argument of wanted.files) {
    try {
      for (const file of await filesOf(argument)) {
        if (texts.has(file)) continue;
        const text = await readFile(file, "utf8");
        texts.set(file, text);
        results.push(readManifests(file, text, { clusterNamespace: wanted.clusterNamespace }));
      }
    } catch (error) {
      unreadable++;
      out.stderr.write(`namegate check: ${argument}: ${messageOf(error)}\n`);
    }
  }
  const merged = mergeDocuments(results);
  out.stdout.write(wanted.json ? asJson(merged, texts.size) : asText(merged, texts));
  if (unreadable > 0) return 2;
  return merged.problems.length > 0 ? 1 : 0;
}

interface Arguments {
  readonly files: readonly string[];
  readonly json: boolean;
  readonly clusterNamespace: string | undefined;
}

/** The arguments, or what is wrong with them; "" asks for help. */
function readArguments(argv: readonly string[]): Arguments | string {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        output: { type: "string", short: "o", default: "text" },
        "cluster-namespace": { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) return "";
    if (values.output !== "text" && values.output !== "json") return `-o ${values.output} is not known; use text or json`;
    if (positionals.length === 0) return "which file?";
    return { files: positionals, json: values.output === "json", clusterNamespace: values["cluster-namespace"] };
  } catch (error) {
    return messageOf(error);
  }
}

async function filesOf(path: string, depth = 0): Promise<string[]> {
  if (!(await stat(path)).isDirectory()) return [path];
  if (depth >= DEPTH_MAX) return [];
  const files: string[] = [];
  const entries = await readdir(path, { withFileTypes: true });
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.name.startsWith(".")) continue; // as Kubernetes mounts them: ..data
    if (entry.isDirectory()) files.push(...(await filesOf(join(path, entry.name), depth + 1)));
    else if (/\.(ya?ml|json)$/.test(entry.name)) files.push(join(path, entry.name));
  }
  return files;
}

function asJson({ policies, problems, documents }: ReadResult, files: number): string {
  const found = documents.map(({ id, file, line, valid }) => ({ id, file, line, valid }));
  return `${JSON.stringify({ valid: problems.length === 0, files, policies: policies.map(({ id }) => id), documents: found, problems }, undefined, 2)}\n`;
}

/** `texts`: the files by name, for the lines to show. */
export function asText({ policies, problems }: ReadResult, texts: ReadonlyMap<string, string>): string {
  const lines = new Map([...texts].map(([file, text]) => [file, text.split(/\r?\n/)]));
  let text = "";
  for (const problem of problems) text += problemText(problem, lines.get(problem.file)?.[problem.line - 1]);
  if (problems.length > 0) text += "\n";
  text += `${count(texts.size, "file", "files")}, ${count(policies.length, "valid policy", "valid policies")}, ${count(problems.length, "problem", "problems")}\n`;
  if (policies.length === 0 && problems.length === 0)
    text += '  hint: a ConfigMap with policies has the label namegate.dev/policy: "true"\n';
  return text;
}

/** `file:line:column: path: message`, the line with a caret under the column, and the hint. */
function problemText({ file, line, column, path, message, hint }: Problem, source: string | undefined): string {
  let text = `${file}:${line}:${column}: ${path === "" ? "" : `${path}: `}${message}\n`;
  if (source !== undefined && source.trim() !== "") {
    const from = Math.max(0, column - 1 - SHOWN_MAX / 2);
    const shown = source.slice(from, from + SHOWN_MAX);
    const margin = `  ${line} | `;
    // Tabs stay tabs, so that the caret stands below its character whatever their width.
    text += `${margin}${shown.replace(/[^\P{Cc}\t]/gu, "?")}\n`;
    text += `${" ".repeat(margin.length - 2)}| ${shown.slice(0, Math.max(0, column - 1 - from)).replace(/[^\t]/g, " ")}^\n`;
  }
  return hint === undefined ? text : `${text}  hint: ${hint}\n`;
}

const count = (number: number, one: string, many: string): string => `${number} ${number === 1 ? one : many}`;
