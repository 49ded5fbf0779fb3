import assert from "node:assert/strict";
import { test } from "node:test";
import { PRELUDE, RECORDER } from "../support/disguise.ts";
import { need } from "../support/need.ts";
import { OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

/**
 * What tools do that want to say one server name to a firewall and another to the server. The pod is root in its namespace:
 * the kernel makes the connection, and segments of any shape are put beside its own.
 */

const NAMED = { action: "Accept", to: [{ domainNames: ["web.example.com"] }] };
const POLICY = {
  mode: "Enforce",
  subject: { podSelector: { matchLabels: { app: "checkout" } } },
  egress: [
    { ...NAMED, name: "web", ports: [{ protocol: "TCP", port: 443 }], application: "tls" },
    { ...NAMED, name: "shell", ports: [{ protocol: "TCP", port: 22 }], application: "ssh" },
  ],
};

/** What the client does | in Python | what it sees | why it is denied (null: it is not; *: for one reason or another). */
const ROWS: readonly (readonly [string, string, string, string | null])[] = [
  ["two segments, the second one first", "send(60, GOOD[60:]); send(0, GOOD[:60]); print(answered())", "answered", null],
  ["the same, with the wrong name", "send(60, EVIL[60:]); send(0, EVIL[:60]); print(refused())", "reset", "wrong-server-name"],
  ["twenty segments, backwards", "for i in reversed(range(0, len(GOOD), 8)): send(i, GOOD[i:i+8])\nprint(answered())", "answered", null],
  [
    "each segment twice",
    "for i in range(0, len(GOOD), 40): send(i, GOOD[i:i+40]); send(i, GOOD[i:i+40])\nprint(answered())",
    "answered",
    null,
  ],
  ["an overlap that says something else", "send(0, EVIL[:100]); send(0, GOOD); print(refused())", "reset", "evasion"],
  ["a decoy with a low TTL", "send(0, GOOD, ttl=1); time.sleep(0.1); s.send(EVIL); end()", "ConnectionResetError", "evasion"],
  [
    "a decoy with a TCP-MD5 option",
    "send(0, GOOD, options=b'\\x13\\x12' + bytes(16) + b'\\1\\1'); s.send(EVIL); end()",
    "ConnectionResetError",
    "evasion",
  ],
  ["a decoy with a bad checksum", "send(0, GOOD, bad=True); s.send(EVIL); end()", "ConnectionResetError", "wrong-server-name"],
  ["a decoy out of the stream", "send(2000, GOOD); s.send(EVIL); end()", "ConnectionResetError", "wrong-server-name"],
  [
    "a decoy from before the first byte",
    "send(-len(GOOD), GOOD); time.sleep(0.1); s.send(EVIL); end()",
    "ConnectionResetError",
    "wrong-server-name",
  ],
  ["a byte of urgent data", "send(0, GOOD[:50], flags=0x38); print(refused())", "reset", "evasion"],
  ["IP fragments", "fragments(0, GOOD); print(answered())", "answered", null],
  ["IP fragments, the wrong name", "fragments(0, EVIL); print(refused())", "reset", "wrong-server-name"],
  ["TLS records of ten bytes", "s.send(hello('web.example.com', size=10)); end()", "answered", null],
  [
    "TLS records of ten bytes, the wrong name",
    "s.send(hello('evil.example.com', size=10)); end()",
    "ConnectionResetError",
    "wrong-server-name",
  ],
  ["a hello of 60 KiB", "s.sendall(hello('web.example.com', pad=60000)); end()", "answered", null],
  [
    "a hello of 60 KiB, the wrong name",
    "s.sendall(hello('evil.example.com', pad=60000)); last()",
    "ConnectionResetError",
    "wrong-server-name",
  ],
  ["junk before the hello", "s.send(b'\\x14\\3\\3\\0\\1\\1' + GOOD); end()", "ConnectionResetError", "*"],
  ["something that nobody knows", "s.send(b'\\xee' * 50); end()", "ConnectionResetError", "wrong-protocol"],
];

const NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] };

async function world(
  t: Parameters<typeof shop>[0],
  kind: "routed" | "bridge",
  known: boolean,
): Promise<{ it: Shop; lines: () => readonly string[] }> {
  const it = await shop(t, {
    pods: [{ name: "checkout", kind }],
    listen: [],
    names: { "web.example.com": { A: [OUT.stripe], AAAA: [OUT.stripe6] } },
    policies: { checkout: POLICY },
    args: ["--known-hellos", known ? "on" : "off"],
  });
  const recorder = it.lab.spawn("out", ["python3", it.lab.file("recorder.py", RECORDER)]);
  await recorder.line((line) => line === "ready");
  const client = await it.client("checkout");
  await client.resolve({ name: "web.example.com" });
  await client.resolve({ name: "web.example.com", type: "AAAA" });
  return { it, lines: () => recorder.out };
}

let plays = 0;
async function play(it: Shop, host: string, port: number, code: string): Promise<string> {
  return (
    await it.lab.run("checkout", ["python3", it.lab.file(`play${plays++}.py`, `${PRELUDE}\n${code}\n`), host, String(port)], {
      timeoutMs: 15_000,
    })
  ).trim();
}

for (const [kind, host, known] of [
  ["routed", OUT.stripe, true],
  ["routed", OUT.stripe6, true],
  ["routed", OUT.stripe, false],
  ["bridge", OUT.stripe6, false],
] as const) {
  const how = `${kind}, ${host}, ${known ? "the good hello is known to the kernel" : "userspace reads every hello"}`;
  test(`no disguise of a server name gets through, and no honest one is stopped (${how})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const { it, lines } = await world(t, kind, known);
    await play(it, host, 443, "s.send(GOOD); end()");
    const read = async (): Promise<number> => (await it.agent.status()).counters["inspected"] as number;
    const before = await read();
    assert.equal(await play(it, host, 443, "s.send(GOOD); end()"), "answered");
    assert.equal(await read(), known ? before : before + 1);
    for (const [what, code, seen, why] of ROWS) {
      await t.test(what, async () => {
        const from = it.agent.events().length;
        const seenBefore = lines().length;
        assert.equal(await play(it, host, 443, code), seen);
        if (why !== null) {
          const event = await it.agent.event("denied", (e) => e.type === "connection" && e.verdict === "deny", { from });
          if (why !== "*") assert.equal(event.why, why, event.message ?? "");
          // The server learns of it too, and has seen no whole hello with the wrong name.
          const deadline = Date.now() + 3000;
          while (lines().length === seenBefore && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
          assert.match(lines()[seenBefore] ?? "nothing", /^reset/);
        }
      });
    }
    const { counters, queues } = await it.agent.status();
    assert.deepEqual([counters["faults"], queues["inspect"]?.["held"], queues["inspect"]?.["late"]], [0, 0, 0]);
  });
}

test("a drip is waited for five seconds, a server that speaks first is let speak", async (t) => {
  if (!need(t, NEEDS)) return;
  const { it } = await world(t, "routed", true);
  const from = it.agent.events().length;
  const drip = play(
    it,
    OUT.stripe,
    443,
    "try:\n  for i in range(40): s.send(GOOD[i:i+1]); time.sleep(0.25)\n  print('sent')\nexcept OSError as error: print(type(error).__name__)",
  );
  const shell = "print(s.recv(99).decode().strip()); s.send(b'SSH-2.0-test\\r\\n'); print(s.recv(9).decode())";
  assert.equal(await play(it, OUT.stripe, 22, shell), "SSH-2.0-OpenSSH_9.2\nanswer");
  const other = "print(s.recv(99).decode().strip()); s.send(GOOD); end()";
  assert.match(await play(it, OUT.stripe, 22, other), /ConnectionResetError/);
  assert.match(await drip, /Error/);
  const whys = it.agent
    .events()
    .slice(from)
    .filter((e) => e.verdict === "deny");
  assert.deepEqual(
    whys.map(({ why }) => why),
    ["wrong-protocol", "incomplete"],
  );
});
