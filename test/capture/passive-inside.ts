/**
 * Run by passive.test.ts in an empty network namespace: datagrams and connections are seen, the loopback goes away and
 * comes back (the session is opened again), and closing the capture lets the process end. Exit code 0 and one line on stdout when all of it held.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { ipText } from "../../src/base/address.ts";
import { TcpFlag } from "../../src/model/packet.ts";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import { openPassive } from "../../src/capture/passive.ts";

async function until(what: () => boolean, seen: () => unknown): Promise<void> {
  for (const end = Date.now() + 5000; !what(); await sleep(5)) assert.ok(Date.now() < end, JSON.stringify(seen()));
}
const none = (): void => {};

const ip = (line: string): void => assert.equal(spawnSync("ip", line.split(" ")).status, 0, line);
ip("link set lo up");
ip("link add v0 type veth peer name v1");
ip("address add 198.18.0.1/24 dev v0");
ip("link set v1 address 02:00:00:00:00:02");
ip("link set v0 up");
ip("link set v1 up");
ip("neighbour add 198.18.0.2 lladdr 02:00:00:00:00:02 dev v0");
const p = newPacket();
const got: string[] = [];
const said: string[] = [];
const passive = openPassive({
  filter: "(udp and dst port 5300) or (tcp[tcpflags] & tcp-syn != 0)",
  onPacket: (b, s, e, t, seen) => {
    assert.ok(Math.abs(t - Date.now()) < 60_000 && decodeIp(b, s, e, p));
    const payload = Buffer.from(b.subarray(p.payloadStart, p.payloadEnd)).toString("latin1");
    got.push(`${seen} ${p.protocol} ${ipText(p.destination)} ${p.destinationPort} ${p.tcpFlags & TcpFlag.ACK} ${payload}`);
  },
  onState: (t) => said.push(t),
  heartbeatMs: 50,
  backoffMs: 50,
  ringBytes: 0,
});
await sleep(200);
for (const [type, host] of [
  ["udp4", "127.0.0.1"],
  ["udp6", "::1"],
  ["udp4", "198.18.0.2"],
] as const) {
  const s = createSocket(type);
  await new Promise<void>((done) => s.send(`hello ${type}`, 5300, host, () => done()));
  await new Promise<void>((done) => s.send("not this", 5301, host, () => done()));
  s.close();
}
const server = createServer((c) => c.destroy()).listen(0, "127.0.0.1");
await new Promise((done) => server.once("listening", done));
const { port } = server.address() as { port: number };
await new Promise((done) => connect(port, "127.0.0.1").on("close", done).on("error", none).resume());
server.close();
await until(
  () => got.length >= 6,
  () => [got, said],
);
// libpcap leaves out what the loopback sends: it would be there twice.
assert.deepEqual(got.slice(0, 5), [
  "in 17 127.0.0.1 5300 0 hello udp4",
  "in 17 ::1 5300 0 hello udp6",
  "out 17 198.18.0.2 5300 0 hello udp4",
  "in 17 198.18.0.2 5300 0 hello udp4",
  `in 6 127.0.0.1 ${port} 0 `,
]);
await sleep(300);
assert.equal(passive.stats().reopened, 0, said.join("\n"));
// Without a loopback the canary is lost: to the capture that is a dead session, which it opens again and again.
ip("link set lo down");
await until(
  () => passive.stats().reopened >= 2,
  () => said,
);
ip("link set lo up");
await sleep(100);
for (let i = 0; i < 50 && !got.some((g) => g.endsWith("again")); i++, await sleep(50)) {
  const s = createSocket("udp4");
  await new Promise<void>((done) => s.send("again", 5300, "127.0.0.1", () => done()));
  s.close();
}
assert.ok(
  got.some((g) => g.endsWith("again")),
  said.join("\n"),
);
const { packets, open } = passive.stats();
assert.ok(packets >= 7 && open);
passive.close();
process.stdout.write("seen and ended\n");
