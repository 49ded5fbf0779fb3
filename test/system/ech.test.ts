import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createLab } from "../../src/cli/lab.ts";
import { policy, putPolicy, startAgent, type TestAgent } from "../support/agent.ts";
import { type Client, clientIn } from "../support/client.ts";
import { dnsServer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, type Lab } from "../support/lab.ts";
import { skip } from "../support/need.ts";
import { unbound } from "../support/resolvers.ts";
import { serve } from "../support/servers.ts";

/** `ech: Strip`, `Allow` and `Deny`: what a pod learns from a real resolver, and what becomes of its ClientHello. */

const ADDRESS: Readonly<Record<string, string>> = {
  "strip.example.com": "198.51.100.1",
  "keep.example.com": "198.51.100.2",
  "none.example.com": "198.51.100.3",
};
/** An ECHConfigList (RFC 9849 §4) with one X25519 key; nobody looks inside. */
const CONFIG = Buffer.from(
  `0045fe0d00410100200020${"5a".repeat(32)}0004000100010012${Buffer.from("public.example.net").toString("hex")}0000`,
  "hex",
);
const RECORD = `HTTPS 1 . alpn="h2" ipv4hint="192.0.2.77" ech="${CONFIG.toString("base64")}"`;
/** The same record as RDATA, and a second key in the middle of it would not fit one segment of 60 octets. */
const RDATA = `00010000010003026832${"00040004c000024d"}0005${CONFIG.length.toString(16).padStart(4, "0")}${CONFIG.toString("hex")}`;

const u16 = (n: number): number[] => [n >> 8, n & 255];
const sized = (octets: readonly number[]): number[] => [...u16(octets.length), ...octets];
const extension = (type: number, octets: readonly number[]): number[] => [...u16(type), ...sized(octets)];

/** A ClientHello (RFC 8446 §4.1.2) for `name` with an encrypted_client_hello of random content, as browsers send. */
function greaseHello(name: string): Uint8Array {
  const extensions = [
    ...extension(0, sized([0, ...sized([...Buffer.from(name)])])),
    ...extension(43, [2, 3, 4]),
    ...extension(0xfe0d, [0, 0, 1, 0, 1, 42, ...sized(new Array<number>(32).fill(9)), ...sized(new Array<number>(144).fill(8))]),
  ];
  const body = [3, 3, ...new Array<number>(32).fill(7), 0, ...sized([0x13, 0x01]), 1, 0, ...sized(extensions)];
  const message = [1, 0, ...sized(body)];
  return Uint8Array.from([22, 3, 1, ...sized(message)]);
}

describe("encrypted ClientHellos", { skip: skip({ root: true, addon: true, commands: [...LAB_COMMANDS, "dig", "unbound"] }) }, () => {
  let lab: Lab;
  let dns: Awaited<ReturnType<typeof clusterDns>>;
  let agent: TestAgent;
  let client: Client;

  before(async () => {
    lab = await createLab();
    dns = await clusterDns(lab);
    await lab.addPod({ name: "client" });
    await lab.addPod({ name: "bridged", kind: "bridge", labels: { app: "client" } });
    await lab.addPod({ name: "other" });
    await lab.addServer({ name: "out", addresses: Object.values(ADDRESS) });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    await unbound(lab, dns.pod, {
      port: dns.port,
      records: Object.fromEntries(Object.entries(ADDRESS).map(([name, address]) => [name, [address]])),
      extra: Object.keys(ADDRESS).map((name) => `local-data: '${name}. 60 IN ${RECORD}'`),
    });
    // A second resolver, whose replies come in pieces over TCP.
    await lab.addServer({ name: "pieces", addresses: ["198.51.100.53"] });
    await dnsServer(lab, "pieces", { names: { "strip.example.com": { https: [RDATA], tcpPieces: 60 } } });
    lab.setResolvers([dns.v4, dns.v6, "198.51.100.53"]);
    const rule = (name: string, ech: string | undefined): object => ({
      name,
      action: "Accept",
      to: [{ domainNames: [`${name}.example.com`] }],
      ports: [{ protocol: "TCP", port: 443 }],
      application: "tls",
      ...(ech === undefined ? {} : { tls: { ech } }),
    });
    const egress = [rule("strip", "Strip"), rule("keep", "Allow"), rule("none", undefined)];
    const of = (app: string): object => ({ mode: "Enforce", subject: { podSelector: { matchLabels: { app } } } });
    putPolicy(lab, "client.yaml", policy("client", { ...of("client"), egress }));
    putPolicy(lab, "other.yaml", policy("other", { ...of("other"), egress: [rule("strip", "Allow")] }));
    agent = await startAgent(lab);
    client = await clientIn(lab, "client");
  });

  const dig = (where: string, server: string, name: string, ...words: readonly string[]): Promise<string> =>
    lab.run(where, ["dig", "+tries=1", "+time=4", `@${server}`, name, "TYPE65", ...words]);
  const answerOf = (shown: string): string =>
    shown.split("\n").find((line) => /\sHTTPS\s|\sTYPE65\s/.test(line) && !line.startsWith(";")) ?? shown;
  const size = (shown: string): string => /MSG SIZE {2}rcvd: (\d+)/.exec(shown)?.[1] ?? shown;

  for (const where of ["client", "bridged"]) {
    for (const family of ["v4", "v6"] as const) {
      for (const how of ["+notcp", "+tcp"]) {
        test(`Strip: a reply to ${where} has no keys, over IP${family} ${how}`, async () => {
          const shown = await dig(where, dns[family], "strip.example.com", how);
          const whole = await dig("other", dns[family], "strip.example.com", how);
          assert.match(answerOf(whole), / ech=/, "another pod gets what the resolver says");
          assert.doesNotMatch(shown, / ech=|Wlpa/);
          assert.match(answerOf(shown), /1 \. alpn="h2" ipv4hint=192\.0\.2\.77/);
          assert.match(shown, /status: NOERROR/);
          assert.doesNotMatch(shown, /WARNING|malformed|extra bytes/i);
          assert.equal(size(shown), size(whole));
        });
      }
    }
  }

  test("Strip: no keys over TCP in many segments either", async () => {
    const shown = await dig("client", "198.51.100.53", "strip.example.com", "+tcp");
    assert.match(answerOf(shown), /1 \. alpn="h2" ipv4hint=192\.0\.2\.77/);
    assert.doesNotMatch(shown, / ech=/);
    assert.match(await dig("other", "198.51.100.53", "strip.example.com", "+tcp"), / ech=/);
  });

  test("names of other rules keep theirs", async () => {
    for (const name of ["keep.example.com", "none.example.com"]) assert.match(await dig("client", dns.v4, name), / ech=/, name);
    const { counters } = await agent.status();
    assert.ok((counters["echStripped"] as number) >= 9, String(counters["echStripped"]));
    assert.equal(counters["faults"], 0);
  });

  test("what was learned from a stripped reply is used", async () => {
    const event = agent.event("wrong port", (e) => e.destination?.address === "192.0.2.77" && e.why === "wrong-port");
    await client.connect({ host: "192.0.2.77", port: 444, send: "x", timeoutMs: 1000 });
    assert.equal((await event).nearest?.rule, "strip");
  });

  for (const [name, expected] of [
    ["strip.example.com", null],
    ["keep.example.com", null],
    ["none.example.com", "ech"],
  ] as const) {
    test(`a ClientHello with GREASE to ${name}: ${expected ?? "goes through"}`, async () => {
      await client.resolve({ name });
      const send = greaseHello(name);
      const from = agent.events().length;
      const got = await client.connect({ host: ADDRESS[name] as string, port: 443, send, expect: send.length, timeoutMs: 3000 });
      assert.equal(got.code, expected === null ? null : "ECONNRESET");
      if (expected === null) return;
      const event = await agent.event("denied", (e) => e.verdict === "deny" && e.type === "connection", { from });
      assert.deepEqual([event.why, event.nearest?.rule, event.nearest?.clause], [expected, "none", "server-name"]);
    });
  }

  test("Strip: the outer name of a ClientHello counts", async () => {
    await client.resolve({ name: "strip.example.com" });
    const from = agent.events().length;
    const send = greaseHello("public.example.net");
    const got = await client.connect({ host: ADDRESS["strip.example.com"] as string, port: 443, send, expect: 1, timeoutMs: 3000 });
    assert.equal(got.code, "ECONNRESET");
    const event = await agent.event("denied", (e) => e.verdict === "deny" && e.type === "connection", { from });
    assert.deepEqual([event.why, event.evidence?.serverName], ["wrong-server-name", "public.example.net"]);
  });

  after(async () => {
    const status = agent?.child.status;
    await lab?.close();
    assert.equal(status, undefined, "the agent was alive to the end");
  });
});
