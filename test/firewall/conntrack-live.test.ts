import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { after, test } from "node:test";
import { addon } from "../../src/base/addon.ts";
import { type Ip, ipText, parseIp } from "../../src/base/address.ts";
import { ConntrackBatch, ConntrackDump, type ConntrackEntry, type ConntrackFilter, Status } from "../../src/firewall/conntrack.ts";
import { rulesGeneration } from "../../src/firewall/generation.ts";
import { insideNamespace, run } from "./netns.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;

if (insideNamespace(import.meta.url, ["conntrack", "iptables", "ip6tables", "ip", "ping"])) {
  const { NetlinkSocket } = addon();
  const socket = new NetlinkSocket();
  const dumps = new NetlinkSocket();
  const read = (filter?: ConntrackFilter): ConntrackEntry[] => {
    const dump = new ConntrackDump(dumps);
    const entries: ConntrackEntry[] = [];
    assert.ok(dump.start(filter));
    let state = dump.next((e) => entries.push({ ...e }));
    for (; state === "more"; state = dump.next((e) => entries.push({ ...e })));
    assert.equal(state, "done", dump.refusal?.text);
    return entries;
  };
  const kept: Socket[] = [];
  after(() => {
    for (const s of kept) s.close();
  });
  const udp = async (from: string, to: string, port: number): Promise<number> => {
    const s = createSocket(from.includes(":") ? "udp6" : "udp4");
    kept.push(s);
    s.bind(0, from);
    await once(s, "listening");
    await new Promise((done) => s.send("x", port, to, done));
    return (s.address() as AddressInfo).port;
  };

  run("ip", "link", "set", "lo", "up");
  run("ip", "addr", "add", "10.0.0.1/32", "dev", "lo");
  run("ip", "addr", "add", "10.0.0.2/32", "dev", "lo");
  run("ip", "-6", "addr", "add", "fd00::1/128", "dev", "lo", "nodad");
  run("ip", "-6", "addr", "add", "fd00::2/128", "dev", "lo", "nodad");
  for (const tables of ["iptables", "ip6tables"]) {
    run(tables, "-t", "mangle", "-A", "PREROUTING", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT");
    run(tables, "-t", "nat", "-A", "OUTPUT", "-p", "udp", "--dport", "53", "-j", "REDIRECT", "--to-ports", "5353");
  }

  for (const [family, a, b] of [
    [4, "10.0.0.1", "10.0.0.2"],
    [6, "fd00::1", "fd00::2"],
  ] as const) {
    test(`IPv${family}: entries as the conntrack tool sees them`, async (t) => {
      const server = createServer((s) => s.resume());
      server.listen(0, b);
      await once(server, "listening");
      const { port } = server.address() as AddressInfo;
      const client = connect({ port, host: b, localAddress: a });
      t.after(() => {
        client.destroy();
        server.close();
      });
      await once(client, "connect");
      const dnsPort = await udp(a, b, 53);
      run("ping", "-c", "1", "-W", "1", "-I", a, b);
      const entries = read();

      const tcp = entries.find((e) => e.protocol === 6 && e.origDestinationPort === port) as ConntrackEntry;
      assert.deepEqual(
        [
          tcp.family,
          ipText(tcp.origSource),
          ipText(tcp.origDestination),
          tcp.origSourcePort,
          ipText(tcp.replySource),
          tcp.replySourcePort,
          tcp.replyDestinationPort,
          tcp.tcpState,
          tcp.mark,
          tcp.zone,
        ],
        [family, a, b, client.localPort, b, port, client.localPort, 3, 0, 0],
      );
      assert.equal(tcp.status & (Status.seenReply | Status.confirmed), Status.seenReply | Status.confirmed);
      assert.ok(tcp.timeout > 1000 && tcp.id > 0);
      const dns = entries.find((e) => e.protocol === 17 && e.origSourcePort === dnsPort) as ConntrackEntry;
      assert.deepEqual(
        [dns.origDestinationPort, dns.replySourcePort, dns.status & Status.destinationNat],
        [53, 5353, Status.destinationNat],
      );
      const echo = entries.find(
        (e) => e.protocol === (family === 4 ? 1 : 58) && e.origDestinationPort === (family === 4 ? 8 : 128) << 8,
      ) as ConntrackEntry;
      assert.ok(echo !== undefined && ipText(echo.origDestination) === b);

      const listed = run("conntrack", "-L", "-f", `ipv${family}`, "-o", "id")
        .trim()
        .split("\n")
        .filter((line) => line.includes("id="));
      assert.deepEqual(
        new Set(entries.filter((e) => e.family === family).map((e) => String(e.id))),
        new Set(listed.map((line) => /id=(\d+)(?!.*id=)/.exec(line)?.[1])),
      );

      // Marks: only our bits, of each kind of entry, and nothing is made.
      const batch = new ConntrackBatch();
      for (const entry of [tcp, dns, echo]) batch.setMark(entry, 0xffffffff, 0x00ff0000);
      assert.deepEqual(batch.commit(socket), { applied: 3, gone: 0, failures: [] });
      for (const entry of [tcp, dns, echo]) {
        batch.setMark(entry, 0x5, 0x7);
        batch.setMark(entry, 0x00010008, 0x00030000);
      }
      batch.setMark({ ...tcp, origSourcePort: 1 }, 1, 1);
      batch.remove({ ...dns, origSourcePort: 1 });
      assert.deepEqual(batch.commit(socket), { applied: 6, gone: 2, failures: [] });
      const after = read();
      assert.equal(
        after.some((e) => e.origSourcePort === 1),
        false,
      );
      for (const entry of [tcp, dns, echo]) assert.equal(after.find((e) => e.id === entry.id)?.mark, 0x00fd0005);

      // Filters.
      assert.deepEqual(new Set(read({ mark: 5, markMask: 7, source: ip(a) }).map((e) => e.id)), new Set([tcp.id, dns.id, echo.id]));
      assert.deepEqual(read({ mark: 4, markMask: 7 }), []);
      assert.deepEqual(read({ source: ip(family === 4 ? "10.0.0.3" : "fd00::3") }), []);
      assert.ok(read({ source: ip(a) }).every((e) => ipText(e.origSource) === a));
      assert.equal(read({ mark: 0x00fd0005 }).length, 3);

      // Removal: not of another one with the same tuple, then by id, then it is gone.
      batch.remove(tcp, (tcp.id ^ 1) >>> 0);
      assert.deepEqual(batch.commit(socket), { applied: 0, gone: 1, failures: [] });
      batch.remove(tcp, tcp.id);
      batch.remove(dns);
      batch.remove(echo);
      batch.setMark(tcp, 1, 1);
      batch.remove(tcp);
      assert.deepEqual(batch.commit(socket), { applied: 3, gone: 2, failures: [] });
      const left = read();
      for (const entry of [tcp, dns, echo])
        assert.equal(
          left.some((e) => e.id === entry.id),
          false,
        );
    });
  }

  test("a TCP connection is ended, another one only marked", async (t) => {
    const server = createServer((s) => s.resume());
    server.listen(0, "10.0.0.2");
    await once(server, "listening");
    const client = connect({ port: (server.address() as AddressInfo).port, host: "10.0.0.2", localAddress: "10.0.0.1" });
    t.after(() => {
      client.destroy();
      server.close();
    });
    await once(client, "connect");
    const ports = [client.localPort, await udp("10.0.0.1", "10.0.0.2", 53)];
    const entries = (): ConntrackEntry[] => read().filter((e) => e.family === 4 && ports.includes(e.origSourcePort));
    const batch = new ConntrackBatch();
    for (const entry of entries()) batch.end(entry, 2, 7);
    assert.deepEqual(batch.commit(socket), { applied: 2, gone: 0, failures: [] });
    const [tcp, dns] = entries().sort((one, other) => one.protocol - other.protocol) as [ConntrackEntry, ConntrackEntry];
    assert.deepEqual([tcp.tcpState, tcp.mark, tcp.timeout <= 120], [8, 2, true]);
    assert.deepEqual([dns.tcpState, dns.mark], [0, 2]);
    for (const entry of [tcp, dns]) batch.remove(entry);
    batch.commit(socket);
  });

  test("protocols without ports, other zones", () => {
    run(
      "conntrack",
      "-I",
      "-p",
      "47",
      "-s",
      "10.1.0.1",
      "-d",
      "10.1.0.2",
      "--srckey",
      "1",
      "--dstkey",
      "2",
      "-t",
      "60",
      "-u",
      "SEEN_REPLY",
    );
    run(
      "conntrack",
      "-I",
      "-p",
      "udp",
      "-s",
      "10.1.0.1",
      "-d",
      "10.1.0.2",
      "--sport",
      "7",
      "--dport",
      "8",
      "-t",
      "60",
      "-u",
      "SEEN_REPLY",
      "--zone",
      "9",
    );
    run(
      "conntrack",
      "-I",
      "-p",
      "sctp",
      "-s",
      "fd01::1",
      "-d",
      "fd01::2",
      "--sport",
      "7",
      "--dport",
      "8",
      "-t",
      "60",
      "--state",
      "ESTABLISHED",
      "--orig-vtag",
      "1",
      "--reply-vtag",
      "2",
    );
    const entries = read().filter((e) => ["10.1.0.1", "fd01::1"].includes(ipText(e.origSource)));
    assert.deepEqual(
      entries.map((e) => [e.protocol, e.origSourcePort, e.origDestinationPort, e.zone]).sort((x, y) => Number(x[0]) - Number(y[0])),
      [
        [17, 7, 8, 9],
        [47, 1, 2, 0],
        [132, 7, 8, 0],
      ],
    );
    const batch = new ConntrackBatch();
    for (const entry of entries) batch.setMark(entry, 3, 3);
    for (const entry of entries) batch.remove(entry, entry.id);
    assert.deepEqual(batch.commit(socket), { applied: 6, gone: 0, failures: [] });
    assert.equal(
      read().some((e) => ["10.1.0.1", "fd01::1"].includes(ipText(e.origSource))),
      false,
    );
  });

  test("many entries: dump and batch", async (t) => {
    const s = createSocket("udp4");
    kept.push(s);
    s.bind(0, "10.0.0.1");
    await once(s, "listening");
    for (let port = 10_000; port < 13_000; port++) await new Promise((done) => s.send("x", port, "10.0.0.2", done));
    const start = process.hrtime.bigint();
    const entries = read({ source: ip("10.0.0.1") }).filter((e) => e.protocol === 17 && e.origDestinationPort >= 10_000);
    const read1 = process.hrtime.bigint();
    assert.equal(new Set(entries.map((e) => e.origDestinationPort)).size, 3000);
    const batch = new ConntrackBatch();
    for (const entry of entries) batch.setMark(entry, 2, 7);
    assert.equal(batch.count, entries.length);
    assert.deepEqual(batch.commit(socket), { applied: entries.length, gone: 0, failures: [] });
    const done = process.hrtime.bigint();
    t.diagnostic(`${entries.length} entries: read in ${Number(read1 - start) / 1000} µs, marked in ${Number(done - read1) / 1000} µs`);
    assert.equal(new Set(read({ mark: 2, markMask: 7 }).map((e) => e.id)).size, 3000);
  });

  test("the nf_tables generation grows with a change, and only then", () => {
    const generation = rulesGeneration(socket);
    const before = generation();
    assert.equal(typeof before, "number");
    assert.equal(generation(), before);
    run("iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "ACCEPT");
    assert.ok((generation() as number) > (before as number));
  });
}
