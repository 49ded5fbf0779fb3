import { fileURLToPath } from "node:url";
import type { Lab } from "../src/cli/lab-types.ts";
import { putPolicy, type TestAgent } from "../test/support/agent.ts";
import { onPath } from "../test/support/need.ts";
import { HELLOS } from "../test/inspect/hellos.ts";
import { load, type Measured, serving } from "./support/load.ts";
import { benchNode, RESPONDER, tlsPolicy, withGuarded, withPair } from "./support/node.ts";
import { interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "one client connects, sends a ClientHello of one segment (another random each time) and waits for the server's first bytes, one connection after the other, in rounds by turns: without anything in between, through namegate " +
  "(the rule wants TLS with one of its server names; the kernel knows the hello from the second connection on), through namegate whose packet thread reads every hello, as it does the first ones and those that the kernel cannot know, and through proxies on the node that read the server name: sniproxy, and haproxy in TCP mode. As a floor: through an NFQUEUE whose reader " +
  "gives the first payload back unread, on a packet thread of our kind. " +
  "Client, server, agent and proxies share the machine's CPUs";
const ROUNDS = 20;
const CONNECTS = 500;
const PORT = 8443;
const KNOWN = "198.18.0.7"; // x7.bench.test
const { hex, serverName } = HELLOS.node;
/** Where the proxies listen on the node. */
const PROXY = { sniproxy: 9001, haproxy: 9002 } as const;
type ProxyName = keyof typeof PROXY;

const POLICY = tlsPolicy(serverName, PORT);

const CONFIG: Readonly<Record<ProxyName, (lab: Lab) => Promise<readonly string[]>>> = {
  sniproxy: async (lab) => {
    const file = lab.file(
      "sniproxy.conf",
      `user root\npidfile ${lab.dir}/sniproxy.pid\nlistener ${lab.node.v4}:${PROXY.sniproxy} {\n proto tls\n table hosts\n}\ntable hosts {\n ${serverName} ${KNOWN}:${PORT}\n}\n`,
    );
    return ["sniproxy", "-f", "-c", file];
  },
  haproxy: async (lab) => {
    const file = lab.file(
      "haproxy.cfg",
      `defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\nfrontend f\n bind ${lab.node.v4}:${PROXY.haproxy}\n tcp-request inspect-delay 5s\n` +
        ` tcp-request content accept if { req_ssl_hello_type 1 }\n use_backend b if { req_ssl_sni -i ${serverName} }\nbackend b\n server s ${KNOWN}:${PORT}\n`,
    );
    return ["haproxy", "-db", "-f", file];
  },
};

async function startProxy(lab: Lab, name: ProxyName): Promise<void> {
  lab.spawn("node", await CONFIG[name](lab));
  const [where, port] = proxied(lab, name);
  for (let i = 0; ; i++) {
    const tried = await load(lab, "client", "hello", where, port, 1, hex).catch(() => ({ ok: 0 }));
    if (tried["ok"] === 1) return;
    if (i === 40) throw new Error(`${name} does not answer`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

function proxied(lab: Lab, name: ProxyName): readonly [string, number] {
  return [lab.node.v4, PROXY[name]];
}

const QUEUE = 4999;
const MARK = 0x100;

/** A node without namegate on which the first payload goes to user space and comes back unread; then connmark has it. */
async function trip(): Promise<Lab> {
  const lab = await benchNode();
  try {
    await serving(lab, "out", "reply", PORT);
    const rules = [
      `-A PREROUTING -m connmark --mark ${MARK}/${MARK} -j RETURN`,
      `-A PREROUTING -m mark --mark ${MARK}/${MARK} -j CONNMARK --save-mark --nfmask ${MARK} --ctmask ${MARK}`,
      `-A PREROUTING -m mark --mark ${MARK}/${MARK} -j RETURN`,
      `-A PREROUTING -p tcp --dport ${PORT} --tcp-flags PSH PSH -j NFQUEUE --queue-num ${QUEUE}`,
    ];
    await lab.run("node", ["iptables-nft-restore", "--noflush", lab.file("trip.rules", ["*mangle", ...rules, "COMMIT", ""].join("\n"))]);
    const reader = fileURLToPath(new URL("./support/queue-trip.js", import.meta.url));
    const child = lab.spawn("node", [process.execPath, reader, String(QUEUE), String(MARK)]);
    await child.line((line) => line === "ready");
    return lab;
  } catch (error) {
    await lab.close();
    throw error;
  }
}

const installed = (Object.keys(PROXY) as ProxyName[]).filter(onPath);
for (const name of Object.keys(PROXY)) if (!onPath(name)) console.log(`inspect: ${name} is not installed, so it is not measured`);

async function measure(plain: Lab, guarded: Lab, agent: TestAgent, reading: Lab, readingAgent: TestAgent): Promise<void> {
  const bare = await trip();
  for (const lab of [plain, guarded, reading]) await serving(lab, "out", "reply", PORT);
  for (const lab of [guarded, reading]) putPolicy(lab, "tls.yaml", POLICY);
  await new Promise((resolve) => setTimeout(resolve, 500));
  for (const lab of [guarded, reading]) await load(lab, "client", "ask", RESPONDER, 1, 7, 8, 0);
  for (const name of installed) await startProxy(plain, name);
  const subjects: Record<string, () => Promise<Measured>> = {
    direct: () => load(plain, "client", "hello", KNOWN, PORT, CONNECTS, hex),
    namegate: () => load(guarded, "client", "hello", KNOWN, PORT, CONNECTS, hex),
    reading: () => load(reading, "client", "hello", KNOWN, PORT, CONNECTS, hex),
    trip: () => load(bare, "client", "hello", KNOWN, PORT, CONNECTS, hex),
  };
  for (const name of installed) {
    const [where, port] = proxied(plain, name);
    subjects[name] = () => load(plain, "client", "hello", where, port, CONNECTS, hex);
  }
  await interleave(2, subjects);
  const rounds = await interleave(ROUNDS, subjects);
  await bare.close();
  const p50 = (name: string): number => median((rounds[name] as Measured[]).map((one) => one["p50"] as number));
  const added = (name: string): number => p50(name) - p50("direct");
  const best = Math.min(...installed.map(added));
  const failed = Object.values(rounds)
    .flat()
    .reduce((sum, { ok }) => sum + CONNECTS - (ok as number), 0);
  const { counters } = await agent.status();
  const read = await readingAgent.status();
  report("inspect", WORKLOAD, [
    { what: "direct, p50", value: p50("direct"), unit: "µs" },
    {
      what: "added by namegate, p50",
      value: added("namegate"),
      unit: "µs",
      ...(installed.length > 0 ? { target: { most: best / 3 } } : {}),
    },
    { what: "added by namegate that reads every hello, p50", value: added("reading"), unit: "µs" },
    ...installed.map((name) => ({ what: `added by ${name}, p50`, value: added(name), unit: "µs" })),
    { what: "added by one trip through a queue, unread, p50", value: added("trip"), unit: "µs" },
    { what: "the trip / the best of them", value: added("trip") / best, unit: "" },
    {
      what: "namegate / the best of them",
      value: added("namegate") / best,
      unit: "",
      ...(installed.length > 0 ? { target: { most: 1 / 3 } } : {}),
    },
    { what: "namegate that reads every hello / the best of them", value: added("reading") / best, unit: "" },
    { what: "namegate, p99", value: median((rounds["namegate"] as Measured[]).map((one) => one["p99"] as number)), unit: "µs" },
    { what: "direct, p99", value: median((rounds["direct"] as Measured[]).map((one) => one["p99"] as number)), unit: "µs" },
    { what: "connections that failed", value: failed, unit: "", target: { most: 0 } },
    { what: "hellos that the packet thread read", value: counters["inspected"] ?? 0, unit: "", target: { most: 10 } },
    { what: "the same, where it reads every one", value: read.counters["inspected"] ?? 0, unit: "", target: { least: CONNECTS * ROUNDS } },
  ]);
}

await withPair(({ plain, guarded, agent }) =>
  withGuarded((reading, readingAgent) => measure(plain, guarded, agent, reading, readingAgent), { args: ["--known-hellos", "off"] }),
);
