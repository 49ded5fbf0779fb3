import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, posix, relative } from "node:path";
import { test } from "node:test";
import { ROOT } from "./support/need.ts";

/** Lines of a source file; STYLE: one noun a file. */
const LINES_MAX = 400;
const EVERYTHING = /^everything but `([^`]+)`$/;
const EFFECT_MODULES: Readonly<Record<string, string>> = {
  fs: "fs",
  "fs/promises": "fs",
  http: "http",
  http2: "https",
  https: "https",
  net: "net",
  tls: "tls",
  dgram: "dgram",
  dns: "dns",
  "dns/promises": "dns",
  child_process: "child_process",
  worker_threads: "worker_threads",
  module: "require",
};
const EFFECT_WORDS: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\b|\bnew Date\(\)/, "clock"],
  [/\bprocess\.exit\(/, "exit"],
  [/(?<![.\w])fetch\(/, "https"],
  [/\bnew WebSocket\(/, "net"],
];

interface Row {
  readonly imports: ReadonlySet<string>;
  readonly but: string | undefined;
  readonly touches: ReadonlySet<string>;
}
interface Source {
  /** From src/, `dns/query.ts`. */
  readonly path: string;
  /** Without comments. */
  readonly text: string;
  readonly lines: number;
}

const rows = readTable(readFileSync(join(ROOT, "ARCHITECTURE.md"), "utf8"));
const sources: Source[] = walk("src")
  .filter((path) => path.endsWith(".ts"))
  .map((path) => {
    const text = readFileSync(join(ROOT, path), "utf8");
    return { path: posix.relative("src", path), text: withoutComments(text), lines: text.split("\n").length };
  });

test("the table of ARCHITECTURE.md can be read", () => {
  for (const folder of [
    "base",
    "model",
    "capture",
    "dns",
    "names",
    "policy",
    "inspect",
    "verdict",
    "firewall",
    "alerts",
    "metrics",
    "cli",
  ]) {
    assert.ok(rows.has(folder), folder);
  }
  assert.deepEqual([...(rows.get("dns") as Row).imports], ["base", "model"]);
  assert.deepEqual([...(rows.get("dns") as Row).touches], []);
});

test("the checks find what is planted", () => {
  const plant = (path: string, text: string): string[] => judge({ path, text: withoutComments(text), lines: 1 });
  assert.deepEqual(plant("dns/x.ts", 'import { a } from "../base/name.ts";\nimport b from "./y.ts";\nimport { c } from "node:path";'), []);
  assert.deepEqual(plant("dns/x.ts", 'import type { a } from "../names/table.ts";'), ["dns/x.ts imports names"]);
  assert.deepEqual(plant("dns/x.ts", 'export * from "../names/table.ts";'), ["dns/x.ts imports names"]);
  assert.deepEqual(plant("dns/x.ts", 'const a = await import("node:fs/promises");'), ["dns/x.ts touches fs"]);
  assert.deepEqual(plant("dns/x.ts", 'import net from "net";'), ["dns/x.ts touches net"]);
  assert.deepEqual(plant("dns/x.ts", 'import {\n  decode,\n} from "dns-packet";'), ["dns/x.ts imports dns-packet"]);
  assert.deepEqual(plant("dns/x.ts", 'import { addon } from "../base/addon.ts";'), ["dns/x.ts touches addon"]);
  assert.deepEqual(plant("dns/x.ts", 'import { type Addon, RecordWord } from "../base/addon.ts";'), []);
  assert.deepEqual(plant("dns/x.ts", "const now = Date.now();"), ["dns/x.ts touches clock"]);
  assert.deepEqual(plant("dns/x.ts", "// Date.now() is for the wiring\n/* fetch( */"), []);
  assert.deepEqual(plant("cli/x.ts", 'import "../main.ts";'), ["cli/x.ts imports main.ts"]);
  assert.deepEqual(plant("nowhere/x.ts", ""), ["nowhere/x.ts is in no row of ARCHITECTURE.md"]);
  assert.deepEqual(openSwitches('switch (v.action) { case "a": break; default: f({}); }'), ["v.action"]);
  assert.deepEqual(openSwitches('switch (v.action) { case "a": break; default: return v satisfies never; }'), []);
  assert.deepEqual(openSwitches('switch (v.action) { case "a": if (x) {} break; }'), []);
});

test("imports and effects are those of the table", () => {
  assert.deepEqual(sources.flatMap(judge), []);
});

test(`no file of src has more than ${LINES_MAX} lines`, () => {
  assert.deepEqual(
    sources.filter((source) => source.lines > LINES_MAX + 1).map((source) => `${source.path}: ${source.lines}`),
    [],
  );
});

test("a switch on a closed union that has a default ends in `satisfies never`", () => {
  assert.deepEqual(
    sources.flatMap((source) => openSwitches(source.text).map((on) => `${source.path}: switch (${on})`)),
    [],
  );
});

test("only one C file knows Node", () => {
  const headers = walk("native").filter(
    (path) => /\.(c|cc|h)$/.test(path) && /node_api\.h|js_native_api/.test(readFileSync(join(ROOT, path), "utf8")),
  );
  assert.deepEqual(headers, ["native/addon.c"]);
});

test("no paths of a developer's machine, no registry host", () => {
  const text = /\.(ts|mjs|js|json|jsonc|md|ya?ml|c|h|gyp|sh|toml|tpl)$|Dockerfile$|^\.ci\/run$|\.npmrc$/;
  const here = ["/work" + "/", "/home" + "/", "/root" + "/", "/Users" + "/"];
  const found = walk(".")
    .filter((path) => text.test(path))
    .flatMap((path) => {
      const body = readFileSync(join(ROOT, path), "utf8");
      const words = here.filter((word) => new RegExp(`(?<![\\w.~-])${word}`).test(body));
      if (path === "package-lock.json" && body.includes('"resolved"')) words.push("resolved");
      if (path.endsWith(".npmrc") && body.includes("registry")) words.push("registry");
      return words.map((word) => `${path}: ${word}`);
    });
  assert.deepEqual(found, []);
});

/** `| `folder` | purpose | `a`, `b` | `fs` |` */
function readTable(text: string): Map<string, Row> {
  const found = new Map<string, Row>();
  for (const line of text.split("\n")) {
    const cells = line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    const folder = /^`([^`]+)`$/.exec(cells[0] ?? "")?.[1];
    if (folder === undefined || cells.length !== 4) continue;
    const words = (cell: string | undefined): Set<string> =>
      new Set([...(cell ?? "").matchAll(/`([^`]+)`/g)].map((match) => match[1] as string));
    const but = EVERYTHING.exec(cells[2] ?? "")?.[1];
    found.set(folder, { imports: but === undefined ? words(cells[2]) : new Set(), but, touches: words(cells[3]) });
  }
  return found;
}

/** The row of a file: the longest name that is the file or a folder above it. */
function rowOf(path: string): string | undefined {
  const names = [...rows.keys()].filter((name) => path === name || path.startsWith(`${name}/`));
  return names.sort((a, b) => b.length - a.length)[0];
}

function judge({ path, text }: Source): string[] {
  const name = rowOf(path);
  const row = name === undefined ? undefined : rows.get(name);
  if (name === undefined || row === undefined) return [`${path} is in no row of ARCHITECTURE.md`];
  const problems = new Set<string>();
  const allowed = (what: string): boolean => (row.but === undefined ? row.imports.has(what) : what !== row.but);
  const touches = (what: string): void => {
    if (!row.touches.has(what)) problems.add(`${path} touches ${what}`);
  };
  for (const { from, names } of importsOf(text)) {
    const builtin = from.replace(/^node:/, "");
    if (from.startsWith(".")) {
      const target = posix.join(posix.dirname(path), from);
      const other = rowOf(target) ?? target;
      if (other !== name && !allowed(other)) problems.add(`${path} imports ${other}`);
      if (target === "base/addon.ts" && /(?<!type )\baddon\b/.test(names)) touches("addon");
    } else if (builtin in EFFECT_MODULES) {
      touches(EFFECT_MODULES[builtin] as string);
    } else if (!from.startsWith("node:")) {
      const parcel = from
        .split("/")
        .slice(0, from.startsWith("@") ? 2 : 1)
        .join("/");
      if (!allowed(parcel)) problems.add(`${path} imports ${parcel}`);
    }
  }
  for (const [word, effect] of EFFECT_WORDS) if (word.test(text)) touches(effect);
  return [...problems];
}

/** Static, re-exporting, bare and dynamic imports; `names` is what stands between the braces, empty for `import type`. */
function importsOf(text: string): { from: string; names: string }[] {
  const found: { from: string; names: string }[] = [];
  for (const match of text.matchAll(/\b(?:import|export)\s+(type\s+)?([\w*{][^;"']*?)\s*\bfrom\s*["']([^"']+)["']/g)) {
    found.push({ from: match[3] as string, names: match[1] === undefined ? (match[2] as string) : "" });
  }
  for (const match of text.matchAll(/\bimport\s*\(?\s*["']([^"']+)["']|\brequire(?:\.resolve)?\(\s*["']([^"']+)["']/g)) {
    found.push({ from: (match[1] ?? match[2]) as string, names: "" });
  }
  return found;
}

/** The discriminants of switches over a closed union of the model whose default hides what is not handled. */
function openSwitches(text: string): string[] {
  const found: string[] = [];
  for (const match of text.matchAll(/\bswitch \(([^()]*\b(?:action|tier|mode|via|clause|why|verdict|effect))\) \{/g)) {
    let depth = 1;
    let end = match.index + match[0].length;
    for (; end < text.length && depth > 0; end++) depth += text[end] === "{" ? 1 : text[end] === "}" ? -1 : 0;
    const body = text.slice(match.index, end);
    if (body.includes('case "') && /\bdefault:/.test(body) && !body.includes("satisfies never")) found.push(match[1] as string);
  }
  return found;
}

/** Good enough for code that does not put `//` behind a quote without a colon before it. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:"'`\\])\/\/.*$/gm, "$1");
}

function walk(folder: string): string[] {
  const skipped = /^(node_modules|dist.*|build|coverage|\.git|fixtures)$/;
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    if (skipped.test(entry.name)) return [];
    const path = relative(ROOT, join(ROOT, folder, entry.name));
    return entry.isDirectory() ? walk(path) : entry.isFile() ? [path] : [];
  });
}
