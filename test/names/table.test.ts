import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { dnsName, type DnsName } from "../../src/base/name.ts";
import { NAME_LIMITS, type NameLimits, PodNames } from "../../src/names/table.ts";

const ip = (n: number): Ip => parseIp(`10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`) as Ip;
const name = (text: string): DnsName => dnsName(text) as DnsName;
const NOW = 1_800_000_000;

function table(limits: Partial<NameLimits> = {}): { names: PodNames; evicted: string[] } {
  const evicted: string[] = [];
  return {
    names: new PodNames((address, _, why) => evicted.push(`${[...address].map((c) => c.charCodeAt(0)).join(".")} ${why}`), {
      ...NAME_LIMITS,
      ...limits,
    }),
    evicted,
  };
}

test("a binding is fresh until its second, then explains, then is forgotten", () => {
  const { names, evicted } = table({ staleSeconds: 10 });
  names.bind(name("a.example"), "asked", ip(1), NOW + 5, NOW);
  assert.deepEqual(names.seen(ip(1), NOW + 4), [{ name: "a.example", via: "asked", fresh: true }]);
  assert.deepEqual(names.seen(ip(1), NOW + 5), [{ name: "a.example", via: "asked", fresh: false }]);
  names.sweep(NOW + 14);
  assert.equal(names.size, 1);
  names.sweep(NOW + 15);
  assert.equal(names.size, 0);
  assert.deepEqual(evicted, ["10.0.0.1 expired"]);
});

test("a table in which nothing can have run out is not walked; what comes meanwhile still goes in time", () => {
  const { names } = table({ staleSeconds: 10 });
  names.bind(name("a.example"), "asked", ip(1), NOW + 5, NOW);
  names.bind(name("a.example"), "asked", ip(2), NOW + 100, NOW);
  assert.equal(names.sweep(NOW), 2);
  assert.equal(names.sweep(NOW + 9), 0, "new ones can run out from here on");
  names.bind(name("b.example"), "asked", ip(3), NOW + 10, NOW + 9);
  assert.deepEqual([names.sweep(NOW + 14), names.size], [3, 3]);
  assert.deepEqual([names.sweep(NOW + 15), names.size], [3, 2]);
  assert.deepEqual([names.sweep(NOW + 19), names.size], [0, 2]);
  assert.deepEqual([names.sweep(NOW + 20), names.size], [2, 1]);
});

test("what the kernel was told of an address: none, one, several, and fewer again", () => {
  const { names } = table();
  const bound = names.bind(name("a.example"), "asked", ip(1), NOW + 5, NOW);
  assert.ok(bound.kind !== "full");
  const { entry } = bound;
  const told = (portKey: number) => ({ portKey, kernelClass: 1, expires: NOW + 5, packets: portKey });
  for (const ports of [[], [443], [443, 80, 53], [80], []]) {
    entry.tell(ports.map(told));
    assert.deepEqual(
      entry.told.map(({ portKey, packets }) => [portKey, packets]),
      ports.map((port) => [port, port]),
    );
    for (const port of [443, 80, 53]) assert.equal(entry.toldOf(port)?.portKey, ports.includes(port) ? port : undefined);
  }
  assert.deepEqual(entry.bindings.length, 1);
});

test("a smaller TTL never shortens, a greater one extends, and asked beats cname", () => {
  const { names } = table();
  assert.equal(names.bind(name("a.example"), "cname", ip(1), NOW + 50, NOW).kind, "new");
  assert.equal(names.bind(name("a.example"), "cname", ip(1), NOW + 10, NOW).kind, "unchanged");
  assert.equal(names.bind(name("a.example"), "cname", ip(1), NOW + 90, NOW).kind, "extended");
  assert.equal(names.bind(name("a.example"), "asked", ip(1), NOW + 10, NOW).kind, "new");
  assert.deepEqual(names.seen(ip(1), NOW + 89), [{ name: "a.example", via: "asked", fresh: true }]);
  assert.equal(names.bindings, 1);
});

test("the least recently used address makes room, and never one that a live connection uses", () => {
  const { names, evicted } = table({ addressesPerPod: 2 });
  names.bind(name("a.example"), "asked", ip(1), NOW + 100, NOW);
  names.bind(name("b.example"), "asked", ip(2), NOW + 100, NOW);
  names.use(ip(1), NOW, NOW + 100);
  assert.equal(names.bind(name("c.example"), "asked", ip(3), NOW + 100, NOW).kind, "new");
  assert.deepEqual(evicted, ["10.0.0.2 limit"]);
  names.use(ip(3), NOW, NOW + 100);
  assert.deepEqual(names.bind(name("d.example"), "asked", ip(4), NOW + 100, NOW), { kind: "full", which: "pod" });
  assert.equal(names.refusals, 1);
});

test("a name may have a thousand addresses, and churns through more", () => {
  const { names } = table();
  for (let n = 0; n < 5000; n++) assert.equal(names.bind(name("cdn.example"), "asked", ip(n), NOW + 100, NOW).kind, "new");
  assert.equal(names.size, 1000);
  assert.equal(names.bindings, 1000);
  assert.equal(names.seen(ip(4999), NOW).length, 1);
  assert.equal(names.seen(ip(0), NOW).length, 0);
});

test("names of one address each have a slot of their own", () => {
  const { names } = table({ namesPerAddress: 3 });
  for (const one of ["a", "b", "c"]) names.bind(name(`${one}.example`), "asked", ip(1), NOW + (one === "b" ? 1 : 100), NOW);
  assert.deepEqual(
    names.get(ip(1))?.bindings.map(({ slot }) => slot),
    [1, 2, 3],
  );
  const later = names.bind(name("d.example"), "asked", ip(1), NOW + 100, NOW);
  assert.equal(later.kind === "full" ? 0 : later.binding.slot, 2, "the slot of the name that would have run out first");
  assert.deepEqual(
    names.seen(ip(1), NOW).map((one) => one.name),
    ["a.example", "c.example", "d.example"],
  );
  names.bind(name("e.example"), "asked", ip(1), NOW + 100, NOW);
  assert.deepEqual(
    names.seen(ip(1), NOW).map((one) => one.name),
    ["c.example", "d.example", "e.example"],
    "the latest name asked for counts",
  );
});

test("a name that churns finds its oldest address behind thousands of others, and takes no other name along", () => {
  const { names, evicted } = table();
  for (let n = 0; n < 5000; n++) names.bind(name(`n${n}.example`), "asked", ip(10_000 + n), NOW + 100, NOW);
  for (let n = 0; n < 1000; n++) names.bind(name("cdn.example"), "asked", ip(n), NOW + 100, NOW);
  names.bind(name("shop.example"), "asked", ip(1), NOW + 100, NOW);
  names.use(ip(0), NOW, NOW + 100);
  for (let n = 1000; n < 1002; n++) assert.equal(names.bind(name("cdn.example"), "asked", ip(n), NOW + 100, NOW).kind, "new");
  assert.equal(names.seen(ip(0), NOW).length, 1, "in use");
  assert.deepEqual(
    names.seen(ip(1), NOW).map((one) => one.name),
    ["shop.example"],
  );
  assert.equal(names.get(ip(2)), undefined);
  assert.equal(evicted.length, 2);
  assert.equal(names.bindings, 5000 + 1000 + 1);
  names.bind(name("cdn.example"), "asked", ip(3), NOW + 200, NOW);
  names.bind(name("cdn.example"), "asked", ip(1002), NOW + 100, NOW);
  assert.equal(names.seen(ip(3), NOW).length, 1, "asked for again, so no longer the oldest");
  assert.equal(names.get(ip(4)), undefined);
  names.begins(ip(5));
  names.bind(name("cdn.example"), "asked", ip(1003), NOW + 100, NOW);
  assert.equal(names.seen(ip(5), NOW).length, 1, "connected to, so no longer the oldest");
  assert.equal(names.get(ip(6)), undefined);
});

test("a live connection keeps its binding, an expired one too", () => {
  const { names } = table();
  names.bind(name("a.example"), "asked", ip(1), NOW + 1, NOW);
  assert.equal(names.use(ip(1), NOW + 30, NOW + 90), true);
  assert.equal(names.seen(ip(1), NOW + 60)[0]?.fresh, true);
  assert.equal(names.use(ip(1), NOW + 40, NOW + 90), false, "nothing to prolong");
});

test("a name's limit holds while the pod's addresses come and go around it", () => {
  for (const others of [1, 2, 3, 5]) {
    const { names } = table({ addressesPerPod: 20, addressesPerName: 4, namesPerAddress: 3, staleSeconds: 5 });
    const held = (): number => [...names.entries()].filter(([, { bindings }]) => bindings.some((one) => one.name === "a.example")).length;
    for (let i = 0; i < others; i++) names.bind(name(`other-${i}.example`), "asked", ip(100 + i), NOW + 1, NOW);
    for (let i = 0; i < 4; i++) names.bind(name("a.example"), "asked", ip(i), NOW + 1000, NOW);
    names.sweep(NOW + 10);
    assert.equal(names.size, 4);
    for (let i = 4; i < 12; i++) {
      names.bind(name("a.example"), "asked", ip(i), NOW + 1000, NOW + 10);
      assert.equal(held(), 4);
    }
    names.sweep(NOW + 2000);
    assert.equal(names.size + names.bindings, 0);
    for (let i = 0; i < 12; i++) names.bind(name("a.example"), "asked", ip(i), NOW + 3000, NOW + 2000);
    assert.equal(held(), 4);
  }
});

test("property: counts stay true and limits hold whatever comes", () => {
  const step = fc.record({ address: fc.nat(12), name: fc.nat(8), ttl: fc.nat(20), at: fc.nat(60), live: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const limits = { addressesPerPod: 6, addressesPerName: 4, namesPerAddress: 3, staleSeconds: 5 };
      const { names } = table(limits);
      let now = NOW;
      for (const one of steps) {
        now += one.at;
        names.bind(name(`n${one.name}.example`), "asked", ip(one.address), now + one.ttl, now);
        if (one.live) names.use(ip(one.address), now, now + 10);
        if (one.at > 50) names.sweep(now);
        const perName = new Map<string, number>();
        let bindings = 0;
        for (const [, entry] of names.entries()) {
          assert.ok(entry.bindings.length <= limits.namesPerAddress);
          assert.equal(new Set(entry.bindings.map(({ slot }) => slot)).size, entry.bindings.length);
          for (const { name: bound } of entry.bindings) perName.set(bound, (perName.get(bound) ?? 0) + 1);
          bindings += entry.bindings.length;
        }
        assert.equal(names.bindings, bindings);
        assert.ok(names.size <= limits.addressesPerPod);
        for (const count of perName.values()) assert.ok(count <= limits.addressesPerName);
      }
    }),
    { numRuns: 300 },
  );
});
