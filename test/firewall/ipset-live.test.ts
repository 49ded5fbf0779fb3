import assert from "node:assert/strict";
import { test } from "node:test";
import { addon } from "../../src/base/addon.ts";
import { cidrText, type Ip, ipText, parseIp } from "../../src/base/address.ts";
import { type DumpedElement, type Element, Ipset, IpsetBatch, IpsetDump, type SetHeader, type SetSpec } from "../../src/firewall/ipset.ts";
import { BUCKETS } from "../../src/worker/kernel.ts";
import { insideNamespace, run } from "./netns.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const SPECS: readonly Omit<SetSpec, "family">[] = [
  { name: "src", type: "hash:net,iface", skbinfo: true },
  { name: "resolver", type: "hash:ip,port", maxElements: 512 },
  { name: "guard", type: "hash:ip", hashSize: 64 },
  { name: "allow", type: "hash:ip,port,ip", timeout: 0, counters: true, skbinfo: true, maxElements: 262_144 },
  { name: "name", type: "hash:ip,port,ip", timeout: 30, comment: true, maxElements: 262_144 },
  { name: "net", type: "hash:ip,port,net", skbinfo: true },
];
const MARK = { mark: 1, markMask: 7 };
const COMMENT = "ü".repeat(100) + "x".repeat(53); // 253 octets, as a name is

/** [set, element, what `ipset save` prints behind the set's name]. */
function rows(family: 4 | 6): [string, Element, string][] {
  const [dst, pod, any, net] =
    family === 4
      ? [ip("192.0.2.1"), ip("10.0.0.1"), ip("0.0.0.0"), ip("198.51.100.0")]
      : [ip("2001:db8::1"), ip("fd00::1"), ip("::"), ip("2001:db8:1::")];
  const host = family === 4 ? 32 : 128;
  const bits2 = family === 4 ? 24 : 48;
  const icmp = family === 4 ? "icmp:echo-request" : "ipv6-icmp:echo-request";
  const [d, p] = [ipText(dst), ipText(pod)];
  return [
    ["src", { address: pod, bits: host, iface: "veth0", ...MARK }, `${p},veth0 skbmark 0x1/0x7`],
    ["src", { address: any, bits: 0, iface: "veth0", mark: 4, markMask: 7 }, `${ipText(any)}/0,veth0 skbmark 0x4/0x7`],
    [
      "src",
      { address: any, bits: 0, iface: "cali", wildcard: true, mark: 0xffffffff, markMask: 0xffffffff },
      `${ipText(any)}/0,cali wildcard skbmark 0xffffffff`,
    ],
    ["src", { address: pod, iface: "fifteen-letters", ...MARK }, `${p},fifteen-letters skbmark 0x1/0x7`],
    ["resolver", { address: dst, protocol: 17, port: 53 }, `${d},udp:53`],
    ["resolver", { address: dst, protocol: 6, port: 65535 }, `${d},tcp:65535`],
    ["guard", { address: dst }, d],
    [
      "allow",
      { address: dst, protocol: 6, port: 443, address2: pod, timeout: 2_147_483, ...MARK },
      `${d},tcp:443,${p} timeout 2147483 packets 0 bytes 0 skbmark 0x1/0x7`,
    ],
    [
      "allow",
      { address: dst, protocol: family === 4 ? 1 : 58, port: (family === 4 ? 8 : 128) << 8, address2: pod, timeout: 0, ...MARK },
      `${d},${icmp},${p} timeout 0 packets 0 bytes 0 skbmark 0x1/0x7`,
    ],
    [
      "name",
      { address: dst, protocol: 6, port: 443, address2: pod, comment: COMMENT },
      `${d},tcp:443,${p} timeout 30 comment "${COMMENT}"`,
    ],
    [
      "name",
      { address: dst, protocol: 132, port: 1, address2: pod, timeout: 600, comment: "x".repeat(255) },
      `${d},sctp:1,${p} timeout 600 comment "${"x".repeat(255)}"`,
    ],
    [
      "net",
      { address: pod, protocol: 6, port: 443, address2: net, bits2, ...MARK },
      `${p},tcp:443,${cidrText({ ip: net, bits: bits2 })} skbmark 0x1/0x7`,
    ],
  ];
}

/** A timeout as printed has lost up to a second or two. */
const settled = (line: string): string => line.replace(/timeout (\d+)/, (_, n: string) => `timeout ${Math.ceil(Number(n) / 10) * 10}`);

if (insideNamespace(import.meta.url, ["ipset", "ip"])) {
  const { NetlinkSocket } = addon();
  const socket = new NetlinkSocket();
  const ipset = new Ipset(socket);
  const batch = new IpsetBatch();
  const dumps = new NetlinkSocket();
  const read = (set: string): DumpedElement[] => {
    const dump = new IpsetDump(dumps);
    const elements: DumpedElement[] = [];
    assert.ok(dump.start(set));
    let state = dump.next((e) => elements.push({ ...e }));
    for (; state === "more"; state = dump.next((e) => elements.push({ ...e })));
    assert.equal(state, "done", dump.refusal?.text);
    assert.equal(dump.count, elements.length);
    return elements;
  };
  const destroyAll = (): void => {
    for (const set of ipset.list() as SetHeader[]) assert.equal(ipset.destroy(set.name), undefined);
  };

  test("protocol and set types", () => {
    assert.deepEqual(ipset.protocol(), { min: 6, max: 7 });
    assert.deepEqual(ipset.probe(["hash:ip", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net", "hash:net,iface"]), []);
    const lacking = ipset.probe(["hash:net,nothing" as "hash:ip"]);
    assert.deepEqual(
      lacking.map((l) => [l.family, l.refusal.code]),
      [
        [4, "type"],
        [6, "type"],
      ],
    );
  });

  for (const family of [4, 6] as const) {
    test(`IPv${family}: sets and elements as the ipset tool sees them, and back`, () => {
      for (const spec of SPECS) assert.equal(ipset.create({ ...spec, name: spec.name + family, family }), undefined);
      for (const spec of SPECS) assert.equal(ipset.create({ ...spec, name: spec.name + family, family }), undefined, "again");
      assert.equal(ipset.create({ name: `guard${family}`, type: "hash:ip,port", family })?.code, "set-exists");
      const all = rows(family);
      for (const [set, element] of all) assert.ok(batch.add(set + family, element) >= 0);
      assert.deepEqual(batch.commit(socket), { applied: all.length, failures: [] });
      const saved = run("ipset", "save")
        .split("\n")
        .filter((l) => l.startsWith("add "));
      assert.deepEqual(saved.map(settled).sort(), all.map(([set, , text]) => settled(`add ${set}${family} ${text}`)).sort());

      for (const [set, wanted] of all) {
        const found = read(set + family).filter(
          (e) => e.address === wanted.address && e.iface === (wanted.iface ?? "") && e.port === (wanted.port ?? 0),
        );
        assert.equal(found.length, 1, `${set}: ${found.length}`);
        const e = found[0] as DumpedElement;
        assert.equal(e.bits, wanted.bits ?? e.address.length * 8);
        assert.equal(e.protocol, wanted.protocol ?? 0);
        assert.equal(e.address2, wanted.address2 ?? "");
        assert.equal(e.bits2, wanted.bits2 ?? e.address2.length * 8);
        assert.equal(e.wildcard, wanted.wildcard ?? false);
        assert.equal(e.comment, wanted.comment ?? "");
        assert.equal(e.mark, wanted.mark ?? 0);
        assert.equal(e.markMask, wanted.markMask ?? 0);
        const timeout = wanted.timeout ?? (set === "name" ? 30 : -1);
        assert.ok(e.timeout <= timeout && e.timeout >= timeout - 2, `${e.timeout} of ${timeout}`);
      }

      const listed = ipset.list() as SetHeader[];
      assert.deepEqual(
        listed.map((s) => s.name),
        SPECS.map((s) => s.name + family),
      );
      for (const spec of SPECS) {
        const header = listed.find((s) => s.name === spec.name + family) as SetHeader;
        const { type, maxElements, timeout, counters, comment, skbinfo } = header;
        assert.deepEqual(
          { type, maxElements, timeout, counters, comment, skbinfo, family: header.family },
          {
            type: spec.type,
            maxElements: spec.maxElements ?? 65_536,
            timeout: spec.timeout,
            counters: spec.counters ?? false,
            comment: spec.comment ?? false,
            skbinfo: spec.skbinfo ?? false,
            family,
          },
        );
        assert.equal(header.elements, all.filter(([set]) => set === spec.name).length);
        assert.equal(header.references, 0);
      }

      for (const [set, element] of [...all, ...all]) batch.del(set + family, element);
      assert.deepEqual(batch.commit(socket), { applied: 2 * all.length, failures: [] });
      assert.equal(run("ipset", "save").includes("\nadd "), false);
      destroyAll();
      assert.equal(run("ipset", "save"), "");
    });

    test(`IPv${family}: 10 000 elements, a refresh, and the dump of them`, () => {
      const name = `allow${family}`;
      assert.equal(
        ipset.create({ name, type: "hash:ip,port,ip", family, timeout: 0, counters: true, comment: true, skbinfo: true }),
        undefined,
      );
      const pod = family === 4 ? ip("10.9.9.9") : ip("fd00::9");
      const address = (i: number): Ip => (pod.slice(0, -2) + String.fromCharCode(i >> 8, i & 255)) as Ip;
      for (const timeout of [500, 900]) {
        for (let i = 0; i < 10_000; i++)
          assert.ok(batch.addIpPortIp(name, address(i), 6, 443, pod, timeout, 1, 7, `name-${i}.example.com`) >= 0);
        assert.deepEqual(batch.commit(socket), { applied: 10_000, failures: [] });
      }
      const seen = new Set<number>();
      for (const e of read(name)) {
        const i = (e.address.charCodeAt(e.address.length - 2) << 8) | e.address.charCodeAt(e.address.length - 1);
        assert.equal(e.comment, `name-${i}.example.com`);
        assert.ok(e.timeout > 800);
        seen.add(i);
      }
      assert.equal(seen.size, 10_000);
      assert.equal(ipset.flush(name), undefined);
      assert.equal(read(name).length, 0);
      destroyAll();
    });
  }

  test("100 000 elements fit into the sets that grow with traffic, without a wait of the kernel's for larger ones", () => {
    const buckets = (name: string): number | undefined =>
      (ipset.list() as readonly SetHeader[]).find((header) => header.name === name)?.hashSize;
    const grows = { type: "hash:ip,port,ip", family: 4, timeout: 0, maxElements: 524_288 } as const;
    assert.equal(ipset.create({ ...grows, name: "large", hashSize: BUCKETS }), undefined);
    assert.equal(ipset.create({ ...grows, name: "usual" }), undefined);
    for (let i = 0; i < 100_000; i++) {
      const address = String.fromCharCode(198, 18 + (i >> 16), (i >> 8) & 255, i & 255) as Ip;
      const element = { address, protocol: 6, port: 443, address2: ip("10.9.9.9"), timeout: 500 };
      batch.add("large", element);
      if (i < 20_000) batch.add("usual", element);
      if (i % 2000 === 1999) assert.equal(batch.commit(socket).failures[0], undefined);
    }
    assert.equal(buckets("large"), BUCKETS);
    assert.ok((buckets("usual") as number) > 1024, "one as the kernel makes it grows");
    destroyAll();
  });

  test("a full set is said to be full, and what was in it is refreshed all the same", () => {
    assert.equal(ipset.create({ name: "small", type: "hash:ip", family: 4, maxElements: 300, timeout: 0 }), undefined);
    for (let i = 0; i < 300; i++) batch.add("small", { address: String.fromCharCode(10, 0, i >> 8, i & 255) as Ip, timeout: 100 });
    assert.equal(batch.commit(socket).applied, 300);
    // The order: new, old, new, old, ... (every second one refused).
    const wanted: number[] = [];
    for (let i = 0; i < 300; i++) {
      wanted.push(batch.add("small", { address: String.fromCharCode(10, 1, i >> 8, i & 255) as Ip, timeout: 100 }));
      batch.add("small", { address: String.fromCharCode(10, 0, i >> 8, i & 255) as Ip, timeout: 5000 });
    }
    const { applied, failures } = batch.commit(socket);
    assert.equal(applied, 300);
    assert.deepEqual(
      failures.map((f) => f.index),
      wanted,
    );
    for (const f of failures) assert.deepEqual([f.set, f.command, f.refusal.code, f.refusal.text], ["small", "add", "full", "set is full"]);
    const elements = read("small");
    assert.equal(elements.length, 300);
    for (const e of elements) assert.ok(e.timeout > 4000);
    destroyAll();
  });

  test("partial failures name their element; the others go in", () => {
    assert.equal(ipset.create({ name: "net4", type: "hash:ip,port,net", family: 4 }), undefined);
    assert.equal(ipset.create({ name: "src4", type: "hash:net,iface", family: 4, skbinfo: true }), undefined);
    const net = (last: number, extra: Partial<Element> = {}): Element => ({
      address: ip(`10.0.0.${last}`),
      protocol: 6,
      port: 443,
      address2: ip("192.0.2.0"),
      bits2: 24,
      ...extra,
    });
    assert.equal(batch.add("net4", net(1)), 0);
    assert.equal(batch.add("net4", net(2, { bits2: 0 })), 1);
    assert.equal(batch.add("net4", net(3)), 2);
    assert.equal(batch.add("net4", net(4, { timeout: 3 })), 3);
    assert.equal(batch.add("net4", net(5, { comment: "no" })), 4);
    assert.equal(batch.add("net4", net(6)), 5);
    assert.equal(batch.add("nosuch", net(7)), 6);
    assert.equal(batch.del("net4", net(1)), 7);
    assert.equal(batch.add("src4", { address: ip("0.0.0.0"), bits: 0, iface: "cali", wildcard: true, ...MARK }), 8);
    assert.equal(batch.add("src4", { address: ip("10.0.0.1"), iface: "cali123", ...MARK }), 9);
    assert.equal(batch.add("net4", { address: ip("::1"), protocol: 6, port: 1, address2: ip("::"), bits2: 64 }), 10);
    const { applied, failures } = batch.commit(socket);
    assert.deepEqual(
      failures.map((f) => [f.index, f.refusal.code]).sort((a, b) => Number(a[0]) - Number(b[0])),
      [
        [1, "invalid"],
        [3, "unsupported"],
        [4, "unsupported"],
        [6, "no-set"],
        [10, "invalid"],
      ],
    );
    assert.equal(applied, 6);
    assert.deepEqual(
      read("net4")
        .map((e) => ipText(e.address))
        .sort(),
      ["10.0.0.3", "10.0.0.6"],
    );
    assert.equal(read("src4").length, 2);
    destroyAll();
  });

  test("a refresh keeps the counters, replaces mark and comment", () => {
    run("ip", "link", "set", "lo", "up");
    assert.equal(
      ipset.create({ name: "c", type: "hash:ip,port,ip", family: 4, timeout: 0, counters: true, comment: true, skbinfo: true }),
      undefined,
    );
    run(
      "ipset",
      "add",
      "c",
      "192.0.2.1,tcp:443,10.0.0.1",
      "timeout",
      "50",
      "packets",
      "7",
      "bytes",
      "9007199254740991",
      "comment",
      "old",
      "skbmark",
      "0x2/0x7",
    );
    batch.addIpPortIp("c", ip("192.0.2.1"), 6, 443, ip("10.0.0.1"), 100, 5, 7, "new");
    assert.equal(batch.commit(socket).applied, 1);
    const [e] = read("c");
    assert.deepEqual([e?.packets, e?.bytes, e?.comment, e?.mark, e?.markMask], [7, 9007199254740991, "new", 5, 7]);
    batch.addIpPortIp("c", ip("192.0.2.1"), 6, 443, ip("10.0.0.1"), 100, 5, 7, "new", true);
    assert.equal(batch.commit(socket).applied, 1);
    assert.equal(read("c")[0]?.packets, 0, "counts from zero");
    // A set of an earlier version without counters is replaced under the rules that refer to it (worker/kernel.ts).
    const net = { type: "hash:ip,port,net", family: 4, skbinfo: true } as const;
    assert.equal(ipset.create({ name: "old", ...net }), undefined);
    assert.equal(ipset.create({ name: "old", ...net, counters: true })?.code, "set-exists");
    assert.equal(ipset.create({ name: "old.new", ...net, counters: true }), undefined);
    assert.equal(ipset.swap("old.new", "old"), undefined);
    destroyAll();
  });

  test("swap, rename, destroy and their refusals", () => {
    for (const name of ["a", "b"]) assert.equal(ipset.create({ name, type: "hash:ip", family: 4 }), undefined);
    batch.add("a", { address: ip("10.0.0.1") });
    batch.commit(socket);
    assert.equal(ipset.swap("a", "b"), undefined);
    assert.equal(read("b").length, 1);
    assert.equal(ipset.rename("b", "c"), undefined);
    assert.equal(ipset.rename("c", "a")?.code, "set-exists");
    assert.equal(ipset.destroy("b")?.code, "no-set");
    assert.equal(ipset.flush("b")?.code, "no-set");
    assert.equal(ipset.swap("a", "nosuch")?.code, "set-exists");
    assert.equal(ipset.flush("")?.code, "invalid");
    const dump = new IpsetDump(dumps);
    assert.ok(dump.start("nosuch"));
    assert.equal(
      dump.next(() => {}),
      "failed",
    );
    assert.equal(dump.refusal?.code, "no-set");
    assert.equal(read("c").length, 1, "the socket is usable after a failed dump");
    destroyAll();
  });

  test("a dump goes on while the set changes, and a transaction after an abandoned dump works", () => {
    assert.equal(ipset.create({ name: "d", type: "hash:ip", family: 4 }), undefined);
    for (let i = 0; i < 5000; i++) batch.add("d", { address: String.fromCharCode(10, 0, i >> 8, i & 255) as Ip });
    batch.commit(socket);
    const dump = new IpsetDump(dumps);
    dump.start("d");
    const seen = new Set<string>();
    let step = 0;
    while (dump.next((e) => seen.add(e.address)) === "more") {
      for (let i = 0; i < 1000; i++) batch.add("d", { address: String.fromCharCode(11, step, i >> 8, i & 255) as Ip });
      if (step++ < 10) assert.equal(batch.commit(socket).failures.length, 0);
      else batch.clear();
    }
    assert.equal(dump.refusal, undefined);
    for (let i = 0; i < 5000; i++) assert.ok(seen.has(String.fromCharCode(10, 0, i >> 8, i & 255)));
    dump.start("d");
    dump.next(() => {});
    const other = new Ipset(dumps);
    assert.equal(other.flush("d"), undefined);
    destroyAll();
  });

  test("speed (printed, not judged)", (t) => {
    assert.equal(
      ipset.create({
        name: "allow4",
        type: "hash:ip,port,ip",
        family: 4,
        timeout: 0,
        counters: true,
        skbinfo: true,
        maxElements: 262_144,
        hashSize: 65_536,
      }),
      undefined,
    );
    const pod = ip("10.9.9.9");
    const address = (i: number): Ip => String.fromCharCode(20, i >> 16, (i >> 8) & 255, i & 255) as Ip;
    const us = (count: number, run: (i: number) => void): string => {
      const start = process.hrtime.bigint();
      for (let i = 0; i < count; i++) run(i);
      return (Number(process.hrtime.bigint() - start) / 1000 / count).toFixed(2);
    };
    for (let i = 0; i < 3000; i++) {
      batch.addIpPortIp("allow4", address(200_000 + i), 6, 443, pod, 300, 1, 7, "");
      batch.commit(socket);
    }
    t.diagnostic(
      `one add, acknowledged: ${us(10_000, (i) => {
        batch.addIpPortIp("allow4", address(i), 6, 443, pod, 300, 1, 7, "");
        batch.commit(socket);
      })} µs`,
    );
    t.diagnostic(
      `eight adds, acknowledged: ${us(2_000, (i) => {
        for (let k = 0; k < 8; k++) batch.addIpPortIp("allow4", address(10_000 + i * 8 + k), 6, 443, pod, 300, 1, 7, "");
        batch.commit(socket);
      })} µs for all eight`,
    );
    t.diagnostic(
      `in batches of 10 000: ${us(10, (i) => {
        for (let k = 0; k < 10_000; k++) batch.addIpPortIp("allow4", address(i * 10_000 + k), 6, 443, pod, 300, 1, 7, "");
        assert.equal(batch.commit(socket).applied, 10_000);
      })} µs per 10 000`,
    );
    let elements = 0;
    const start = process.hrtime.bigint();
    const dump = new IpsetDump(dumps);
    dump.start("allow4");
    let longest = 0n;
    for (let at = start; dump.next(() => elements++) === "more"; ) {
      const now = process.hrtime.bigint();
      if (now - at > longest) longest = now - at;
      at = now;
    }
    t.diagnostic(`dump of ${elements}: ${Number(process.hrtime.bigint() - start) / 1e6} ms, longest step ${Number(longest) / 1e6} ms`);
    destroyAll();
  });
}
