import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { putPolicy, startAgent, type TestAgent } from "../support/agent.ts";
import { clientIn } from "../support/client.ts";
import { dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, type Lab, labFor } from "../support/lab.ts";
import { accept, code, enforcing } from "../support/names.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/** Many names, changing all the time (PEERS 1, 3, 5, 8); dns-addresses.test.ts has many addresses. */

/** Answers `n123.…` with one A record, 100.64.0.0 + 123, and any other name with the address given. */
const COUNTING = `
import { createSocket } from "node:dgram";
const [port, other] = [Number(process.argv[1]), process.argv[2].split(".").map(Number)];
const socket = createSocket({ type: "udp4", recvBufferSize: 4194304 });
socket.on("message", (query, peer) => {
  const label = query.toString("latin1", 13, 13 + query[12]);
  const n = /^n[0-9]+$/.test(label) ? Number(label.slice(1)) : -1;
  const end = query.indexOf(0, 12) + 5;
  const reply = Buffer.alloc(end + 16);
  query.copy(reply, 0, 0, end);
  reply.writeUInt16BE(0x8180, 2);
  reply.writeUInt16BE(1, 6);
  reply.writeUInt32BE(0, 8);
  reply.set([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, ...(n < 0 ? other : [100, 64 + (n >> 16), (n >> 8) & 255, n & 255])], end);
  socket.send(reply, peer.port, peer.address);
});
socket.bind(port, process.argv[3], () => console.log("ready")); // replies come from the address that was asked
`;

/** Asks for PREFIX0…PREFIXn.SUFFIX, 64 at a time, as fast as replies come. */
const FLOOD = `
import { createSocket } from "node:dgram";
const [server, suffix, count, prefix] = process.argv.slice(1);
const socket = createSocket({ type: "udp4", recvBufferSize: 4194304 });
const tail = Buffer.concat([...suffix.split(".").map((label) => Buffer.from(String.fromCharCode(label.length) + label)), Buffer.from([0, 0, 1, 0, 1])]);
let sent = 0, got = 0;
const send = () => {
  const label = prefix + sent;
  const head = Buffer.from([sent >> 8, sent, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.length]);
  socket.send(Buffer.concat([head, Buffer.from(label), tail]));
  sent++;
};
const done = () => { console.log(JSON.stringify({ sent, got })); process.exit(); };
socket.on("message", () => {
  got++;
  if (sent < Number(count)) send();
  else if (got >= sent) done();
});
socket.connect(53, server, () => {
  while (sent < Math.min(64, Number(count))) send();
});
setTimeout(done, 30000);
`;

async function flood(lab: Lab, pod: string, server: string, suffix: string, count: number, prefix = "n"): Promise<void> {
  const text = await lab.script(pod, FLOOD, [server, suffix, String(count), prefix]).line((line) => line, { timeoutMs: 35_000 });
  assert.deepEqual(JSON.parse(text), { sent: count, got: count }, "no reply was lost");
}

const residentMb = (agent: TestAgent): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${agent.child.pid}/status`, "utf8"))?.[1]) / 1024;

test("ever-new names of one pod: memory is bounded, and other pods keep and learn theirs", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS] })) return;
  const lab = await labFor(t);
  const dns = await clusterDns(lab);
  await lab.addPod({ name: "noisy" });
  await lab.addPod({ name: "quiet", kind: "bridge" });
  const known = "198.51.100.10";
  const later = Array.from({ length: 5 }, (_, i) => `198.51.100.${20 + i}`);
  await lab.addServer({ name: "out", addresses: [known, ...later] });
  await serve(lab, "out", [{ kind: "echo", port: 443 }]);
  const LIMIT = 4000;
  const FLOOD_NAMES = 40_000;
  const names = Object.fromEntries(later.map((address, i) => [`later${i}.example.org`, { A: [address] }]));
  await dnsServer(lab, dns.pod, { port: dns.port, names: { ...names, "known.example.org": { A: [known] } } });
  // The other resolver, for the flood.
  const counting = lab.script("out", COUNTING, ["5300", known, known]);
  await counting.line((line) => line === "ready");
  await lab.service({ address: "10.96.0.11", port: 53, target: known, targetPort: 5300, protocols: ["udp"] });
  lab.setResolvers([dns.v4, "10.96.0.11"]);
  putPolicy(lab, "noisy.yaml", enforcing("noisy", accept(["*.example.com"], 443)));
  putPolicy(lab, "quiet.yaml", enforcing("quiet", accept(["*.example.org"], 443)));
  const agent = await startAgent(lab, { args: ["--max-bindings", String(LIMIT)] });
  const quiet = await clientIn(lab, "quiet");
  await quiet.resolve({ name: "known.example.org", server: dns.v4 });
  assert.equal(await code(quiet, known), null);

  await flood(lab, "noisy", "10.96.0.11", "example.com", LIMIT * 2);
  const full = residentMb(agent);
  const from = performance.now();
  await flood(lab, "noisy", "10.96.0.11", "example.com", FLOOD_NAMES, "m");
  t.diagnostic(`${FLOOD_NAMES} names of one address in ${(performance.now() - from).toFixed(0)} ms`);
  await flood(lab, "noisy", "10.96.0.11", "example.com", FLOOD_NAMES);
  const after = residentMb(agent);
  t.diagnostic(`resident: ${full.toFixed(1)} MB when full, ${after.toFixed(1)} MB ${2 * FLOOD_NAMES} names later`);
  assert.ok(after - full < 48, `${full} MB, then ${after} MB`);
  assert.equal(await code(quiet, known), null, "a name that was known before");
  for (const [i, address] of later.entries()) {
    assert.equal((await quiet.resolve({ name: `later${i}.example.org`, server: dns.v4 })).ok, true);
    assert.equal(await code(quiet, address), null, "a name that came when the table was full");
  }
  assert.equal(await code(quiet, known), null, "still");
  const { sets, pods, counters } = await agent.status();
  assert.equal(pods.find(({ name }) => name === "quiet")?.bindings, 6);
  assert.ok((pods.find(({ name }) => name === "noisy")?.bindings as number) <= LIMIT);
  for (const set of ["ng-allow4", "ng-name4"]) assert.ok((sets[set] as number) <= LIMIT + 64, `${set}: ${sets[set]}`);
  assert.equal(counters["faults"], 0);
});

test("an address with hundreds of names: the latest one asked for counts", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset"] })) return;
  const lab = await labFor(t);
  const dns = await clusterDns(lab);
  await lab.addPod({ name: "client" });
  const shared = "198.51.100.10";
  await lab.addServer({ name: "out", addresses: [shared] });
  await serve(lab, "out", [
    { kind: "echo", port: 443 },
    { kind: "echo", port: 5432 },
  ]);
  const dnsPod = lab.pods.find(({ name }) => name === dns.pod)?.v4 as string;
  await lab.script(dns.pod, COUNTING, [String(dns.port), shared, dnsPod]).line((line) => line === "ready");
  // A bucket, a tenant, a shard: names of a wildcard, all of one front end; and a database that happens to live there.
  putPolicy(lab, "client.yaml", enforcing("client", accept(["*.example.com"], 443), accept(["db.example.org"], 5432)));
  const agent = await startAgent(lab);
  const client = await clientIn(lab, "client");
  await flood(lab, "client", dns.v4, "example.com", 300, "bucket");
  assert.equal(await code(client, shared), null);
  assert.equal(await code(client, shared, 5432), "ECONNREFUSED");
  const held = await client.connect({ host: shared, port: 443, send: "x", hold: true });
  await client.resolve({ name: "db.example.org", server: dns.v4 });
  assert.equal(await code(client, shared, 5432), null, "the database");
  assert.equal(await code(client, shared), null);
  assert.equal((await client.talk({ hold: held.hold as number, send: "y" })).data, "y");
  // The kernel remembers the same names as the agent: it finds them there when it starts again.
  await agent.kill();
  await lab.run("node", ["ipset", "flush", "ng-allow4"]);
  const next = await startAgent(lab);
  assert.equal(await code(client, shared, 5432), null, "the database, after a restart");
  assert.equal((await next.status()).pods[0]?.bindings, 64);
});
