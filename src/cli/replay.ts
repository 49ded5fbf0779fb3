import { readFileSync, statSync } from "node:fs";
import { Fault, messageOf } from "../base/fault.ts";
import { readCapture } from "../capture/file.ts";
import { readPods } from "../inputs/files/pods.ts";
import { ManifestFolder, readText } from "../inputs/files/watch.ts";
import type { Snapshot } from "../model/snapshot.ts";
import { mergeDocuments, readManifests, type ReadResult } from "../policy/read.ts";
import { asText } from "./check.ts";
import { type Replay, type Replayed, replayCapture } from "./replay-judge.ts";
import { table } from "./status.ts";
import { format, options, type Output, Usage } from "./usage.ts";

const USAGE = `usage: namegate replay CAPTURE [--policies DIR] [--pods FILE] [--namespace NAME] [-o text|json]

Judges the connections of a capture file (pcap or pcapng) as the agent would have, without an agent and without privilege.
Only replies of the resolvers that the pods file lists teach names, to the pod that asked.

  --policies DIR        ConfigMap manifests (*.yaml); without policies or pods nothing is judged
  --pods FILE           the pods and the resolvers, as for \`namegate agent\`
  --namespace NAME      ClusterEgressPolicies count only in ConfigMaps of this namespace (default: in all)
  -o, --output FORMAT   text, or json: one object a connection

exit code: 0 judged, 1 problems in the policies or in the pods file, 2 wrong usage or an unreadable file
`;

const EMPTY: Snapshot = { policies: [], pods: [], resolvers: [], namespaces: {}, interfacePrefixes: [] };

/** `namegate replay`: what would have happened to the connections of this capture? Returns the exit code. */
export async function replay(argv: readonly string[], out: Output): Promise<number> {
  const text = { type: "string" } as const;
  const { values, positionals } = options(argv, USAGE, { policies: text, pods: text, namespace: text, output: { ...text, short: "o" } });
  const kind = format(values.output);
  const [file, ...more] = positionals;
  if (file === undefined || more.length > 0)
    throw new Usage(`namegate replay: ${file === undefined ? "which capture file?" : "one capture file at a time"}\n${USAGE}`);
  const inputs = readInputs(values.policies, values.pods, values.namespace);
  if (inputs.found.problems.length > 0) {
    (kind === "json" ? out.stderr : out.stdout).write(asText(inputs.found, inputs.texts));
    return 1;
  }
  if ((values.policies === undefined) !== (values.pods === undefined))
    out.stderr.write("namegate replay: without both --policies and --pods nothing is judged\n");
  const capture = readCapture(readBytes(file));
  const result = replayCapture(capture, inputs.snapshot);
  const { fault } = capture;
  if (fault?.code === "capture-format") throw new Fault(fault.code, `${file}: ${fault.message}`, fault.fix);
  if (fault !== undefined) out.stderr.write(`namegate replay: warning: ${file}: ${fault.message}\n`);
  const unread = unreadOf(result, capture.frames, capture.skipped);
  if (unread !== "") out.stderr.write(`namegate replay: not read: ${unread}\n`);
  out.stdout.write(kind === "json" ? asJson(result.connections) : asTable(result.connections));
  return 0;
}

function readBytes(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new Fault("capture-unreadable", `the capture cannot be read: ${messageOf(error)}`, "name a readable pcap or pcapng file", error);
  }
}

interface Inputs {
  readonly snapshot: Snapshot;
  /** Policies and the problems of both inputs. */
  readonly found: ReadResult;
  readonly texts: ReadonlyMap<string, string>;
}

/** The same files as the agent's; all of them good, or none is used. */
function readInputs(folder: string | undefined, podsFile: string | undefined, clusterNamespace: string | undefined): Inputs {
  const texts = new Map<string, string>();
  for (const { file, text } of folder === undefined ? [] : policyFiles(folder)) texts.set(file, text);
  const found = mergeDocuments([...texts].map(([file, text]) => readManifests(file, text, { clusterNamespace })));
  if (podsFile === undefined) return { snapshot: { ...EMPTY, policies: found.policies }, found, texts };
  const { text, why } = readText(podsFile);
  if (text === undefined) throw new Fault("pods-file", `the pods file cannot be read: ${why}`, "name a readable file with --pods");
  texts.set(podsFile, text);
  const { pods, problems } = readPods(podsFile, text);
  found.problems.push(...problems);
  return { snapshot: { ...EMPTY, ...pods, policies: found.policies }, found, texts };
}

function policyFiles(folder: string): readonly { readonly file: string; readonly text: string }[] {
  const fix = "name a readable folder of *.yaml files with --policies";
  try {
    if (!statSync(folder).isDirectory()) return [{ file: folder, text: readFileSync(folder, "utf8") }];
    const { files, failed } = new ManifestFolder(folder).read();
    const [first] = failed;
    if (first !== undefined) throw new Fault("policies", `${first.file} cannot be read: ${first.why}`, fix);
    return files;
  } catch (error) {
    throw error instanceof Fault ? error : new Fault("policies", `the policies cannot be read: ${messageOf(error)}`, fix, error);
  }
}

/** What the capture has besides connections that were read; "" when there is nothing worth a word. */
function unreadOf({ flows }: Replay, frames: number, skipped: number): string {
  const parts: string[] = [];
  if (frames > 0 && skipped === frames) parts.push(`none of ${frames} frames holds an IP packet`);
  if (flows.malformed > 0) parts.push(`${flows.malformed} malformed packets`);
  if (flows.fragmentsDropped > 0) parts.push(`${flows.fragmentsDropped} incomplete fragmented datagrams`);
  if (flows.ignored > 0) parts.push(`${flows.ignored} packets of more connections than are read`);
  return parts.join(", ");
}

function asJson(connections: readonly Replayed[]): string {
  return connections.map(({ line }) => `${JSON.stringify(line)}\n`).join("");
}

function asTable(connections: readonly Replayed[]): string {
  const rows = connections.map((connection) => {
    const { line, names } = connection;
    const known = [...new Set(names.map(({ name, fresh }) => (fresh ? name : `(${name})`)))];
    return [
      line.transport,
      line.client,
      line.server,
      line.application ?? "-",
      known.length > 2 ? `${known[0]} +${known.length - 1}` : known.join(" ") || "-",
      line.serverName ?? "-",
      line.verdict ?? "-",
      reason(connection),
    ];
  });
  const lines =
    rows.length === 0
      ? []
      : table([["", "CLIENT", "SERVER", "APPLICATION", "DNS NAME", "SERVER NAME", "VERDICT", "RULE OR REASON"], ...rows]);
  return `${[...lines, summary(connections)].join("\n")}\n`;
}

function reason({ line: { why, policy, rule }, nearest }: Replayed): string {
  const decided = policy === null ? "" : `${policy}/${rule}`;
  if (why === null) return decided;
  const near = nearest === undefined ? "" : ` (nearest: ${nearest.policy}/${nearest.rule}, its ${nearest.clause})`;
  return `${why}${decided === "" ? "" : ` by ${decided}`}${near}`;
}

function summary(connections: readonly Replayed[]): string {
  const count = (verdict: string | null): number => connections.filter(({ line }) => line.verdict === verdict).length;
  const would = count("would-deny");
  return `${connections.length} connections: ${count("allow")} allowed, ${count("deny")} denied${would > 0 ? `, ${would} would be denied` : ""}, ${count(null)} unknown`;
}
