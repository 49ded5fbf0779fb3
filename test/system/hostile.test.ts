import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { clientIn } from "../support/client.ts";
import { LAB_COMMANDS, labFor } from "../support/lab.ts";
import type { Lab } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/** A pod whose program is the attacker: root in its own network namespace, with raw sockets. */

const NOTHING = { mode: "Enforce", subject: { podSelector: { matchLabels: { app: "attacker" } } }, egress: [] };

/** Runs Python with `lines` in a pod; it has `eth`, a packet socket on eth0, and builders of headers. Returns what it prints. */
async function attack(lab: Lab, pod: string, lines: readonly string[]): Promise<string> {
  return await lab.run(pod, ["python3", "-c", [...PRELUDE, ...lines].join("\n")], { timeoutMs: 10_000 });
}

const PRELUDE = [
  "import socket, struct, sys, time",
  "eth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); eth.bind(('eth0', 0))",
  "own_mac = eth.getsockname()[4]",
  "def csum(b):",
  "  b = b + bytes(len(b) % 2); s = sum(struct.unpack('!%dH' % (len(b) // 2), b))",
  "  while s >> 16: s = (s & 65535) + (s >> 16)",
  "  return 65535 - s",
  "def udp4(src, dst, sport, dport, data):",
  "  src, dst = socket.inet_aton(src), socket.inet_aton(dst); n = 8 + len(data)",
  "  h = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + n, 1, 0, 64, 17, 0, src, dst); h = h[:10] + struct.pack('!H', csum(h)) + h[12:]",
  "  return h + struct.pack('!HHHH', sport, dport, n, 0) + data",
  "def icmp6(src, dst, hops, type, data):",
  "  src, dst = socket.inet_pton(10, src), socket.inet_pton(10, dst); m = struct.pack('!BBH', type, 0, 0) + data",
  "  m = m[:2] + struct.pack('!H', csum(src + dst + struct.pack('!II', len(m), 58) + m)) + m[4:]",
  "  return struct.pack('!IHBB16s16s', 6 << 28, len(m), 58, hops, src, dst) + m",
];

/** Packets that reach eth0 of a namespace and hold `text`, for as long as `during` runs. */
async function seenAt(lab: Lab, where: string, text: string, during: () => Promise<unknown>): Promise<number> {
  const sniffer = lab.spawn(where, [
    "python3",
    "-uc",
    "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(('eth0', 0)); print('ready')\nwhile 1: print(s.recv(65535).hex())",
  ]);
  await sniffer.line((line) => line === "ready");
  await during();
  await new Promise((resolve) => setTimeout(resolve, 200)); // nothing should come: a bounded wait
  sniffer.kill("SIGKILL");
  return sniffer.out.filter((line) => line.includes(Buffer.from(text).toString("hex"))).length;
}

test("a bridged pod with a priority tag (802.1p) on its frames gets past neither its address nor its policy", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset", "python3"] })) return;
  const lab = await labFor(t);
  const pod = await lab.addPod({ name: "attacker", kind: "bridge" });
  await lab.addServer({ name: "out", addresses: ["198.51.100.11"] });
  await serve(lab, "out", [{ kind: "udp-echo", port: 7777 }]);
  // Bridge netfilter does not look at tagged frames; the IP layer strips tag 0 and takes them.
  const tagged = (source: string): readonly string[] => [
    "gateway = bytes.fromhex('0a580af40101')",
    `for i in range(3): eth.send(gateway + own_mac + struct.pack('!HHH', 0x8100, 0, 0x0800) + udp4('${source}', '198.51.100.11', 4444, 7777, b'tagged'))`,
  ];
  const spare = "10.244.1.200";
  assert.ok((await seenAt(lab, "out", "tagged", () => attack(lab, pod.name, tagged(spare)))) > 0, "without an agent they arrive");
  putPolicy(lab, "attacker.yaml", policy("attacker", NOTHING));
  await startAgent(lab);
  assert.equal(await seenAt(lab, "out", "tagged", () => attack(lab, pod.name, tagged(pod.v4 as string))), 0, "its own address");
  assert.equal(await seenAt(lab, "out", "tagged", () => attack(lab, pod.name, tagged(spare))), 0, "an address that nobody has");
});

for (const kind of ["routed", "bridge"] as const) {
  test(`neighbour discovery carries nothing past the node (${kind})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset", "python3"] })) return;
    const lab = await labFor(t);
    const pod = await lab.addPod({ name: "attacker", kind });
    await lab.addServer({ name: "out", addresses: ["2001:db8::11"] });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    putPolicy(lab, "attacker.yaml", policy("attacker", NOTHING));
    await startAgent(lab);
    const client = await clientIn(lab, pod.name);
    assert.equal((await client.connect({ host: "2001:db8::11", port: 443 })).code, "ECONNREFUSED", "denied, and reached by neighbour discovery");
    const gateway = kind === "routed" ? "eeeeeeeeeeee" : "0a580af40101";
    const send = [
      "for type in [133, 134, 135, 136, 143]:",
      "  for hops in [255, 64, 2]:",
      `    eth.send(bytes.fromhex('${gateway}') + own_mac + b'\\x86\\xdd' + icmp6('${pod.v6}', '2001:db8::11', hops, type, b'smuggled'))`,
    ];
    assert.equal(await seenAt(lab, "out", "smuggled", () => attack(lab, pod.name, send)), 0);
  });
}
