import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { mergeUnused, plain } from "../../src/cli/kubectl-merge.ts";
import { API_SERVER, startApiServer } from "../support/apiserver.ts";
import { need, ROOT } from "../support/need.ts";
import type { FakeAgent, FakeCluster } from "./fake-kubectl.ts";

const PLUGIN = join(ROOT, "dist", "src", "kubectl.js");
const FAKE = fileURLToPath(new URL("./fake-kubectl.js", import.meta.url));

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** kubectl's arguments, call by call. */
  readonly calls: readonly (readonly string[])[];
  readonly ms: number;
}

function placeFor(t: TestContext, cluster: FakeCluster): { env: NodeJS.ProcessEnv; folder: string; log: string } {
  const folder = mkdtempSync(join(tmpdir(), "namegate-kubectl-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const kubectl = join(folder, "kubectl");
  writeFileSync(kubectl, `#!/bin/sh\nexec "${process.execPath}" "${FAKE}" "$@"\n`);
  chmodSync(kubectl, 0o755);
  writeFileSync(join(folder, "cluster.json"), JSON.stringify(cluster));
  const log = join(folder, "calls");
  writeFileSync(log, "");
  const env = {
    ...process.env,
    PATH: `${folder}${delimiter}${process.env["PATH"]}`,
    FAKE_KUBECTL: join(folder, "cluster.json"),
    FAKE_KUBECTL_LOG: log,
  };
  return { env, folder, log };
}

function run(t: TestContext, cluster: FakeCluster, ...argv: string[]): Ran {
  const { env, log } = placeFor(t, cluster);
  const from = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, [PLUGIN, ...argv], { env, encoding: "utf8", timeout: 60_000 });
  const calls = readFileSync(log, "utf8")
    .split("\n")
    .flatMap((line) => (line === "" ? [] : [JSON.parse(line) as string[]]));
  return { status, stdout, stderr, calls, ms: performance.now() - from };
}

const podOf = (namespace: string, name: string, more: object = {}): object => ({
  namespace,
  name,
  guarded: true,
  enforced: true,
  mode: "Enforce",
  policies: [`${namespace}/checkout`],
  attachment: { kind: "routed", interface: "cali1" },
  bindings: 3,
  ...more,
});
const statusOf = (pods: readonly object[], more: object = {}): string =>
  JSON.stringify(
    {
      ready: true,
      mode: "Enforce",
      effectiveMode: "Enforce",
      since: "2026-11-26T10:00:00.000Z",
      pods,
      policies: [
        { name: "shop/checkout", valid: true, inForce: true, mode: "Enforce", errors: [] },
        { name: "guardrails", valid: true, inForce: true, mode: "Monitor", errors: [] },
      ],
      ...more,
    },
    undefined,
    2,
  );
const eventAt = (time: string, namespace: string, name: string): string =>
  `${JSON.stringify({ id: time, seq: 1, time, type: "connection", verdict: "deny", mode: "Enforce", why: "no-rule", pod: { namespace, name, labels: {}, serviceAccountName: "default" }, policy: null, rule: null, policies: [], nearest: null, destination: { address: "198.51.100.1", port: 443, protocol: "TCP", names: ["evil.example.net"] }, source: null, evidence: null, message: null, count: 1 })}\n`;
const agentOf = (n: number, says: FakeAgent["says"], more: Partial<FakeAgent> = {}): FakeAgent => ({
  pod: `namegate-${n}`,
  node: `worker-${n}`,
  ...(says === undefined ? {} : { says }),
  ...more,
});

const TWO: FakeCluster = {
  namespace: "shop",
  pods: { "shop/checkout-0": "worker-1", "shop/checkout-1": "worker-2", "shop/pending": "" },
  agents: [
    agentOf(1, {
      status: { stdout: statusOf([podOf("shop", "checkout-0"), podOf("bank", "teller-0")]) },
      observe: {
        stdout: eventAt("2026-11-26T10:00:01.000Z", "shop", "checkout-0") + eventAt("2026-11-26T10:00:03.000Z", "bank", "teller-0"),
      },
      explain: { stdout: "checkout-0 may reach api.stripe.com\n" },
      unused: {
        stdout: JSON.stringify([
          { policy: "shop/checkout", rule: "old", hits: 0, lastHit: null, observedSince: "2026-01-01T00:00:00.000Z", conclusive: true },
          { policy: "shop/checkout", rule: "b" },
        ]),
      },
    }),
    agentOf(2, {
      status: { stdout: statusOf([podOf("shop", "checkout-1", { enforced: false, why: "its interface is a macvlan" })]) },
      observe: { stdout: eventAt("2026-11-26T10:00:02.000Z", "shop", "checkout-1") },
      unused: {
        stdout:
          '{"policy":"shop/checkout","rule":"old","hits":0,"observedSince":"2026-02-01T00:00:00.000Z","conclusive":false}\n' +
          '{"policy":"shop/checkout","rule":"c","hits":0}\n',
      },
    }),
  ],
};

test("status: all namespaces, the context's one, another, and one pod (of whose node alone is asked)", (t) => {
  const all = run(t, TWO, "status", "-A", "-o", "json");
  assert.equal(all.status, 0, all.stderr);
  const merged = JSON.parse(all.stdout) as {
    ready: boolean;
    pods: { node: string; name: string }[];
    nodes: unknown[];
    policies: unknown[];
  };
  assert.equal(merged.ready, true);
  assert.deepEqual(
    merged.pods.map(({ node, name }) => `${node} ${name}`),
    ["worker-1 checkout-0", "worker-1 teller-0", "worker-2 checkout-1"],
  );
  assert.deepEqual(merged.policies, [
    { name: "guardrails", mode: "Monitor", valid: true, inForce: 2, of: 2, errors: [] },
    { name: "shop/checkout", mode: "Enforce", valid: true, inForce: 2, of: 2, errors: [] },
  ]);

  const shop = run(t, TWO, "status");
  assert.match(shop.stdout, /^NODE +MODE +IN EFFECT +SINCE +STATE\nworker-1 +Enforce +Enforce +2026-11-26T10:00:00.000Z +ready\n/);
  assert.match(shop.stdout, /^worker-1 +shop\/checkout-0 +Enforce +yes +routed cali1 +3 +shop\/checkout$/m);
  assert.match(shop.stdout, /^worker-2 +shop\/checkout-1 +Enforce +NO: its interface is a macvlan /m);
  assert.doesNotMatch(shop.stdout, /teller/);
  assert.match(shop.stdout, /^shop\/checkout +Enforce +yes +2 of 2 nodes$/m);
  assert.doesNotMatch(run(t, TWO, "status", "-n", "bank").stdout, /checkout-0/);

  const one = run(t, TWO, "status", "checkout-1", "-n", "shop", "--context", "prod", "--kubeconfig", "/tmp/kc");
  assert.match(one.stdout, /checkout-1/);
  assert.doesNotMatch(one.stdout, /checkout-0|worker-1/);
  assert.deepEqual(
    one.calls.map((call) => call.slice(0, 4)),
    [
      ["--context=prod", "--kubeconfig=/tmp/kc", "get", "pod"],
      ["--context=prod", "--kubeconfig=/tmp/kc", "get", "pods"],
      ["--context=prod", "--kubeconfig=/tmp/kc", "exec", "-n"],
    ],
  );
  assert.deepEqual(one.calls[2]?.slice(2), [
    "exec",
    "-n",
    "namegate-system",
    "namegate-2",
    "-c",
    "namegate",
    "--",
    "namegate",
    "status",
    "-o",
    "json",
  ]);
});

test("a node that does not answer is said, and does not stop the others", (t) => {
  const agents: FakeAgent[] = [
    ...TWO.agents,
    agentOf(3, { status: { afterMs: 60_000 } }),
    agentOf(4, { status: { stdout: "no json", status: 0 } }),
    agentOf(5, {
      status: {
        status: 2,
        stderr: "namegate status: cannot ask the agent at /run/namegate/agent.sock: no agent is running there\n  fix: start it\n",
      },
    }),
    agentOf(6, undefined, { phase: "Pending" }),
    agentOf(7, { status: { stdout: statusOf([], { ready: false }), status: 1 } }),
    agentOf(8, undefined),
    agentOf(9, undefined, { pod: "namegate-old", deleting: true }),
    agentOf(9, { status: { stdout: statusOf([]) } }),
  ];
  const got = run(t, { ...TWO, agents }, "status", "-A", "-o", "json", "--timeout", "8");
  assert.equal(got.status, 1);
  const { nodes } = JSON.parse(got.stdout) as { nodes: { node: string; ready: boolean; why?: string }[] };
  assert.deepEqual(
    nodes.map(({ node, ready, why }) => `${node} ${ready} ${why ?? ""}`.trim()),
    [
      "worker-1 true",
      "worker-2 true",
      "worker-3 false no answer in 8 s",
      "worker-4 false its answer is not JSON",
      "worker-5 false namegate status: cannot ask the agent at /run/namegate/agent.sock: no agent is running there",
      "worker-6 false its agent is Pending",
      "worker-7 false",
      "worker-8 false error: unable to upgrade connection",
      "worker-9 true",
    ],
  );
  assert.match(got.stderr, /^node worker-3: no answer: no answer in 8 s$/m);
  assert.ok(got.ms < 30_000, `${got.ms} ms: the others did not wait`);
});

test("observe: the events of all nodes, by time; in a namespace, of a pod", (t) => {
  const all = run(t, TWO, "observe", "-A", "--no-follow", "-o", "json");
  assert.equal(all.status, 0, all.stderr);
  const events = all.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { node: string; time: string });
  assert.deepEqual(
    events.map(({ node, time }) => `${node} ${time.slice(17, 19)}`),
    ["worker-1 01", "worker-2 02", "worker-1 03"],
  );
  assert.deepEqual(all.calls.at(-1)?.slice(-6), ["observe", "-o", "json", "--last", "100", "--no-follow"]);
  const text = run(t, TWO, "observe", "--no-follow", "--last", "5");
  // The date is there on other days only.
  assert.deepEqual(text.stdout.replaceAll(" 2026-11-26 ", " ").split("\n"), [
    "worker-1 10:00:01.000 DENY       shop/checkout-0 → evil.example.net 198.51.100.1:443/TCP no-rule id 2026-11-26T10:00:01.000Z",
    "worker-2 10:00:02.000 DENY       shop/checkout-1 → evil.example.net 198.51.100.1:443/TCP no-rule id 2026-11-26T10:00:02.000Z",
    "",
  ]);
  assert.equal(run(t, TWO, "observe", "checkout-0", "--no-follow", "-o", "json").stdout.trim().split("\n").length, 1);
});

test("observe follows until it is interrupted; an agent that ends is said", async (t) => {
  const agents = [
    agentOf(1, { observe: { stdout: eventAt("2026-11-26T10:00:01.000Z", "shop", "checkout-0"), staysMs: 20_000 } }),
    agentOf(2, { observe: { stdout: "garbage\n", stderr: "command terminated with exit code 137\n", status: 137 } }),
  ];
  const { env } = placeFor(t, { ...TWO, agents });
  const child = spawn(process.execPath, [PLUGIN, "observe", "-A"], { env, stdio: ["ignore", "pipe", "pipe"] });
  const seen = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name].setEncoding("utf8").on("data", (text: string) => {
      seen[name] += text;
      if (seen.stdout.includes("evil.example.net") && seen.stderr.includes("137")) child.kill("SIGINT");
    });
  const status = await new Promise((resolve) => child.once("close", resolve));
  assert.match(seen.stdout, /^worker-1 (2026-11-26 )?10:00:01.000 DENY/);
  assert.match(seen.stderr, /node worker-2: a line that is no event: garbage/);
  assert.match(seen.stderr, /node worker-2: no answer: command terminated with exit code 137/);
  assert.equal(status, 1);
});

test("observe gives its filters to the agents, in their order, and sorts out what another version lets through", (t) => {
  const argv = [
    "--not",
    "--pod",
    "shop/other",
    "--why=no-rule",
    "-l",
    "!x",
    "--to-name",
    "*.example.net",
    "--port",
    "443/tcp",
    "--since",
    "2026-11-26T10:00:02Z",
  ];
  const got = run(t, TWO, "observe", "-A", "--no-follow", "--last", "7", ...argv, "-o", "json");
  assert.equal(got.status, 0, got.stderr);
  assert.deepEqual(got.calls.at(-1)?.slice(-9), [
    "7",
    "--no-follow",
    "--not",
    "--pod=shop/other",
    "--why=no-rule",
    "--label=!x",
    "--to-name=*.example.net",
    "--port=443/tcp",
    "--since=2026-11-26T10:00:02Z",
  ]);
  assert.deepEqual(
    got.stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { time: string }).time.slice(17, 19)),
    ["02", "03"],
    "the fake agents do not filter",
  );
  const top = run(t, TWO, "observe", "-A", "--top", "namespace,why");
  assert.equal(top.status, 0, top.stderr);
  assert.match(
    top.stdout,
    /^NAMESPACE +WHY +DENIED +WOULD DENY +EVENTS +LAST \(UTC\)\nshop +no-rule +2 +0 +2 +2026-11-26 10:00:02\nbank +no-rule +1 /,
  );
  assert.match(
    run(t, TWO, "observe", "-A", "--no-follow", "-o", "table").stdout,
    /^NODE +TIME +VERDICT +POD .*\nworker-1 +10:00:01\.000 +deny +shop\/checkout-0 +evil/,
  );
});

test("explain: of a pod its node's agent is asked, of an event all are", (t) => {
  const got = run(
    t,
    TWO,
    "explain",
    "checkout-0",
    "--to",
    "api.stripe.com:443",
    "--server-name",
    "x.example",
    "--",
    "--application",
    "tls",
  );
  assert.equal(got.status, 0, got.stderr);
  assert.equal(got.stdout, "checkout-0 may reach api.stripe.com\n");
  assert.deepEqual(got.calls.at(-1)?.slice(-8), [
    "namegate",
    "explain",
    "--pod",
    "shop/checkout-0",
    "--to=api.stripe.com:443",
    "--server-name=x.example",
    "--application",
    "tls",
  ]);
  const says = (stdout: string): FakeAgent["says"] => ({ explain: { stdout } });
  const none: FakeAgent["says"] = {
    explain: { status: 2, stderr: 'namegate explain: no event "m-1" in this agent\'s memory\n  fix: x\n' },
  };
  const three = { ...TWO, agents: [agentOf(1, none), agentOf(2, says("it was\u001b[2J denied\n")), agentOf(3, none)] };
  const event = run(t, three, "explain", "m-1");
  assert.equal(event.status, 0, event.stderr);
  assert.equal(event.stdout, "it was\\u{1b}[2J denied\n");
  assert.equal(event.stderr, "");
  const nobody = run(t, { ...TWO, agents: [agentOf(1, none), agentOf(2, none)] }, "explain", "m-1");
  assert.equal(nobody.status, 1);
  assert.match(nobody.stderr, /^node worker-1: namegate explain: no event "m-1" in this agent's memory\nnode worker-2: /);
});

test("unused is what no node needed", (t) => {
  const got = run(t, TWO, "unused", "-o", "json");
  assert.deepEqual(JSON.parse(got.stdout), {
    unused: [
      {
        policy: "shop/checkout",
        rule: "old",
        hits: 0,
        lastHit: null,
        observedSince: "2026-02-01T00:00:00.000Z",
        conclusive: false,
        nodes: 2,
      },
    ],
    notAsked: [],
  });
  const merged = mergeUnused([
    { node: "a", value: { rules: [{ policy: "p", rule: "r", hits: 1, lastHit: "2026-01-01T00:00:00Z" }] }, why: undefined },
    { node: "b", value: [{ policy: "p", rule: "r", hits: 2, lastHit: "2026-02-01T00:00:00Z" }], why: undefined },
    { node: "c", value: undefined, why: "away" },
  ]);
  assert.deepEqual(merged, [{ policy: "p", rule: "r", hits: 3, lastHit: "2026-02-01T00:00:00Z", nodes: 2 }]);
});

test("wrong usage, and what cannot be", (t) => {
  const rows: readonly (readonly [string[], number, RegExp])[] = [
    [[], 2, /^usage: kubectl namegate COMMAND/],
    [["stats"], 2, /there is no command "stats"/],
    [["status", "--namespce", "x"], 2, /Unknown option '--namespce'/],
    [["status", "-A", "-n", "x"], 2, /-A goes with neither/],
    [["explain"], 2, /explain needs a pod/],
    [["explain", "checkout"], 2, /"checkout" is no event's id; of a pod, --to/],
    [["explain", "a-1", "--server-name", "x.example"], 2, /go with a pod and --to/],
    [["explain", "checkout-0", "--to", "a:1", "--to", "b:1"], 2, /one --to at a time/],
    [["status", "--verdict", "deny"], 2, /filters and --top go with observe/],
    [["status", "--server-name", "x.example"], 2, /go with explain/],
    [["observe", "--not"], 2, /no filter comes behind it/],
    [["observe", "--to", "nonsense"], 2, /--to "nonsense": it is neither/],
    [["observe", "--top", "colour"], 2, /--top "colour": known are pod/],
    [["status", "--", "--kubeconfig=/evil"], 2, /is not a name of Kubernetes/],
    [["status", "-n", "../x"], 2, /is not a name of Kubernetes/],
    [["status", "nobody"], 2, /pod shop\/nobody: Error from server \(NotFound\)/],
    [["status", "pending"], 2, /is on no node yet/],
    [["status", "--node", "worker-7"], 2, /no agent found in namespace namegate-system on node worker-7\n {2}fix:/],
    [["status", "--parallel", "0"], 2, /--parallel 0/],
    [["observe", "--last", "many"], 2, /--last many/],
  ];
  for (const [argv, status, says] of rows) {
    const got = run(t, TWO, ...argv);
    assert.equal(got.status, status, `${argv.join(" ")}: ${got.stderr}`);
    assert.match(got.stderr, says, argv.join(" "));
    assert.equal(got.stdout, "");
  }
  const { env } = placeFor(t, TWO);
  const without = spawnSync(process.execPath, [PLUGIN, "status", "-A"], { env: { ...env, PATH: "/nowhere" }, encoding: "utf8" });
  assert.equal(without.status, 2);
  assert.match(without.stderr, /kubectl is not on the PATH/);
});

test("what a pod's owner can write does not reach the terminal as it is", (t) => {
  assert.equal(plain("a\u001b[2Jb\u009b\u202ec\n"), "a\\u{1b}[2Jb\\u{9b}\\u{202e}c\\u{a}");
  const agents = [agentOf(1, { status: { stdout: statusOf([podOf("shop", "x", { why: "\u001b]0;owned\u0007", enforced: false })]) } })];
  assert.doesNotMatch(run(t, { ...TWO, agents }, "status").stdout, /(?!\n)\p{Cc}/u);
});

test("kubectl itself finds the plugin, and finds agents in a real API server", async (t) => {
  if (!need(t, { ...API_SERVER, commands: ["kubectl"] })) return;
  const api = await startApiServer();
  t.after(() => api.stop());
  await api.must("POST", "/api/v1/namespaces", { metadata: { name: "namegate-system" } });
  for (const n of [1, 2])
    await api.createPod({
      namespace: "namegate-system",
      name: `namegate-${n}`,
      node: `worker-${n}`,
      addresses: [`192.0.2.${n}`],
      spec: { containers: [{ name: "namegate", image: "none" }] },
      labels: { "app.kubernetes.io/name": "namegate" },
    });
  await api.createPod({ namespace: "default", name: "web", node: "worker-2" });
  const folder = mkdtempSync(join(tmpdir(), "namegate-kubectl-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(PLUGIN, 0o755);
  symlinkSync(PLUGIN, join(folder, "kubectl-namegate"));
  const env = { ...process.env, PATH: `${folder}${delimiter}${process.env["PATH"]}`, KUBECONFIG: api.kubeconfig() };
  const got = spawnSync("kubectl", ["namegate", "status", "web", "-o", "json"], { env, encoding: "utf8", timeout: 60_000 });
  // There is no kubelet behind it, so nobody answers; that is said of the right node.
  assert.equal(got.status, 1, got.stderr);
  const { nodes } = JSON.parse(got.stdout) as { nodes: { node: string; why: string }[] };
  assert.deepEqual(
    nodes.map(({ node }) => node),
    ["worker-2"],
  );
  assert.match(nodes[0]?.why ?? "", /^[Ee]rror/);
});
