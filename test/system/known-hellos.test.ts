import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { policy, putPolicy } from "../support/agent.ts";
import { PRELUDE, RAW } from "../support/disguise.ts";
import { need } from "../support/need.ts";
import { OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

/**
 * Hellos that the kernel knows (native/hello.bpf.c): what a pod that is root in its namespace can make of one, what honest
 * clients do that nobody may take for that, and what becomes of one when names, policies or the agent change.
 */

const WEB = {
  name: "web",
  action: "Accept",
  to: [{ domainNames: ["web.example.com", "www.example.com"] }],
  ports: [{ protocol: "TCP", port: 443 }],
  application: "tls",
};
const POLICY = { mode: "Enforce", subject: { podSelector: { matchLabels: { app: "checkout" } } }, egress: [WEB] };
const NOBODY = { ...POLICY, egress: [{ ...WEB, to: [{ domainNames: ["other.example.com"] }] }] };

/** A server that answers the first bytes, and says `leak` when the mark in the data behind a hello has reached it. */
const SERVER = `
import socket, threading
def serve(s):
    got = b""
    s.settimeout(9)
    try:
        while True:
            b = s.recv(65536)
            if not b: break
            if not got: s.sendall(b"answer")
            if b"LEAK" in got + b and b"LEAK" not in got: print("leak", flush=True)
            got += b
    except OSError: pass
l = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True: threading.Thread(target=serve, args=(l.accept()[0],)).start()
`;

/** evil's hello, whose last extension is padding, and reads as a good one. */
const WRAPPED = `
def wrapped():
    name = b"evil.exampl.com"
    ext = struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name + struct.pack("!HHBHH", 43, 5, 4, 0x0304, 0x0303)
    ext += struct.pack("!HH", 21, len(GOOD)) + GOOD
    body = b"\\x03\\x03" + bytes(range(32)) + b"\\0" + struct.pack("!HHH", 4, 0x1301, 0xc02f) + b"\\x01\\0" + struct.pack("!H", len(ext)) + ext
    return records(b"\\x01" + struct.pack("!I", len(body))[1:] + body)
WRAP = wrapped()
n = len(GOOD)
`;

/** What it tries | in Python, with GOOD known to the kernel; nothing that it says behind an evil hello may reach the server. */
const ATTACKS: readonly (readonly [string, string])[] = [
  [
    "the place behind a hello of the connection before, and data in the SYN",
    `q = begin(isn); raw(first, q, GOOD, options=MD5); raw(first, q, flags=RST); time.sleep(0.1)
e = first + n
raw(e - 1, 0, b"xx", flags=SYN); q = accepted(); raw(e, q, flags=ACK)
raw(e, q, EVIL); time.sleep(0.1); raw(e + n, q, b"LEAK")`,
  ],
  [
    "a SYN with a bad checksum in the middle",
    `q = begin(isn); e = first + len(WRAP) - n
raw(first, q, WRAP[:-n]); time.sleep(0.2) # nobody waits for the rest of a hello for ever
raw(e - 1, 0, flags=SYN, bad=True); raw(e, q, GOOD); time.sleep(0.1); raw(e + n, q, b"LEAK")`,
  ],
  [
    "two SYNs, of which the server takes the second",
    `raw(isn, 0, flags=SYN, options=MD5); raw(isn + n, 0, flags=SYN); q = accepted(); e = first + n; raw(e, q, flags=ACK)
raw(first, q, GOOD, options=MD5); raw(e - 1, q, flags=ACK); time.sleep(0.1) # the server says where it is
raw(e, q, EVIL); time.sleep(0.1); raw(e + n, q, b"LEAK")`,
  ],
  [
    "a connection that conntrack has forgotten",
    `q = begin(isn); raw(first, q, flags=RST, options=MD5); time.sleep(2)
raw(first, q, WRAP[:-20]); time.sleep(0.2); raw(first, q, GOOD); time.sleep(0.1)
raw(first + len(WRAP) - 20, q, WRAP[-20:]); time.sleep(0.1); raw(first + len(WRAP), q, b"LEAK")`,
  ],
  [
    "a longer hello in place of a decoy, its end first",
    `q = begin(isn); raw(first, q, GOOD, options=MD5)
raw(first + n, q, WRAP[n:] + b"LEAK"); raw(first, q, WRAP[:n]); time.sleep(0.3)`,
  ],
  [
    "the same with IPv6 extension headers",
    `q = begin(isn); raw(first, q, GOOD, options=MD5)
raw(first, q, WRAP[:n], ext=v6); raw(first + n, q, WRAP[n:] + b"LEAK"); time.sleep(0.3)`,
  ],
  [
    "a good hello that the server has from before the first byte",
    "q = begin(isn + n); raw(first, q, GOOD); time.sleep(0.1); raw(first + n, q, EVIL); raw(first + 2 * n, q, b'LEAK')",
  ],
];

/** What honest clients do, and what they see; the mark reaches the server where it is sent. */
const HONEST: readonly (readonly [string, string, "leak" | ""])[] = [
  ["a hello that is lost, and sent again", "send(0, GOOD, options=MD5); s.send(GOOD); end()", ""],
  ["the same, sent again in two", "send(0, GOOD, options=MD5); send(0, GOOD[:60]); send(60, GOOD[60:]); print(answered())", ""],
  ["an end behind the hello", "s.send(GOOD); s.shutdown(1); end()", ""],
  ["a hello in two segments", "s.send(hello('web.example.com', pad=1800)); end()", ""],
  [
    "data before the server has acknowledged the hello",
    "send(0, GOOD, options=MD5); send(n, b'LEAK'); send(0, GOOD); send(n, b'LEAK'); print(answered())",
    "leak",
  ],
];

const NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3", "clang"] };

interface World {
  readonly it: Shop;
  readonly leaks: () => number;
  /** What a client with this code prints. */
  readonly play: (host: string, code: string) => Promise<string>;
  /** Client segments that userspace has read. */
  readonly read: () => Promise<number>;
}

async function world(t: Parameters<typeof shop>[0]): Promise<World> {
  const it = await shop(t, {
    listen: [],
    names: { "web.example.com": { A: [OUT.stripe], AAAA: [OUT.stripe6] }, "www.example.com": { A: [OUT.stripe] } },
    policies: { checkout: POLICY },
  });
  const server = it.lab.spawn("out", ["python3", it.lab.file("server.py", SERVER)]);
  await server.line((line) => line === "ready");
  const client = await it.client("checkout");
  for (const type of ["A", "AAAA"] as const) await client.resolve({ name: "web.example.com", type });
  let plays = 0;
  return {
    it,
    leaks: () => server.out.filter((line) => line === "leak").length,
    play: async (host, code) => {
      const file = it.lab.file(`play${plays++}.py`, `${PRELUDE}${RAW}${WRAPPED}${code}\n`);
      return (await it.lab.run("checkout", ["python3", file, host, "443"], { timeoutMs: 15_000 })).trim();
    },
    read: async () => (await it.agent.status()).counters["inspected"] as number,
  };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));

for (const host of [OUT.stripe, OUT.stripe6]) {
  test(`a hello that the kernel knows opens nothing for another one, and harms nobody (${host})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const { it, leaks, play, read } = await world(t);
    await it.lab.run("node", ["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_close=1"]);
    const teach = async (): Promise<void> => {
      assert.equal(await play(host, "s.send(GOOD); end()"), "answered");
      const before = await read();
      assert.equal(await play(host, "s.send(GOOD); end()"), "answered");
      assert.equal(await read(), before, "the kernel knows it");
    };
    await teach();
    // A mark behind a good hello is seen, so that those behind others would be.
    await play(host, "q = begin(isn); raw(first, q, GOOD); time.sleep(0.1); raw(first + n, q, b'LEAK'); time.sleep(0.1)");
    assert.equal(leaks(), 1);
    for (const [what, code] of ATTACKS) {
      await t.test(what, async () => {
        const before = leaks();
        await play(host, code);
        await pause(100);
        assert.equal(leaks(), before);
      });
    }
    await teach();
    for (const [what, code, leak] of HONEST) {
      await t.test(what, async () => {
        const from = it.agent.events().length;
        const before = leaks();
        assert.equal(await play(host, code), "answered");
        await pause(50);
        assert.equal(leaks() - before, leak === "" ? 0 : 1);
        const denied = it.agent.events().slice(from);
        assert.deepEqual(
          denied.filter(({ verdict }) => verdict === "deny"),
          [],
        );
      });
    }
    const { counters, queues } = await it.agent.status();
    assert.deepEqual([counters["faults"], queues["inspect"]?.["held"], queues["inspect"]?.["late"]], [0, 0, 0]);
  });
}

test("a known hello is forgotten with another name, another policy and another agent, and lasts while there is none", async (t) => {
  if (!need(t, NEEDS)) return;
  const { it, play, read } = await world(t);
  const good = (): Promise<string> => play(OUT.stripe, "s.send(GOOD); end()");
  const readOnce = async (): Promise<void> => {
    const before = await read();
    assert.equal(await good(), "answered");
    assert.equal(await read(), before + 1);
    assert.equal(await good(), "answered");
    assert.equal(await read(), before + 1, "known again");
  };
  await readOnce();
  await it.agent.stop();
  const used = JSON.parse(readFileSync(join(it.lab.dir, "state", "usage.json"), "utf8").split("\n")[1] ?? "{}") as {
    rules: [string, string, string, number][];
  };
  assert.deepEqual(
    used.rules.map(([, , name, count]) => [name, count]),
    [["web", 2]],
  );
  await it.start();
  await readOnce();
  await (await it.client("checkout")).resolve({ name: "www.example.com" });
  await readOnce();
  assert.equal(await play(OUT.stripe, "s.send(EVIL); end()"), "ConnectionResetError");
  await it.agent.kill();
  assert.equal(await good(), "answered", "nobody but the kernel is there");
  await it.start();
  await readOnce();
  await it.agent.kill();
  putPolicy(it.lab, "checkout.yaml", policy("checkout", NOBODY));
  await it.start();
  assert.match(await play(OUT.stripe, "s.send(GOOD); end()").catch(String), /Error/);
  await it.put("checkout", POLICY);
  await (await it.client("checkout")).resolve({ name: "web.example.com" });
  await readOnce();
  await it.put("checkout", NOBODY);
  assert.match(await play(OUT.stripe, "s.send(GOOD); end()").catch(String), /Error/);
});
