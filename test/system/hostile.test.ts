import assert from "node:assert/strict";
import { test } from "node:test";
import { policy, putPolicy, startAgent } from "../support/agent.ts";
import { clientIn } from "../support/client.ts";
import { LAB_COMMANDS, labFor, until } from "../support/lab.ts";
import type { Lab } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { dnsmasq } from "../support/resolvers.ts";
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
  const tagged = (source: string, text: string): readonly string[] => [
    "gateway = bytes.fromhex('0a580af40101')",
    `for i in range(3): eth.send(gateway + own_mac + struct.pack('!HHH', 0x8100, 0, 0x0800) + udp4('${source}', '198.51.100.11', 4444, 7777, b'${text}'))`,
  ];
  // Another text each time: seconds later the node still sends ICMP errors that quote an answer to nobody.
  const passed = (source: string, text: string): Promise<number> =>
    seenAt(lab, "out", text, () => attack(lab, pod.name, tagged(source, text)));
  const spare = "10.244.1.200";
  assert.ok((await passed(spare, "before")) > 0, "without an agent they arrive");
  putPolicy(lab, "attacker.yaml", policy("attacker", NOTHING));
  await startAgent(lab);
  assert.equal(await passed(pod.v4 as string, "its own address"), 0);
  assert.equal(await passed(spare, "an address that nobody has"), 0);
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
    assert.equal(
      (await client.connect({ host: "2001:db8::11", port: 443 })).code,
      "ECONNREFUSED",
      "denied, and reached by neighbour discovery",
    );
    const gateway = kind === "routed" ? "eeeeeeeeeeee" : "0a580af40101";
    const send = [
      "for type in [133, 134, 135, 136, 143]:",
      "  for hops in [255, 64, 2]:",
      `    eth.send(bytes.fromhex('${gateway}') + own_mac + b'\\x86\\xdd' + icmp6('${pod.v6}', '2001:db8::11', hops, type, b'smuggled'))`,
    ];
    assert.equal(await seenAt(lab, "out", "smuggled", () => attack(lab, pod.name, send)), 0);
  });
}

for (const kind of ["routed", "bridge"] as const) {
  test(`no packet, however odd, leaves a pod that may go nowhere (${kind})`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset", "python3", "conntrack"] })) return;
    const lab = await labFor(t);
    const pod = await lab.addPod({ name: "attacker", kind });
    await lab.addServer({ name: "out", addresses: ["198.51.100.11", "2001:db8::11"] });
    const gateway = kind === "routed" ? "eeeeeeeeeeee" : "0a580af40101";
    const odd = [
      `gw = bytes.fromhex('${gateway}') + own_mac`,
      `s4, d4 = socket.inet_aton('${pod.v4}'), socket.inet_aton('198.51.100.11')`,
      `s6, d6 = socket.inet_pton(10, '${pod.v6}'), socket.inet_pton(10, '2001:db8::11')`,
      "text = b'smuggled' * 4",
      "def ip4(proto, body, frag=0, options=b'', ident=7):",
      "  n = 20 + len(options)",
      "  h = struct.pack('!BBHHHBBH4s4s', 64 + n // 4, 0, n + len(body), ident, frag, 64, proto, 0, s4, d4) + options",
      "  return gw + b'\\x08\\0' + h[:10] + struct.pack('!H', csum(h)) + h[12:] + body",
      "def ip6(proto, body, hops=64): return gw + b'\\x86\\xdd' + struct.pack('!IHBB16s16s', 6 << 28, len(body), proto, hops, s6, d6) + body",
      "def sum4(proto, b, at): return b[:at] + struct.pack('!H', csum(s4 + d4 + struct.pack('!HH', proto, len(b)) + b)) + b[at + 2:]",
      "def sum6(proto, b, at): return b[:at] + struct.pack('!H', csum(s6 + d6 + struct.pack('!II', len(b), proto) + b)) + b[at + 2:]",
      "def tcp(flags, seq=1, ack=1): return struct.pack('!HHIIBBHHH', 1234, 443, seq, ack, 80, flags, 1000, 0, 0) + text",
      "udp = struct.pack('!HHHH', 1234, 53, 8 + len(text), 0) + text",
      "out = []",
      // Every protocol, with something like ports in front; every type of ICMP; every set of TCP flags.
      "out += [ip4(p, struct.pack('!HHHH', 1234, 443, 8 + len(text), 0) + text) for p in range(256)]",
      "out += [ip6(p, struct.pack('!HHHH', 1234, 443, 8 + len(text), 0) + text) for p in range(256)]",
      "for i in range(256):",
      "  m = struct.pack('!BBHHH', i, 0, 0, 1, 1) + text; out.append(ip4(1, m[:2] + struct.pack('!H', csum(m)) + m[4:]))",
      "  out += [ip6(58, sum6(58, m, 2), hops) for hops in (255, 1, 64)]",
      "for f in range(64): out += [ip4(6, sum4(6, tcp(f), 16)), ip6(6, sum6(6, tcp(f), 16)), ip4(6, tcp(f))]",
      // Errors about connections that are not there.
      "inner = struct.pack('!BBHHHBBH4s4s', 69, 0, 60, 1, 0, 64, 6, 0, d4, s4) + struct.pack('!HHI', 443, 1234, 1)",
      "for kind, code in ((3, 3), (3, 4), (5, 0), (11, 0), (12, 0)):",
      "  m = struct.pack('!BBHI', kind, code, 0, 0) + inner + text; out.append(ip4(1, m[:2] + struct.pack('!H', csum(m)) + m[4:]))",
      // Fragments: alone, overlapping, out of order, and an atomic one.
      "whole = sum4(17, udp, 6)",
      "out += [ip4(17, whole[8:], 1), ip4(17, whole[:16], 0x2000), ip4(17, whole[16:], 2), ip4(17, whole[:16], 0x2000, ident=8), ip4(17, whole[8:], 1, ident=8)]",
      "whole = sum6(17, udp, 6)",
      "frag = lambda offset, more, body, id=9: ip6(44, struct.pack('!BBHI', 17, 0, offset << 3 | more, id) + body)",
      "out += [frag(0, 0, whole), frag(0, 1, whole[:16]), frag(2, 0, whole[16:]), frag(1, 0, whole[8:], 10), frag(0, 1, whole[:8], 11), frag(1, 0, whole[8:], 11)]",
      // Extension headers: each kind, a chain of them, and source routes.
      "pad = lambda next: bytes([next, 0, 1, 4, 0, 0, 0, 0])",
      "route = lambda kind, next: bytes([next, 2, kind, 1, 0, 0, 0, 0]) + d6",
      "out += [ip6(h, pad(17) + whole) for h in (0, 60, 135, 139, 140)] + [ip6(43, route(k, 17) + whole) for k in (0, 2, 3, 4)]",
      "out += [ip6(60, pad(60) * n + pad(17) + whole) for n in (1, 7, 8, 20)] + [ip6(51, bytes([17, 4] + [0] * 22) + whole), ip6(60, pad(59) + text)]",
      "out += [ip4(17, sum4(17, udp, 6), options=o) for o in (b'\\x83\\x07\\x04' + d4 + b'\\0', b'\\x94\\x04\\0\\0', b'\\x44\\x08\\x05\\0\\0\\0\\0\\0', b'\\x07\\x07\\x04' + bytes(5))]",
      // Tunnels, and lengths that lie.
      "out += [ip4(4, udp4('10.0.0.1', '198.51.100.11', 1, 2, text)), ip4(41, ip6(17, whole)[14:]), ip6(41, ip6(17, whole)[14:]), ip6(4, udp4('10.0.0.1', '198.51.100.11', 1, 2, text))]",
      "out += [ip4(17, struct.pack('!HHHH', 1, 2, n, 0) + text) for n in (0, 7, 9, 4000)] + [ip4(6, tcp(2)[:12] + bytes([d << 4]) + tcp(2)[13:]) for d in range(16)]",
      "for p in out: eth.send(p)",
      "print(len(out))",
    ];
    const sent = (): Promise<number> => seenAt(lab, "out", "smuggled", () => attack(lab, pod.name, odd));
    assert.ok((await sent()) > 500, "without an agent most arrive");
    await lab.run("node", ["conntrack", "-F"]);
    putPolicy(lab, "attacker.yaml", policy("attacker", NOTHING));
    const agent = await startAgent(lab);
    assert.equal(await sent(), 0);
    const { counters } = await agent.status();
    assert.equal(counters["faults"], 0);
    assert.ok((counters["upcallsDenied"] ?? 0) > 100);
  });
}

for (const prefixes of ["", "interfacePrefixes: [ cali ]\n"]) {
  test(`nobody's packet is a resolver's reply, and unguarded pods are left alone (${prefixes === "" ? "without" : "with"} interface prefixes)`, async (t) => {
    if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset", "python3", "dnsmasq"] })) return;
    const lab = await labFor(t);
    const dns = await lab.addPod({ name: "coredns", namespace: "kube-system" });
    const victim = await lab.addPod({ name: "victim" });
    const stranger = await lab.addPod({ name: "stranger" });
    await lab.service({ address: "10.96.0.10", port: 53, target: dns.v4 as string, targetPort: 5353 });
    lab.setResolvers(["10.96.0.10"]);
    await lab.addServer({ name: "out", addresses: ["198.51.100.10", "198.51.100.66"] });
    await dnsmasq(lab, dns.name, { port: 5353, records: { "api.stripe.com": ["198.51.100.10"] } });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    const rule = { action: "Accept", to: [{ domainNames: ["*.stripe.com"] }], ports: [{ protocol: "TCP", port: 443 }] };
    putPolicy(
      lab,
      "victim.yaml",
      policy("victim", { mode: "Enforce", subject: { podSelector: { matchLabels: { app: "victim" } } }, egress: [rule] }),
    );
    const plain = lab.podsFile();
    lab.podsFile = () => plain + prefixes;
    const agent = await startAgent(lab);
    const query = "123401000001000000000000036170690673747269706503636f6d0000010001";
    const asks = `s = socket.socket(2, 2); s.settimeout(3); s.bind(('${victim.v4}', 40000)); s.sendto(bytes.fromhex('${query}'), ('10.96.0.10', 53)); print(len(s.recv(999)))`;
    assert.equal((await attack(lab, victim.name, [asks])).trim(), "48");
    // The same names in a reply of another id, to the same port, while conntrack still knows the question.
    const forged = "99998180000100010000000003616e790673747269706503636f6d0000010001c00c0001000100000e100004c6336442";
    await attack(lab, stranger.name, [
      `eth.send(bytes.fromhex('eeeeeeeeeeee') + own_mac + b'\\x08\\0' + udp4('${dns.v4}', '${victim.v4}', 5353, 40000, bytes.fromhex('${forged}')))`,
    ]);
    const client = await clientIn(lab, victim.name);
    assert.equal((await client.connect({ host: "198.51.100.10", port: 443, send: "x" })).data, "x", "what the resolver said");
    assert.equal((await client.connect({ host: "198.51.100.66", port: 443 })).code, "ECONNREFUSED", "what the stranger said");
    const left = await clientIn(lab, stranger.name);
    assert.equal((await left.connect({ host: "198.51.100.66", port: 443, send: "x" })).data, "x", "an unguarded pod goes where it wants");
    assert.equal((await agent.status()).pods.find(({ name }) => name === "victim")?.bindings, 1);
  });
}

test("a pod that takes over another's address is guarded like any other", async (t) => {
  if (!need(t, { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset"] })) return;
  const lab = await labFor(t);
  lab.setResolvers(["10.96.0.10"]);
  const one = await lab.addPod({ name: "one", v6: false });
  const two = await lab.addPod({ name: "two", v6: false });
  const { subject: _, ...everyone } = {
    ...NOTHING,
    dns: { queries: "AllowedOnly" },
    egress: [{ action: "Accept", to: [{ networks: ["203.0.113.0/24"] }], ports: [{ port: 443 }] }],
  };
  putPolicy(lab, "all.yaml", policy("all", everyone));
  const agent = await startAgent(lab);
  const sets = ["ng-src4", "ng-guard4", "ng-query4", "ng-net4"];
  const before = (await agent.status()).sets;
  // The new holder is listed before the old one, which has another address now.
  const entry = (name: string, iface: string, address: string): object => ({
    namespace: "shop",
    name,
    interface: iface,
    addresses: [address],
  });
  const pods = [entry("two", two.interface, one.v4 as string), entry("one", one.interface, "10.244.0.99")];
  lab.file("pods.yaml", JSON.stringify({ resolvers: ["10.96.0.10:53"], pods }));
  await until(
    "the exchange is in the kernel",
    async () => (await lab.exec("node", ["ipset", "test", "ng-guard4", "10.244.0.99"])).status === 0,
  );
  for (const set of ["ng-guard4", "ng-query4"]) await lab.run("node", ["ipset", "test", set, one.v4 as string]);
  const after = (await agent.status()).sets;
  for (const set of sets) assert.equal(after[set], before[set], set);
});
