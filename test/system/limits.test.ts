import assert from "node:assert/strict";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

const PODS = [{ name: "checkout" }, { name: "cart", labels: { app: "checkout" } }];

/** UDP datagrams to ever new destinations, which all have to be judged: `argv` = count. */
const FLOOD = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(int(sys.argv[1])):
    try: s.sendto(b"x", ("198.51.100.%d" % (10 + i % 3), 1024 + i % 60000))
    except OSError: pass
`;
/** DNS queries for one name over and over, no faster than a small server answers them: `argv` = resolver, count. */
const QUERIES = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
q = b"\\x00\\x07\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x03api\\x06stripe\\x03com\\x00\\x00\\x01\\x00\\x01"
for i in range(int(sys.argv[2])):
    s.sendto(q, (sys.argv[1], 53))
    if i % 50 == 49: time.sleep(0.005)
`;

/** UDP to `argv` = first and count of ports, none of which anybody allows; prints how many of them an ICMP error came back for. */
const REFUSED = `
import select, socket, sys, time
IP_RECVERR, MSG_ERRQUEUE = 11, 0x2000
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
s.setblocking(False)
ports = set()
def read():
    while True:
        try: ports.add(s.recvmsg(512, 512, MSG_ERRQUEUE)[3][1])
        except BlockingIOError: return
for i in range(int(sys.argv[2])):
    while True:
        try:
            s.sendto(b"x", ("198.51.100.10", int(sys.argv[1]) + i))
            break
        except ConnectionRefusedError: read()
        except OSError as e:
            if e.errno not in (11, 113): raise
            read()
    read()
until = time.time() + 0.5
while time.time() < until:
    select.select([], [], [s], 0.05)
    read()
print(len(ports))
`;

async function flood(it: Shop, count: number): Promise<void> {
  await it.lab.run("checkout", ["python3", it.lab.file("flood.py", FLOOD), String(count)], { timeoutMs: 20_000 });
}

test("one pod's flood of new connections is limited and named; another pod does not notice", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] })) return;
  const it = await shop(t, { pods: PODS, policies: { checkout: CHECKOUT }, args: ["--upcalls", "1000"] });
  const cart = await it.client("cart");
  await cart.resolve({ name: "api.stripe.com" });
  let flooding = true;
  const from = it.agent.events().length;
  const done = flood(it, 30_000).finally(() => {
    flooding = false;
  });
  const took: number[] = [];
  do {
    const both = await cart.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" });
    assert.equal(both.connected?.data, "x");
    took.push(both.resolved.ms + both.connected.ms);
    const denied = await cart.connect({ host: OUT.bank, port: 1024 + took.length });
    assert.equal(denied.code, "ECONNREFUSED", "its own denials are answered");
  } while (flooding);
  await done;
  took.sort((a, b) => a - b);
  t.diagnostic(
    `another pod's lookup and connection: median ${took[took.length >> 1]?.toFixed(1)} ms, worst ${took.at(-1)?.toFixed(1)} ms of ${took.length}`,
  );
  assert.ok((took[took.length >> 1] as number) < 100);
  const event = await it.agent.event("limit", (e) => e.why === "upcall-limit", { from });
  assert.deepEqual([event.type, event.pod?.name], ["limit", "checkout"]);
  const { counters } = await it.agent.status();
  assert.ok((counters["upcallsLimited"] as number) > 10_000, `${counters["upcallsLimited"]} were limited`);
  assert.ok(it.agent.events().length - from < 1000, "events are bounded too");
  assert.ok(!it.agent.events().some((e) => e.why === "upcall-limit" && e.pod?.name === "cart"));
});

test("denied datagrams are answered with ICMP up to a bound, and dropped beyond it: each is denied", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] })) return;
  const it = await shop(t, { pods: PODS, policies: { checkout: CHECKOUT }, args: ["--upcalls", "10000"] });
  // The kernel's own bound is far lower.
  await it.lab.run("node", [
    "sysctl",
    "-q",
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv4.icmp_msgs_per_sec=100000",
    "net.ipv4.icmp_msgs_burst=10000",
  ]);
  const script = it.lab.file("refused.py", REFUSED);
  const denied = async (): Promise<number> => (await it.agent.status()).counters["upcallsDenied"] as number;
  const refused = async (from: number, count: number): Promise<number> =>
    Number(await it.lab.run("checkout", ["python3", script, String(from), String(count)]));
  assert.equal(await refused(20_000, 50), 50, "all of a few");
  const before = await denied();
  const from = performance.now();
  const answered = await refused(21_000, 2000);
  const most = 100 + (performance.now() - from) / 10;
  assert.ok(answered >= 50 && answered <= most, `${answered} of 2000 were answered`);
  assert.equal((await denied()) - before, 2000, "each was judged, and denied");
});

test("full queues: new connections are dropped and counted, DNS replies pass unlearned; afterwards all is well", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] })) return;
  const it = await shop(t, { pods: PODS, policies: { checkout: CHECKOUT } });
  const cart = await it.client("cart");
  assert.equal((await cart.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  const hold = (await cart.connect({ host: OUT.stripe, port: 443, send: "hi", expect: 2, hold: true })).hold as number;
  it.agent.child.kill("SIGSTOP");
  try {
    await flood(it, 30_000);
    const waiting = await cart.connect({ host: OUT.bank, port: 443, timeoutMs: 400 });
    assert.equal(waiting.code, "ETIMEDOUT", "dropped, and neither allowed nor refused");
    assert.equal((await cart.talk({ hold, send: "on", expect: 2 })).data, "on", "what is open goes on");
    assert.equal((await cart.connect({ host: OUT.stripe, port: 443, send: "x" })).data, "x", "what is known can be opened");
    // Replies wait for the agent until their queue is full; then they pass. Lost queries of the flood do not matter.
    const deadline = Date.now() + 30_000;
    let answered = false;
    while (!answered && Date.now() < deadline) {
      await it.lab.run("checkout", ["python3", it.lab.file("queries.py", QUERIES), it.dnsAddress.v4, "6000"]);
      answered = (await cart.resolve({ name: "bank.example.com", timeoutMs: 300 })).ok;
    }
    assert.ok(answered, "a reply passes");
  } finally {
    it.agent.child.kill("SIGCONT");
  }
  await it.agent.event("told", (e) => e.type === "limit" && e.why === "queue-full", { timeoutMs: 10_000 });
  const { queues } = await it.agent.status();
  assert.ok((queues["admission"]?.["dropped"] as number) > 10_000, "what was lost is counted");
  assert.equal((await cart.connect({ host: OUT.bank, port: 5432 })).code, "ECONNREFUSED");
  assert.equal((await cart.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
  assert.equal((await it.agent.status()).ready, true);
});

test("a frozen agent: what waited longer than the watchdog's deadline is settled when it thaws, and nothing is stuck", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { pods: PODS, policies: { checkout: CHECKOUT } });
  const client = await it.client("checkout");
  await client.resolve({ name: "api.stripe.com" });
  it.agent.child.kill("SIGSTOP");
  const waits = [
    client.connect({ host: OUT.bank, port: 443, timeoutMs: 10_000 }),
    client.connect({ host: OUT.evil6, port: 443, timeoutMs: 10_000 }),
    client.datagram({ host: OUT.far, port: 7000, send: "x", timeoutMs: 10_000 }),
  ];
  const lookup = client.resolve({ name: "far.example.com", timeoutMs: 10_000 });
  await new Promise((resolve) => setTimeout(resolve, 3000)); // the deadline is 2 s
  it.agent.child.kill("SIGCONT");
  assert.equal((await lookup).ok, true);
  const codes = (await Promise.all(waits)).map(({ code }) => code);
  assert.deepEqual(codes.slice(0, 2), ["ECONNREFUSED", "ECONNREFUSED"], "TCP asked again, and was answered");
  assert.notEqual(codes[2], null, "the datagram went nowhere");
  assert.equal((await client.connect({ host: OUT.stripe, port: 443, send: "x" })).data, "x");
  const { queues } = await it.agent.status();
  for (const [name, queue] of Object.entries(queues)) assert.equal(queue["held"], 0, `nothing is left in ${name}`);
  // queue number, port id, packets waiting in the kernel, … (nfnetlink_queue's seq_show)
  const kernel = await it.lab.run("node", ["cat", "/proc/net/netfilter/nfnetlink_queue"]);
  for (const line of kernel.trim().split("\n")) assert.equal(line.trim().split(/\s+/)[2], "0", line);
});
