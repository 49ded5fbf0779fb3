import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { readCapture } from "../../src/capture/file.ts";
import { replayCapture, type ReplayLine } from "../../src/cli/replay-judge.ts";

/** The labelled captures of NAMEGATE_CORPUS against what `namegate replay` says of them. */

/** One flow of a labels.jsonl. */
export interface Label {
  readonly proto: string;
  readonly client: string;
  readonly server: string;
  readonly l7: string | null;
  readonly upgrade?: string | null;
  readonly server_name: string | null;
  readonly status: string;
}
export interface Scored {
  readonly file: string;
  readonly label: Label;
  /** What replay says of the first connection between these ends; undefined when it has none. */
  readonly line: ReplayLine | undefined;
}

const NOTHING = { policies: [], pods: [], resolvers: [], namespaces: {}, interfacePrefixes: [] };

export function readCorpus(folder: string): Scored[] {
  const scored: Scored[] = [];
  for (const set of ["captures", "generated"]) {
    const labels = join(folder, set, "labels.jsonl");
    if (!existsSync(labels)) continue;
    for (const text of readFileSync(labels, "utf8").trim().split("\n")) {
      const { file, flows } = JSON.parse(text) as { readonly file: string; readonly flows: readonly Label[] };
      const lines = new Map<string, ReplayLine>();
      for (const { line } of replayCapture(readCapture(readFileSync(join(folder, set, file))), NOTHING).connections) {
        const ends = `${line.transport} ${line.client} ${line.server}`;
        if (!lines.has(ends)) lines.set(ends, line);
      }
      for (const label of flows) scored.push({ file, label, line: lines.get(`${label.proto} ${label.client} ${label.server}`) });
    }
  }
  return scored;
}

/** A label we believe wrong, and why: `file client` in the words of the labels. `says` counts as right beside the label. */
export interface Doubt {
  readonly flow: string;
  readonly says: string | null;
  readonly why: string;
}

export type Outcome = "right" | "wrong" | "missed";

export function outcome({ file, label, line }: Scored, doubts: readonly Doubt[]): Outcome {
  const doubt = doubts.find(({ flow }) => flow === `${file} ${label.client}`);
  const said = line?.application ?? null;
  if (said === label.l7 || (doubt !== undefined && said === doubt.says)) return "right";
  return said === null ? "missed" : "wrong";
}

/** Right, where the label has a name; undefined where it has none, or the label is in doubt. */
export function nameRight({ label, line }: Scored): boolean | undefined {
  if (label.server_name === null) return undefined;
  return line?.serverName?.toLowerCase() === label.server_name.toLowerCase();
}

export interface Row {
  flows: number;
  right: number;
  wrong: number;
  named: number;
  names: number;
}

/** Rows by `of`, most flows first; flows without an application or in dispute are left out. */
export function rows(scored: readonly Scored[], doubts: readonly Doubt[], of: (one: Scored) => string): [string, Row][] {
  const found = new Map<string, Row>();
  for (const one of scored) {
    if (!counts(one)) continue;
    const row = found.get(of(one)) ?? { flows: 0, right: 0, wrong: 0, named: 0, names: 0 };
    found.set(of(one), row);
    row.flows++;
    const came = outcome(one, doubts);
    if (came === "right") row.right++;
    if (came === "wrong") row.wrong++;
    const right = nameRight(one);
    if (right !== undefined) row.named++;
    if (right === true) row.names++;
  }
  return [...found].sort(([, a], [, b]) => b.flows - a.flows);
}

export const counts = ({ label }: Scored): boolean => label.l7 !== null && label.status !== "disputed";

export function table(list: readonly [string, Row][]): string {
  const head = ["", "flows", "identified", "wrong", "names right"];
  const lines = list.map(([of, { flows, right, wrong, named, names }]) => [
    of,
    String(flows),
    String(right),
    wrong === 0 ? "" : String(wrong),
    named === 0 ? "" : `${names} of ${named}`,
  ]);
  return [head, ...lines].map((cells) => cells.map((cell, i) => (i === 0 ? cell.padEnd(16) : cell.padStart(12))).join("")).join("\n");
}

/** `node dist/test/inspect/score.js [APPLICATION...]`: the flows that are not right, of these applications or of all. */
if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const wanted = process.argv.slice(2);
  for (const one of readCorpus(process.env["NAMEGATE_CORPUS"] ?? "")) {
    const { file, label, line } = one;
    if (wanted.length > 0 && !wanted.includes(label.l7 ?? "null")) continue;
    const came = counts(one) ? outcome(one, []) : (line?.application ?? null) === null ? "right" : "unlabelled";
    if (came !== "right" || (counts(one) && nameRight(one) === false))
      console.log(
        came === "right" ? "name" : came,
        file,
        label.proto,
        label.client,
        label.server,
        `${label.l7}/${label.server_name} (${label.status})`,
        line === undefined ? "no such connection" : `${line.application}/${line.serverName}`,
      );
  }
}
