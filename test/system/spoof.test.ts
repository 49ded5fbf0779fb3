import assert from "node:assert/strict";
import { test } from "node:test";
import type { Event } from "../../src/model/event.ts";
import { need } from "../support/need.ts";
import { type LabPod, until } from "../support/lab.ts";
import { parse, stringify } from "yaml";
import { CHECKOUT, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

/** Sends a UDP datagram with any source address: `argv` = source, destination, port, text. */
const RAW = `
import socket, struct, sys
source, destination, port, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
six = ":" in source
family = socket.AF_INET6 if six else socket.AF_INET
a, b = socket.inet_pton(family, source), socket.inet_pton(family, destination)
def checksum(data):
    data += b"\\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
length = 8 + len(text)
udp = struct.pack("!HHHH", 4321, port, length, 0) + text
pseudo = a + b + (struct.pack("!IHBB", length, 0, 0, 17) if six else struct.pack("!BBH", 0, 17, length))
udp = struct.pack("!HHHH", 4321, port, length, checksum(pseudo + udp)) + text
if six:
    packet = struct.pack("!IHBB", 6 << 28, length, 17, 64) + a + b + udp
    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(packet, (destination, 0))
else:
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 7, 0, 64, 17, 0) + a + b + udp
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(packet, (destination, 0))
`;

for (const kind of ["routed", "bridge"] as const) {
  test(`a ${kind} pod cannot send with another's address`, async (t) => {
    if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] })) return;
    const open = { mode: "Enforce", egress: [{ action: "Accept", to: [{ networks: [`${OUT.far}/32`, `${OUT.evil6}/128`] }] }] };
    const it = await shop(t, {
      pods: [
        { name: "checkout", kind },
        { name: "thief", kind },
        { name: "stranger", kind, labels: { app: "none" } },
      ],
      policies: {
        checkout: { ...open, subject: { podSelector: { matchLabels: { app: "checkout" } } } },
        thief: { ...CHECKOUT, subject: { podSelector: { matchLabels: { app: "thief" } } } },
      },
    });
    const [checkout, thief] = ["checkout", "thief"].map((name) => it.lab.pods.find((pod) => pod.name === name)) as [LabPod, LabPod];
    const script = it.lab.file("raw.py", RAW);
    const send = (where: string, source: string, destination: string): Promise<string> =>
      it.lab.run(where, ["python3", script, source, destination, "7000", "spoof"]);
    const arrived = (from: string): number => it.out.seen().filter((seen) => seen.from === from).length;
    const spoofed = (from: number, address: string): Promise<Event> =>
      it.agent.event(`spoofed ${address}`, (e) => e.why === "spoofed-source" && e.source?.address === address, { from });

    await t.test("the tool works: its own address arrives where its policy says", async () => {
      for (const [own, to] of [
        [checkout.v4, OUT.far],
        [checkout.v6, OUT.evil6],
      ] as const)
        await send("checkout", own as string, to);
      await it.out.child.line((line) => line.includes(`"from":"${checkout.v4}"`));
      await it.out.child.line((line) => line.includes(`"from":"${checkout.v6}"`));
    });

    for (const [what, four, six] of [
      ["another pod's address", checkout.v4 as string, checkout.v6 as string],
      ["an address of nobody's", "10.244.9.9", "fd00:10:244::999"],
      ["an outside address", "198.51.100.99", "2001:db8::99"],
      ["the node's own address", it.lab.node.v4, it.lab.node.v6],
    ] as const) {
      await t.test(what, async () => {
        const from = it.agent.events().length;
        const before = [arrived(four), arrived(six)];
        await send("thief", four, OUT.far);
        await send("thief", six, OUT.evil6);
        // The kernel drops packets from its own addresses before anybody sees them (martians), IPv4 only.
        for (const address of [four, six].filter((one) => one !== it.lab.node.v4)) {
          const event = await spoofed(from, address);
          assert.deepEqual(
            [event.type, event.verdict, event.pod?.name, event.source?.interface],
            ["spoofed", "deny", "thief", thief.interface],
          );
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
        assert.deepEqual([arrived(four), arrived(six)], before, "nothing arrived");
      });
    }

    await t.test("TCP with a stolen address does not even begin", async () => {
      await it.lab.run("thief", ["ip", "addr", "add", `${checkout.v4}/32`, "dev", "eth0"]);
      await it.lab.run("thief", ["ip", "-6", "addr", "add", `${checkout.v6}/128`, "dev", "eth0", "nodad"]);
      const before = it.out.seen().length;
      for (const [own, to] of [
        [checkout.v4, OUT.far],
        [checkout.v6, `[${OUT.evil6}]`],
      ] as const) {
        const got = await it.lab.exec("thief", ["curl", "-s", "-m", "1", "--interface", own as string, `telnet://${to}:8080`]);
        assert.notEqual(got.status, 0);
      }
      assert.equal(it.out.seen().length, before);
      await it.lab.run("thief", ["ip", "addr", "del", `${checkout.v4}/32`, "dev", "eth0"]);
      await it.lab.run("thief", ["ip", "-6", "addr", "del", `${checkout.v6}/128`, "dev", "eth0"]);
    });

    await t.test("a flood of spoofed packets is dropped in the kernel, and disturbs nobody", async () => {
      const flood = it.lab.file("flood.py", `${RAW}\nfor i in range(20000): s.sendto(packet, (destination, 0))\n`);
      const before = (await it.agent.status()).counters["spoofed"] as number;
      await it.lab.run("thief", ["python3", flood, checkout.v4 as string, OUT.far, "7000", "x"]);
      const { counters } = await it.agent.status();
      assert.ok((counters["spoofed"] as number) - before < 200, `userspace saw ${counters["spoofed"]}`);
      const client = await it.client("checkout");
      assert.equal((await client.connect({ host: OUT.far, port: 8080, send: "x" })).data, "x");
    });

    await t.test("the victim and neighbour discovery go on", async () => {
      const client = await it.client("checkout");
      assert.equal((await client.datagram({ host: OUT.far, port: 7000, send: "me" })).data, "me");
      const gateway = kind === "routed" ? "fe80::1%eth0" : "fd00:10:244:1::1";
      if (kind === "bridge") await it.lab.run("checkout", ["ip", "-6", "neigh", "flush", "dev", "eth0"]);
      const own = await it.client("thief");
      assert.equal((await own.resolveThenConnect({ name: "api.stripe.com", type: "AAAA", port: 443, send: "x" })).connected?.data, "x");
      assert.equal((await client.connect({ host: OUT.evil6, port: 8080, send: "x" })).data, "x", `through ${gateway}`);
      const status = await it.agent.status();
      assert.equal(status.counters["faults"], 0);
    });
  });
}

// hash:net,iface holds one network with at most 64 interfaces (ipset(8)), and every routed pod's 0.0.0.0/0 is one.
test("no routed pod can spoof, however many guarded pods the node has", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3"] })) return;
  const it = await shop(t, {
    agent: false,
    pods: [{ name: "checkout", listed: false }],
    policies: { checkout: { ...CHECKOUT, subject: {} } },
  });
  const others = Array.from({ length: 70 }, (_, i) => ({
    namespace: "shop",
    name: `pod-${i}`,
    interface: `cali9${i}`,
    addresses: [`10.244.7.${i}`, `fd00:10:244:7::${i.toString(16)}`],
  }));
  await it.lab.run("node", ["ip", "-batch", "-"], {
    input: others.map(({ interface: name }) => `link add ${name} type veth peer name x${name}\n`).join(""),
  });
  await it.start();
  const file = parse(it.lab.podsFile()) as object;
  const { interface: iface, addresses } = it.lab.pods.find(({ name }) => name === "checkout") as LabPod;
  const list = async (pods: readonly unknown[]): Promise<unknown> => {
    it.lab.file("pods.yaml", stringify({ ...file, pods }));
    return until("all are guarded", async () => (await it.agent.status()).pods.filter(({ guarded }) => guarded).length === pods.length);
  };
  const from = it.agent.events().length;
  await list(others);
  await list([...others, { namespace: "shop", name: "checkout", interface: iface, addresses }]);
  const script = it.lab.file("raw.py", RAW);
  for (const [source, to] of [
    ["10.244.9.9", OUT.far],
    ["fd00:10:244::999", OUT.evil6],
  ] as const)
    await it.lab.run("checkout", ["python3", script, source, to, "7000", "spoof"]);
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.deepEqual(
    it.out.seen().filter(({ kind }) => kind === "udp-echo"),
    [],
  );
  assert.deepEqual(
    it.agent
      .events()
      .slice(from)
      .filter(({ why }) => why === "set-repaired"),
    [],
  );
});
