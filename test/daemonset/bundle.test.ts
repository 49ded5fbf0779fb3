import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { MAIN } from "../support/agent.ts";
import { bundleFor, folderFor } from "../support/image.ts";
import { ROOT, skip } from "../support/need.ts";

/** The bundle, far from the checkout: the commands that need no agent. (test/system/capabilities.test.ts runs agents out of it.) */
const options = { skip: skip({ addon: true }) };
const cleaning: (() => void)[] = [];
const scope = { after: (done: () => void) => void cleaning.push(done) } as unknown as Parameters<typeof folderFor>[0];
after(() => cleaning.forEach((done) => done()));
const bundle = options.skip === false ? bundleFor(scope).bundle : "";
const FIXTURES = join(ROOT, "test", "capture", "fixtures");

function run(main: string, ...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...argv], { encoding: "utf8", cwd: "/", timeout: 30_000 });
  return { status, stdout, stderr };
}

test("says the same as the checkout", options, () => {
  const policy = join(ROOT, "test", "policy", "fixtures", "shop.yaml");
  const broken = join(ROOT, "test", "policy", "fixtures", "broken.yaml");
  const captures = readdirSync(FIXTURES).map((name) => join(FIXTURES, name));
  assert.ok(captures.length > 0);
  const commands = [
    ["--help"],
    ["version"],
    ["agent", "--help"],
    ["check", policy],
    ["check", broken, "-o", "json"],
    ["replay", captures[0] as string, "-o", "json"],
    ["nonsense"],
  ];
  for (const command of commands) assert.deepEqual(run(join(bundle, "main.js"), ...command), run(MAIN, ...command), command.join(" "));
});

test("what needs a checkout says so", options, () => {
  const got = run(join(bundle, "main.js"), "demo");
  assert.equal(got.status, 2);
  assert.match(got.stderr, /demo is not in the bundle\n {2}fix: run it from a checkout: npm run demo/);
});

test("the addons are inside, pcap as far as it is built here", options, () => {
  assert.ok(statSync(join(bundle, "native", "build", "Release", "namegate.node")).size > 10_000);
  const pcap = join("node_modules", "pcap", "build", "Release", "pcap_binding.node");
  assert.equal(existsSync(join(bundle, pcap)), existsSync(join(ROOT, pcap)));
  if (!existsSync(join(bundle, pcap))) return;
  const code = `import { createRequire } from "node:module"; createRequire(${JSON.stringify(join(bundle, "chunks", "x.js"))})("pcap");`;
  const got = spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8", cwd: "/" });
  assert.equal(got.status, 0, got.stderr);
});

test("the page's files are inside, all of them and as they are", options, () => {
  const page = join(ROOT, "src", "page", "static");
  const files = readdirSync(page);
  assert.ok(files.includes("index.html"));
  assert.deepEqual(readdirSync(join(bundle, "chunks", "static")).sort(), [...files].sort());
  for (const file of files) assert.deepEqual(readFileSync(join(bundle, "chunks", "static", file)), readFileSync(join(page, file)), file);
});

test("no thread of the agent ever reads the Kubernetes client", options, () => {
  const inStart = closure([join(bundle, "main.js"), ...chunksOf("agent"), ...chunksOf("agent-cluster")]);
  const thread = closure([join(bundle, "worker", "thread.js")]);
  for (const file of [...inStart, ...thread]) assert.doesNotMatch(readFileSync(file, "utf8"), /node_modules\/@kubernetes\//, file);
  const pino = [...inStart].filter((file) => /node_modules\/pino\//.test(readFileSync(file, "utf8")));
  assert.ok(pino.length > 0, "the check finds what is there");
});

test("a kubeconfig is read by a process of its own, which has the Kubernetes client", options, () => {
  const folder = folderFor(scope);
  const file = join(folder, "config");
  const cluster = { server: "https://192.0.2.1:6443", "insecure-skip-tls-verify": true };
  writeFileSync(
    file,
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
      clusters: [{ name: "k", cluster }],
      users: [{ name: "u", user: { token: "secret" } }],
    }),
  );
  const got = run(join(bundle, "chunks", "kubeconfig-process.js"), file);
  const answer = JSON.parse(got.stdout || assert.fail(got.stderr)) as { credentials: { server: string; headers: object } };
  assert.equal(answer.credentials.server, cluster.server);
  assert.deepEqual(answer.credentials.headers, { Authorization: "Bearer secret" });
});

test("every package inside has its licence told", options, () => {
  const told = readFileSync(join(bundle, "LICENSES.txt"), "utf8");
  for (const name of ["pino", "ajv", "yaml", "lru-cache"]) assert.match(told, new RegExp(`^${name} \\d`, "m"));
  assert.doesNotMatch(told, /GPL/);
});

test("the kubectl plugin is one file that needs nothing beside it", options, () => {
  const folder = folderFor(scope);
  const alone = join(folder, "kubectl-namegate");
  copyFileSync(join(bundle, "bin", "kubectl-namegate"), alone);
  const got = spawnSync(alone, ["--help"], { encoding: "utf8", cwd: "/" });
  assert.equal(got.status, 0, got.stderr);
  assert.match(got.stdout, /^usage: kubectl namegate COMMAND/);
});

function chunksOf(command: string): string[] {
  const names = readdirSync(join(bundle, "chunks")).filter((name) => name.startsWith(`${command}-`));
  assert.ok(names.length > 0, names.join());
  return names.map((name) => join(bundle, "chunks", name));
}

/** These files and what they import statically. */
function closure(files: readonly string[]): Set<string> {
  const found = new Set<string>();
  const visit = (file: string): void => {
    if (found.has(file)) return;
    found.add(file);
    for (const [, path] of readFileSync(file, "utf8").matchAll(
      /^(?:import|export)[^;]*?from ["'](\.[^"']+)["'];|^import ["'](\.[^"']+)["'];/gm,
    )) {
      if (path !== undefined) visit(join(file, "..", path));
    }
  };
  for (const file of files) visit(file);
  return found;
}
