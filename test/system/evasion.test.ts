import assert from "node:assert/strict";
import { test } from "node:test";
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

/** A server that says how each connection ended, `reset`, `end` or `silence`, and what reached it. It answers the first bytes. */
const RECORDER = `
import socket, threading
def serve(s):
    got = b""
    s.settimeout(9)
    try:
        while True:
            b = s.recv(65536)
            if not b: how = "end"; break
            if not got: s.sendall(b"answer")
            got += b
    except ConnectionResetError: how = "reset"
    except OSError: how = "silence"
    print(how, len(got), "evil" if b"evil" in got else "-", flush=True)
l = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True)
def banner():
    b = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        s = b.accept()[0]; s.sendall(b"SSH-2.0-OpenSSH_9.2\\r\\n"); threading.Thread(target=serve, args=(s,)).start()
threading.Thread(target=banner, daemon=True).start()
print("ready", flush=True)
while True: threading.Thread(target=serve, args=(l.accept()[0],)).start()
`;

/** `hello(name)`, a connected socket `s`, and `send(offset, bytes, ...)`, which puts a segment on the wire beside the kernel's. */
const PRELUDE = `
import socket, struct, sys, time
host, port = sys.argv[1], int(sys.argv[2])
v6 = ":" in host
eth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); eth.bind(("eth0", 0)); eth.settimeout(3)
def records(body, size=16384): return b"".join(b"\\x16\\x03\\x01" + struct.pack("!H", len(body[i:i+size])) + body[i:i+size] for i in range(0, len(body), size))
def hello(name, pad=0, size=16384):
    name = name.encode()
    ext = struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    ext += struct.pack("!HHBHH", 43, 5, 4, 0x0304, 0x0303) + struct.pack("!HHHH", 10, 4, 2, 29) + struct.pack("!HHHHH", 13, 6, 4, 0x0403, 0x0804)
    if pad: ext = struct.pack("!HH", 21, pad) + bytes(pad) + ext
    body = b"\\x03\\x03" + bytes(range(32)) + b"\\0" + struct.pack("!HHH", 4, 0x1301, 0xc02f) + b"\\x01\\0" + struct.pack("!H", len(ext)) + ext
    return records(b"\\x01" + struct.pack("!I", len(body))[1:] + body, size)
GOOD, EVIL = hello("web.example.com"), hello("evil.exampl.com")
assert len(GOOD) == len(EVIL)
s = socket.create_connection((host, port), timeout=3); s.settimeout(8)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
own = s.getsockname()
while True: # the third packet of the handshake has every number
    f = eth.recv(65535)
    if struct.unpack("!H", f[12:14])[0] not in (0x0800, 0x86dd): continue
    at = 14 + (40 if v6 else (f[14] & 15) * 4)
    if f[at-0 : at+2] == struct.pack("!H", own[1]) and f[at+13] == 16: break
mac, seq, ack = f[:14], struct.unpack("!I", f[at+4:at+8])[0], struct.unpack("!I", f[at+8:at+12])[0]
def csum(b):
    b = b + bytes(len(b) % 2); x = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while x >> 16: x = (x & 65535) + (x >> 16)
    return 65535 - x
fam = socket.AF_INET6 if v6 else socket.AF_INET
src, dst = socket.inet_pton(fam, own[0]), socket.inet_pton(fam, host)
def ip(body, ttl, frag=0, proto=6, ident=7):
    if v6: return mac + struct.pack("!IHBB", 6 << 28, len(body), proto, ttl) + src + dst + body
    h = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(body), ident, frag, ttl, proto, 0, src, dst)
    return mac + h[:10] + struct.pack("!H", csum(h)) + h[12:] + body
def segment(offset, data, flags=24, options=b"", bad=False):
    t = struct.pack("!HHIIBBHHH", own[1], port, (seq + offset) & 0xffffffff, ack, (20 + len(options)) << 2, flags, 500, 0, 0) + options + data
    pseudo = src + dst + (struct.pack("!II", len(t), 6) if v6 else struct.pack("!HH", 6, len(t)))
    c = csum(pseudo + t) ^ (0x5555 if bad else 0)
    return t[:16] + struct.pack("!H", c) + t[18:]
def send(offset, data, ttl=64, **more): eth.send(ip(segment(offset, data, **more), ttl)); time.sleep(0.002)
def fragments(offset, data):
    t = segment(offset, data)
    for i in range(0, len(t), 64):
        part, more = t[i:i+64], i + 64 < len(t)
        if v6: eth.send(ip(struct.pack("!BBHI", 6, 0, i | more, 99) + part, 64, proto=44))
        else: eth.send(ip(part, 64, (i >> 3) | (0x2000 if more else 0)))
    time.sleep(0.002)
def answered(timeout=2): # is there an answer on the wire? (the kernel does not know what we have sent)
    until = time.time() + timeout
    while time.time() < until:
        try: f = eth.recv(65535)
        except OSError: break
        if f[:6] == mac[6:12] and b"answer" in f: return "answered"
        if f[:6] == mac[6:12] and len(f) >= at + 14 and f[at+2:at+4] == struct.pack("!H", own[1]) and f[at+13] & 4: return "reset"
    return "silence"
def refused(): # whatever the server has said to the first bytes
    seen = answered()
    while seen == "answered": seen = answered()
    return seen
def last():
    try:
        while s.recv(9): pass
        print("closed")
    except OSError as error: print(type(error).__name__)
def end():
    try: print("answered" if s.recv(9) else "closed")
    except OSError as error: print(type(error).__name__)
`;

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
  ["a decoy out of the stream", "send(2000, GOOD); s.send(EVIL); end()", "ConnectionResetError", "evasion"],
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

async function world(t: Parameters<typeof shop>[0], kind: "routed" | "bridge"): Promise<{ it: Shop; lines: () => readonly string[] }> {
  const it = await shop(t, {
    pods: [{ name: "checkout", kind }],
    listen: [],
    names: { "web.example.com": { A: [OUT.stripe], AAAA: [OUT.stripe6] } },
    policies: { checkout: POLICY },
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

for (const kind of ["routed", "bridge"] as const) {
  for (const host of [OUT.stripe, OUT.stripe6]) {
    test(`no disguise of a server name gets through, and no honest one is stopped (${kind}, ${host})`, async (t) => {
      if (!need(t, NEEDS)) return;
      const { it, lines } = await world(t, kind);
      for (const [what, code, seen, why] of ROWS) {
        await t.test(what, async () => {
          const from = it.agent.events().length;
          const before = lines().length;
          assert.equal(await play(it, host, 443, code), seen);
          if (why !== null) {
            const event = await it.agent.event("denied", (e) => e.type === "connection" && e.verdict === "deny", { from });
            if (why !== "*") assert.equal(event.why, why, event.message ?? "");
            // The server learns of it too, and has seen no whole hello with the wrong name.
            const deadline = Date.now() + 3000;
            while (lines().length === before && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
            assert.match(lines()[before] ?? "nothing", /^reset/);
          }
        });
      }
      const { counters, queues } = await it.agent.status();
      assert.deepEqual([counters["faults"], queues["inspect"]?.["held"], queues["inspect"]?.["late"]], [0, 0, 0]);
    });
  }
}

test("a drip is waited for five seconds, a server that speaks first is let speak", async (t) => {
  if (!need(t, NEEDS)) return;
  const { it } = await world(t, "routed");
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
