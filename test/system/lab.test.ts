import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, describe, test } from "node:test";
import { parse } from "yaml";
import { createLab, removeStale } from "../../src/cli/lab.ts";
import { type Client, clientIn } from "../support/client.ts";
import { type DnsServer, dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, type Lab, labFor, until } from "../support/lab.ts";
import { need, skip } from "../support/need.ts";
import { dnsmasq, unbound } from "../support/resolvers.ts";
import { type Servers, serve } from "../support/servers.ts";

const NEEDS = { root: true, commands: [...LAB_COMMANDS, "openssl", "curl", "dig"] };
const WEB4 = "198.51.100.10";
const WEB6 = "2001:db8:51::10";

describe("lab", { skip: skip(NEEDS) }, () => {
  let lab: Lab;
  let dns: DnsServer;
  let web: Servers;
  const clients = new Map<string, Client>();

  before(async () => {
    lab = await createLab();
    const { pod, port } = await clusterDns(lab);
    await lab.addPod({ name: "routed", serviceAccountName: "checkout" });
    await lab.addPod({ name: "bridged", kind: "bridge" });
    await lab.addPod({ name: "bridged2", kind: "bridge" });
    await lab.addServer({ name: "web", addresses: [WEB4, "198.51.100.11", WEB6] });
    web = await serve(lab, "web", [
      { kind: "echo", port: 7 },
      { kind: "http", port: 80 },
      { kind: "https", port: 443 },
      { kind: "udp-echo", port: 7 },
    ]);
    dns = await dnsServer(lab, pod, {
      port,
      names: {
        "web.example.com": { A: [WEB4], AAAA: [WEB6] },
        "alias.example.com": { cname: ["x.example.com", "y.example.com"], A: ["198.51.100.11"] },
        "big.example.com": { A: [WEB4], padding: 3000 },
        "cut.example.com": { A: [WEB4], truncate: true },
        "slow.example.com": { A: [WEB4], delayMs: 150 },
        "svcb.example.com": { https: ["0001000001000302683200040004c633640a"] },
        "mute.example.com": { silent: true },
      },
    });
    for (const name of ["routed", "bridged"]) clients.set(name, await clientIn(lab, name));
  });
  after(() => lab?.close());
  const client = (name: string): Client => clients.get(name) as Client;

  for (const pod of ["routed", "bridged"]) {
    for (const host of [WEB4, "198.51.100.11", WEB6]) {
      test(`${pod} pod reaches ${host} over TCP and UDP, and the server sees the pod's own address`, async () => {
        const from = web.seen().length;
        const tcp = await client(pod).connect({ host, port: 7, send: "hello", expect: 5 });
        assert.deepEqual({ ok: tcp.ok, data: tcp.data }, { ok: true, data: "hello" });
        assert.equal((await client(pod).datagram({ host, port: 7, send: "ping" })).data, "ping");
        const own = lab.pods.find((one) => one.name === pod);
        // An answer can be here before the line that says so.
        const seen = await until("both were seen", () => web.seen().length >= from + 2 && web.seen().slice(from));
        assert.deepEqual(
          seen.map((one) => [one.kind, one.local, one.from]),
          ["echo", "udp-echo"].map((kind) => [kind, host, host.includes(":") ? own?.v6 : own?.v4]),
        );
      });
    }

    test(`${pod} pod resolves over the ClusterIP of either family, and connects`, async () => {
      for (const server of [undefined, "10.96.0.10", "[fd00:10:96::a]"]) {
        const asked = server === undefined ? {} : { server };
        const both = await client(pod).resolveThenConnect({ name: "web.example.com", port: 443, serverName: "web.example.com", ...asked });
        assert.deepEqual(both.resolved.addresses, [WEB4]);
        assert.equal(both.connected?.ok, true);
        const six = await client(pod).resolveThenConnect({ name: "web.example.com", type: "AAAA", port: 443, ...asked });
        assert.deepEqual(six.resolved.addresses, [WEB6]);
        assert.equal(six.connected?.ok, true);
      }
    });

    test(`${pod} pod resolves without DNAT too`, async () => {
      const direct = await client(pod).resolve({ name: "web.example.com", server: "10.244.0.11:5353" });
      assert.deepEqual(direct.addresses, [WEB4]);
    });
  }

  test("refused, unreachable and silent destinations have their own codes", async () => {
    assert.equal((await client("routed").connect({ host: WEB4, port: 9 })).code, "ECONNREFUSED");
    assert.equal((await client("routed").connect({ host: "203.0.113.99", port: 9 })).code, "ENETUNREACH");
    await lab.run("node", ["iptables", "-w", "-A", "FORWARD", "-d", WEB4, "-p", "tcp", "--dport", "9999", "-j", "DROP"]);
    const silent = await client("routed").connect({ host: WEB4, port: 9999, timeoutMs: 200 });
    assert.equal(silent.code, "ETIMEDOUT");
    assert.ok(silent.ms >= 199 && silent.ms < 1500);
  });

  test("a held connection can be talked on", async () => {
    const first = await client("routed").connect({ host: WEB6, port: 7, hold: true });
    assert.ok(first.hold !== null);
    assert.equal((await client("routed").talk({ hold: first.hold, send: "again", expect: 5 })).data, "again");
    await client("routed").closeAll();
    assert.equal((await client("routed").talk({ hold: first.hold, send: "x" })).code, "ENOHOLD");
  });

  test("curl speaks HTTP/2 and HTTP/1.1 to the HTTPS server", async () => {
    const base = ["curl", "-sk", "-m", "5", "--resolve", `web.example.com:443:${WEB4}`];
    const h2 = JSON.parse(await lab.run("routed", [...base, "--http2", "https://web.example.com/a"])) as Record<string, string>;
    assert.deepEqual([h2.host, h2.path, h2.version], ["web.example.com", "/a", "2.0"]);
    const h1 = JSON.parse(await lab.run("routed", [...base, "--http1.1", "https://web.example.com/b"])) as Record<string, string>;
    assert.deepEqual([h1.path, h1.version], ["/b", "1.1"]);
  });

  describe("scripted DNS server", () => {
    const dig = async (...args: string[]): Promise<string> =>
      (await lab.exec("routed", ["dig", "+time=2", "+tries=1", "@10.96.0.10", ...args])).stdout;

    test("CNAME chain", async () => {
      assert.match(await dig("+short", "alias.example.com"), /^x\.example\.com\.\ny\.example\.com\.\n198\.51\.100\.11\n$/);
    });
    test("big replies, by UDP and TCP", async () => {
      assert.match(await dig("+bufsize=4096", "+ignore", "big.example.com"), /rcvd: 3\d\d\d/);
      assert.match(await dig("+tcp", "big.example.com"), /rcvd: 3\d\d\d/);
    });
    test("truncation makes the client ask again by TCP", async () => {
      const from = dns.queries().length;
      assert.match(await dig("+short", "cut.example.com"), new RegExp(WEB4));
      assert.deepEqual(
        dns
          .queries()
          .slice(from)
          .map((query) => query.transport),
        ["udp", "tcp"],
      );
    });
    test("delay, HTTPS records, NXDOMAIN, silence, other case", async () => {
      assert.ok((await client("routed").resolve({ name: "slow.example.com" })).ms >= 150);
      assert.match(
        await dig("svcb.example.com", "TYPE65", "+unknownformat"),
        /0001000001000302683200040004C633640A|0001000001000302 ?683200040004C633640A/i,
      );
      assert.equal((await client("routed").resolve({ name: "none.example.com" })).code, "ENOTFOUND");
      assert.equal((await client("routed").resolve({ name: "mute.example.com", timeoutMs: 300 })).code, "ETIMEOUT");
      assert.match(await dig("+short", "WeB.ExAmPlE.CoM"), new RegExp(WEB4));
    });
    test("names can change, raw replies keep the id", async () => {
      await dns.setNames({ "raw.example.com": { raw: "00008183000100000000000003726177076578616d706c6503636f6d0000010001" } });
      assert.match(await dig("raw.example.com"), /status: NXDOMAIN/);
      assert.match(await dig("web.example.com"), /status: NXDOMAIN/);
    });
  });

  test("the pods file is what DESIGN §9 says", () => {
    const file = parse(lab.podsFile()) as { resolvers: string[]; pods: Record<string, unknown>[] };
    assert.deepEqual(file.resolvers, ["10.96.0.10:53", "[fd00:10:96::a]:53"]);
    assert.deepEqual(
      file.pods.map((pod) => pod.name),
      ["routed", "bridged", "bridged2"],
    );
    const { uid, ...routed } = file.pods[0] as Record<string, unknown>;
    assert.match(String(uid), /^[0-9a-f-]{36}$/);
    assert.deepEqual(routed, {
      namespace: "shop",
      name: "routed",
      labels: { app: "routed" },
      serviceAccountName: "checkout",
      interface: "cali1",
      addresses: ["10.244.0.12", "fd00:10:244::c"],
    });
  });

  test("a pod can be removed", async () => {
    await lab.removePod("bridged2");
    assert.throws(() => lab.ns("bridged2"), /the lab has no bridged2/);
    assert.equal((await lab.exec("node", ["ip", "link", "show", "veth3"])).status, 1);
  });

  test("NodeLocal addresses, untracked, answer from OUTPUT", async () => {
    await lab.nodeLocal(["169.254.20.10", "fd00:169:254:20::10"], { notrack: true });
    await dnsServer(lab, "node", { names: { "local.example.com": { A: [WEB4] } }, addresses: ["169.254.20.10", "fd00:169:254:20::10"] });
    for (const server of ["169.254.20.10", "[fd00:169:254:20::10]"]) {
      assert.deepEqual((await client("bridged").resolve({ name: "local.example.com", server })).addresses, [WEB4]);
    }
  });
});

test("real resolvers: dnsmasq and unbound", async (t) => {
  if (!need(t, { ...NEEDS, commands: [...LAB_COMMANDS, "dnsmasq", "unbound", "dig"] })) return;
  const lab = await labFor(t);
  await lab.addPod({ name: "app" });
  await lab.addServer({ name: "dns", addresses: ["198.51.100.53", "2001:db8:51::53"] });
  const records = { "web.example.com": [WEB4, WEB6] };
  await dnsmasq(lab, "dns", { records, port: 53 });
  await unbound(lab, "dns", { records, port: 5353 });
  const client = await clientIn(lab, "app");
  for (const server of ["198.51.100.53", "[2001:db8:51::53]:53", "198.51.100.53:5353", "[2001:db8:51::53]:5353"]) {
    assert.deepEqual((await client.resolve({ name: "web.example.com", server })).addresses, [WEB4], server);
    assert.deepEqual((await client.resolve({ name: "web.example.com", type: "AAAA", server })).addresses, [WEB6], server);
  }
});

test("close leaves no namespace, process or file", async (t) => {
  if (!need(t, NEEDS)) return;
  const lab = await createLab();
  await lab.addPod({ name: "app" });
  const child = lab.spawn("app", ["sh", "-c", "sleep 300 & echo $!; wait"]);
  const grandchild = await child.line((line) => Number(line));
  const pids = [child.pid as number, grandchild];
  lab.file("deep/x", "y");
  const traces = (): string[] =>
    ["/run/netns", "/etc/netns", tmpdir()]
      .flatMap((folder) => (existsSync(folder) ? readdirSync(folder) : []))
      .filter((name) => name.startsWith(lab.prefix));
  assert.equal(traces().length, 4);
  await lab.close();
  await lab.close();
  assert.deepEqual(traces(), []);
  for (const pid of pids) await until(`${pid} gone`, () => !running(pid));
});

test("what a killed lab leaves is removed by the next one, and only that", async (t) => {
  if (!need(t, NEEDS)) return;
  const gone = spawnSync("true").pid.toString(36);
  const stale = `namegate-lab-${gone}-0-node`;
  const others = [`namegate-lab-${process.pid.toString(36)}-zz-node`, "namegate-labour"];
  t.after(() => {
    for (const name of others) spawnSync("ip", ["netns", "delete", name]);
  });
  for (const name of [stale, ...others]) assert.equal(spawnSync("ip", ["netns", "add", name]).status, 0);
  mkdirSync(`/etc/netns/${stale}`, { recursive: true });
  assert.ok(removeStale().includes(stale));
  assert.equal(existsSync(`/run/netns/${stale}`), false);
  assert.equal(existsSync(`/etc/netns/${stale}`), false);
  for (const name of others) assert.ok(existsSync(`/run/netns/${name}`));
});

/** A zombie that init has not collected yet does not run. */
function running(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
}
