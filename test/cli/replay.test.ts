import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { replay } from "../../src/cli/replay.ts";
import type { ReplayLine } from "../../src/cli/replay-judge.ts";
import { TcpFlag } from "../../src/model/packet.ts";
import { concat, ip4, ip6, tcp, text, u16, u32, udp } from "../capture/build.ts";
import { a, aaaa, ask, encode, type TestRecord } from "../dns/encode.ts";
import { HELLOS } from "../inspect/hellos.ts";
import { skip } from "../support/need.ts";

const { SYN, ACK, PSH } = TcpFlag;
const folder = mkdtempSync(join(tmpdir(), "namegate-replay-"));
after(() => rmSync(folder, { recursive: true }));

const policy = (mode: string): string => `apiVersion: v1
kind: ConfigMap
metadata: { name: p, namespace: shop, labels: { namegate.dev/policy: "true" } }
data:
  p.yaml: |
    apiVersion: namegate.dev/v1alpha1
    kind: EgressPolicy
    metadata: { name: checkout }
    spec:
      mode: ${mode}
      subject: { podSelector: { matchLabels: { app: checkout } } }
      dns: { minTtl: 1s, grace: 0s }
      egress:
      - { name: db, action: Accept, to: [ { domainNames: [ db.example.com ] } ], ports: [ { protocol: TCP, port: 5432 } ] }
      - { name: api, action: Accept, to: [ { domainNames: [ api.example.com ] } ], ports: [ { protocol: TCP, port: 443 } ], application: tls }
      - { name: never, action: Deny, to: [ { networks: [ 198.51.100.0/24 ] } ] }
`;
const PODS = `
resolvers: [ "10.96.0.10:53", "[fd00::53]:53" ]
pods:
- { namespace: shop, name: checkout-0, labels: { app: checkout }, interface: veth0, addresses: [ 10.0.0.1, "fd00::1" ] }
- { namespace: shop, name: checkout-1, labels: { app: checkout }, interface: veth1, addresses: [ 10.0.0.2 ] }
- { namespace: shop, name: other-0, labels: { app: other }, interface: veth2, addresses: [ 10.0.0.3 ] }
`;

interface Setting {
  readonly policies?: string;
  readonly pods?: string;
  readonly cut?: number;
  readonly argv?: readonly string[];
}
/** Seconds after the beginning of the capture, and the IP packet. */
type Timed = readonly [number, Uint8Array];

function pcap(packets: readonly Timed[]): Uint8Array {
  return concat(
    u32(0xa1b2c3d4),
    u16(2),
    u16(4),
    new Uint8Array(8),
    u32(65535),
    u32(101), // raw IP
    ...packets.flatMap(([at, bytes]) => [
      u32(1_700_000_000 + Math.floor(at)),
      u32((at % 1) * 1e6),
      u32(bytes.length),
      u32(bytes.length),
      bytes,
    ]),
  );
}

let files = 0;
function written(name: string, content: string | Uint8Array): string {
  const file = join(folder, `${files++}-${name}`);
  writeFileSync(file, content);
  return file;
}

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = "";
  let stderr = "";
  const code = await replay(argv, { stdout: { write: (part) => (stdout += part) }, stderr: { write: (part) => (stderr += part) } });
  return { code, stdout, stderr };
}

function judge(packets: readonly Timed[], { policies = policy("Enforce"), pods = PODS, cut = 0, argv = [] }: Setting = {}) {
  const dir = join(folder, `policies-${files++}`);
  mkdirSync(dir);
  writeFileSync(join(dir, "p.yaml"), policies);
  const bytes = pcap(packets);
  const file = written("capture.pcap", bytes.subarray(0, bytes.length - cut));
  return run(file, "--policies", dir, "--pods", written("pods.yaml", pods), ...argv);
}

async function lines(packets: readonly Timed[], setting: Setting = {}): Promise<ReplayLine[]> {
  const { code, stdout, stderr } = await judge(packets, { ...setting, argv: ["-o", "json", ...(setting.argv ?? [])] });
  assert.equal(code, 0, stderr);
  return stdout
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as ReplayLine);
}

/** `verdict why policy/rule` of each connection that is none to a DNS port. */
async function verdicts(packets: readonly Timed[], setting: Setting = {}): Promise<string[]> {
  const found = (await lines(packets, setting)).filter(({ server }) => !server.endsWith(":53"));
  return found.map(({ verdict, why, policy: id, rule }) => `${verdict} ${why} ${id}/${rule}`);
}

let port = 40_000;
function resolve(
  at: number,
  name: string,
  answers: readonly TestRecord[],
  { pod = "10.0.0.1", resolver = "10.96.0.10", asks = true } = {},
): Timed[] {
  const from = ++port;
  const six = pod.includes(":");
  const wrap = (source: string, destination: string, payload: Uint8Array): Uint8Array =>
    six ? ip6({ source, destination, next: 17 }, payload) : ip4({ source, destination, protocol: 17 }, payload);
  const question = encode({ flags: 0x0100, questions: ask(name) });
  const reply = encode({ questions: ask(name, answers[0]?.type ?? 1), answers });
  return [
    ...(asks ? [[at, wrap(pod, resolver, udp(from, 53, question))] as const] : []),
    [at + 0.01, wrap(resolver, pod, udp(53, from, reply))],
  ];
}

/** A TCP connection: SYN, and its payload in as many segments. */
function connect(at: number, server: string, to: number, payload: readonly Uint8Array[] = [], pod = "10.0.0.1"): Timed[] {
  const from = ++port;
  const wrap = (segment: Uint8Array): Uint8Array =>
    pod.includes(":")
      ? ip6({ source: pod, destination: server, next: 6 }, segment)
      : ip4({ source: pod, destination: server, protocol: 6 }, segment);
  const packets: Timed[] = [[at, wrap(tcp({ from, to, seq: 99, flags: SYN }))]];
  let seq = 100;
  for (const bytes of payload) {
    packets.push([at + 0.02, wrap(tcp({ from, to, seq, flags: ACK | PSH }, bytes))]);
    seq += bytes.length;
  }
  return packets;
}

const hello = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));
const DB = resolve(0, "db.example.com", [a("db.example.com", [192, 0, 2, 5], 60)]);
const API = resolve(0, "api.example.com", [a("api.example.com", [192, 0, 2, 7], 60)]);
const DB_RULE = "shop/checkout/db";

const ROWS: readonly (readonly [string, readonly Timed[], readonly string[]])[] = [
  ["a name that a rule has", [...DB, ...connect(1, "192.0.2.5", 5432)], [`allow null ${DB_RULE}`]],
  ["no name at all", connect(1, "192.0.2.5", 5432), ["deny no-name null/null"]],
  [
    "the name comes after the connection",
    [...connect(0, "192.0.2.5", 5432), ...resolve(1, "db.example.com", [a("db.example.com", [192, 0, 2, 5])])],
    ["deny no-name null/null"],
  ],
  ["another pod's name", [...DB, ...connect(1, "192.0.2.5", 5432, [], "10.0.0.2")], ["deny no-name null/null"]],
  ["the last second of the TTL", [...DB, ...connect(59, "192.0.2.5", 5432)], [`allow null ${DB_RULE}`]],
  ["the TTL is over", [...DB, ...connect(61, "192.0.2.5", 5432)], ["deny stale-dns null/null"]],
  [
    "a connection outlives its binding",
    [...DB, ...connect(59, "192.0.2.5", 5432), ...connect(61, "192.0.2.5", 5432)],
    [`allow null ${DB_RULE}`, "deny stale-dns null/null"],
  ],
  ["another port", [...DB, ...connect(1, "192.0.2.5", 5433)], ["deny wrong-port null/null"]],
  [
    "another name of the address",
    [...resolve(0, "evil.example.net", [a("evil.example.net", [192, 0, 2, 5])]), ...connect(1, "192.0.2.5", 5432)],
    ["deny wrong-name null/null"],
  ],
  [
    "a reply from a resolver that is not trusted",
    [...resolve(0, "db.example.com", [a("db.example.com", [192, 0, 2, 5])], { resolver: "192.0.2.53" }), ...connect(1, "192.0.2.5", 5432)],
    ["deny no-name null/null"],
  ],
  [
    "a reply that nobody asked for",
    [...resolve(0, "db.example.com", [a("db.example.com", [192, 0, 2, 5])], { asks: false }), ...connect(1, "192.0.2.5", 5432)],
    ["deny no-name null/null"],
  ],
  ["a Deny rule", connect(0, "198.51.100.1", 80), ["deny denied-by-rule shop/checkout/never"]],
  ["a pod that no policy selects", connect(0, "198.51.100.1", 80, [], "10.0.0.3"), ["null null null/null"]],
  ["nobody's pod", connect(0, "198.51.100.1", 80, [], "10.9.9.9"), ["null null null/null"]],
  ["to a guarded pod", connect(0, "10.0.0.1", 80, [], "10.9.9.9"), ["allow null null/null"]],
  [
    "IPv6",
    [
      ...resolve(0, "db.example.com", [aaaa("db.example.com", 5)], { pod: "fd00::1", resolver: "fd00::53" }),
      ...connect(1, "2001:db8::5", 5432, [], "fd00::1"),
      ...connect(1, "2001:db8::6", 5432, [], "fd00::1"),
    ],
    [`allow null ${DB_RULE}`, "deny no-name null/null"],
  ],
  ["the right server name", [...API, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.openssl13.hex)])], ["allow null shop/checkout/api"]],
  [
    "the right server name, in two segments",
    [...API, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.openssl13.hex).subarray(0, 99), hello(HELLOS.openssl13.hex).subarray(99)])],
    ["allow null shop/checkout/api"],
  ],
  ["another server name", [...API, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.node.hex)])], ["deny wrong-server-name null/null"]],
  ["no server name", [...API, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.openssl12.hex)])], ["deny no-server-name null/null"]],
  ["not TLS", [...API, ...connect(1, "192.0.2.7", 443, [text("SSH-2.0-OpenSSH_9\r\n")])], ["deny wrong-protocol null/null"]],
  [
    "a part of a ClientHello",
    [...API, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.openssl13.hex).subarray(0, 99)])],
    ["deny incomplete null/null"],
  ],
  ["no payload: nothing was refused", [...API, ...connect(1, "192.0.2.7", 443)], ["allow null shop/checkout/api"]],
];
for (const [name, packets, wanted] of ROWS) test(name, async () => assert.deepEqual(await verdicts(packets), wanted));

test("bytes that were sent in two versions are not believed", async () => {
  const packets = [...API, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.openssl13.hex)])];
  const [at, last] = packets.at(-1) as Timed;
  const other = last.slice();
  other[last.length - 1] = (last[last.length - 1] as number) ^ 1;
  assert.deepEqual(await verdicts([...packets, [at, other]]), ["deny incomplete null/null"]);
});

test("Monitor and Discover only speak", async () => {
  const packets = [...API, ...connect(1, "192.0.2.5", 5432), ...connect(1, "192.0.2.7", 443, [hello(HELLOS.node.hex)])];
  for (const mode of ["Monitor", "Discover"]) {
    assert.deepEqual(
      await verdicts(packets, { policies: policy(mode) }),
      ["would-deny no-name null/null", "would-deny wrong-server-name null/null"],
      mode,
    );
  }
});

test("no resolvers listed: nothing is learned", async () => {
  const packets = [...DB, ...connect(1, "192.0.2.5", 5432)];
  assert.deepEqual(await verdicts(packets, { pods: PODS.replace(/resolvers: .*/, "") }), ["deny no-name null/null"]);
});

test("the shape of a line", async () => {
  const found = await lines([...DB, ...connect(1, "192.0.2.7", 443, [hello(HELLOS.openssl13.hex)])]);
  const [dns, tls] = found;
  const unknown = { upgrade: null, serverName: null, alpn: null, ja4: null, policy: null, rule: null };
  assert.deepEqual(dns, {
    ...unknown,
    transport: "udp",
    client: dns?.client,
    server: "10.96.0.10:53",
    application: "dns",
    serverName: "db.example.com",
    verdict: "allow",
    why: null,
  });
  assert.deepEqual(tls, {
    ...unknown,
    transport: "tcp",
    client: tls?.client,
    server: "192.0.2.7:443",
    application: "tls",
    serverName: "api.example.com",
    alpn: ["h2", "http/1.1"],
    ja4: HELLOS.openssl13.ja4,
    verdict: "deny",
    why: "no-name",
  });
  assert.match(found[1]?.client ?? "", /^10\.0\.0\.1:4\d{4}$/);
  assert.deepEqual(Object.keys(found[0] ?? {}), [
    "transport",
    "client",
    "server",
    "application",
    "upgrade",
    "serverName",
    "alpn",
    "ja4",
    "verdict",
    "why",
    "policy",
    "rule",
  ]);
  const [six] = await lines(connect(1, "2001:db8::6", 5432, [], "fd00::1"));
  assert.deepEqual([six?.client.replace(/\d+$/, "N"), six?.server], ["[fd00::1]:N", "[2001:db8::6]:5432"]);
});

test("without policies and pods: what there is, and no verdict", async () => {
  const { code, stdout, stderr } = await run(written("c.pcap", pcap(connect(1, "192.0.2.7", 443, [hello(HELLOS.node.hex)]))), "-o", "json");
  const { application, serverName, verdict, why } = JSON.parse(stdout) as ReplayLine;
  assert.deepEqual([code, stderr, application, serverName, verdict, why], [0, "", "tls", "node.example.com", null, null]);
});

test("text", async () => {
  const { stdout } = await judge([
    ...DB,
    ...connect(1, "192.0.2.5", 5432),
    ...connect(61, "192.0.2.5", 5432),
    ...connect(61, "192.0.2.9", 1, [], "10.9.9.9"),
  ]);
  const table = stdout.trimEnd().split("\n");
  assert.equal(table.length, 6);
  assert.match(table[2] ?? "", /^tcp +10\.0\.0\.1:\d+ +192\.0\.2\.5:5432 +- +db\.example\.com +- +allow +shop\/checkout\/db$/);
  assert.match(table[3] ?? "", /\(db\.example\.com\) +- +deny +stale-dns \(nearest: shop\/checkout\/db, its stale\)$/);
  assert.equal(table[5], "4 connections: 2 allowed, 1 denied, 1 unknown");
});

test("a capture that was cut off is judged as far as it goes", async () => {
  const { code, stdout, stderr } = await judge([...DB, ...connect(1, "192.0.2.5", 5432), ...connect(2, "192.0.2.6", 5432)], { cut: 3 });
  assert.equal(code, 0);
  assert.match(stderr, /warning: .*inside the record at byte \d+/);
  assert.match(stdout, /\n2 connections: 2 allowed, 0 denied, 0 unknown\n$/);
});

test("problems in the policies or the pods are printed as `check` does", async () => {
  const broken = await judge([], { policies: policy("Enforced") });
  assert.equal(broken.code, 1);
  assert.match(broken.stdout, /p\.yaml:10:13: spec\.mode: `Enforced` is not known here\n.*\n.*\^\n {2}hint: did you mean `Enforce`\?\n/);
  const pods = await judge([], { pods: "pods: 3\n", argv: ["-o", "json"] });
  assert.deepEqual([pods.code, pods.stdout], [1, ""]);
  assert.match(pods.stderr, /pods\.yaml:1:7: pods: must be a list/);
});

test("a ClusterEgressPolicy counts in the agent's namespace only", async () => {
  const cluster = policy("Enforce").replace("kind: EgressPolicy", "kind: ClusterEgressPolicy");
  assert.equal((await judge([], { policies: cluster, argv: ["--namespace", "shop"] })).code, 0);
  assert.equal((await judge([], { policies: cluster, argv: ["--namespace", "namegate"] })).code, 1);
});

test("what cannot be read is a fault, and wrong usage is usage", async () => {
  await assert.rejects(run(join(folder, "none.pcap")), { code: "capture-unreadable" });
  await assert.rejects(run(written("x.pcap", "hello, this is text")), { code: "capture-format" });
  await assert.rejects(run(written("y.pcap", "")), { code: "capture-format" });
  const good = written("z.pcap", pcap([]));
  await assert.rejects(run(good, "--policies", join(folder, "none")), { code: "policies" });
  await assert.rejects(run(good, "--pods", join(folder, "none")), { code: "pods-file" });
  for (const argv of [[], [good, good], [good, "-o", "xml"], [good, "--what"]]) await assert.rejects(run(...argv), { name: "Error" });
  assert.deepEqual(await run(good), { code: 0, stdout: "0 connections: 0 allowed, 0 denied, 0 unknown\n", stderr: "" });
});

test("every capture of the corpus is replayed", { skip: skip({ env: ["NAMEGATE_CORPUS"] }), timeout: 120_000 }, async () => {
  const corpus = process.env["NAMEGATE_CORPUS"] ?? "";
  let captures = 0;
  let connections = 0;
  const captureFiles = ["captures", "generated"].flatMap((set) => readdirSync(join(corpus, set)).map((name) => join(corpus, set, name)));
  for (const file of captureFiles.filter((name) => /\.(pcap|pcapng|cap)$/.test(name))) {
    const { code, stdout } = await run(file, "-o", "json");
    assert.equal(code, 0, file);
    for (const line of stdout.split("\n").filter((one) => one !== "")) {
      assert.equal(Object.keys(JSON.parse(line) as object).length, 12, file);
      connections++;
    }
    captures++;
  }
  assert.ok(captures > 100 && connections > 500, `${captures} captures, ${connections} connections`);
});
