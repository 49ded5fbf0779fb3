import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createLab } from "../../src/cli/lab.ts";
import { ACCEPTED, policy, putPolicy, startAgent, type TestAgent } from "../support/agent.ts";
import { type Client, clientIn } from "../support/client.ts";
import { framed, query, rcode } from "../support/dns.ts";
import { type DnsServer, dnsServer, type NameAnswer } from "../support/dns-server.ts";
import { clusterDns, LAB_COMMANDS, type Lab, until } from "../support/lab.ts";
import { skip } from "../support/need.ts";
import { serve } from "../support/servers.ts";

/** What replies teach, and that every one of them reaches the client as the resolver sent it. */

let addresses = 0;
/** An address of the server `out` that no other case uses, in both families. */
function fresh(): { readonly v4: string; readonly v6: string } {
  addresses++;
  return { v4: `198.51.100.${addresses}`, v6: `2001:db8::1:${addresses.toString(16)}` };
}

const chain = fresh();
const matched = fresh();
const foreign = fresh();
const stolen = fresh();
const hint = fresh();
const big = fresh();
const huge = fresh();
const hugeTcp = fresh();
const pieces = fresh();
const cut = fresh();
const two = [fresh(), fresh()] as const;
const cased = fresh();
const missing = fresh();
const autopath = fresh();
const other = fresh();
const old = fresh();

const CHAIN = ["www.cdn.example.net", "edge.cdn.example.net"];
/** SvcPriority 1, the owner itself, ipv4hint and ipv6hint (RFC 9460 §7.3). */
const HINTS = `000100${`0004${hex(4)}${ip4(hint.v4)}`}${`0006${hex(16)}20010db8000000000000000000010${addressHex(hint.v6)}`}`;

const NAMES: Record<string, NameAnswer> = {
  "chain.example.com": { cname: CHAIN, A: [chain.v4], AAAA: [chain.v6] },
  "matched.example.com": { cname: CHAIN, A: [matched.v4], AAAA: [matched.v6] },
  "foreign.example.com": { A: [foreign.v4], extra: [{ name: "other.example.com", type: "A", data: stolen.v4 }] },
  "evil.example.net": { A: [stolen.v4], extra: [{ name: "victim.example.com", type: "A", data: stolen.v4 }] },
  "hint.example.com": { https: [HINTS] },
  "big.example.com": { A: [big.v4], AAAA: [big.v6], padding: 4000 },
  "huge.example.com": { A: [huge.v4], AAAA: [huge.v6], padding: 52_000 },
  "huge-tcp.example.com": { A: [hugeTcp.v4], AAAA: [hugeTcp.v6], padding: 52_000, tcpPieces: 1400 },
  "pieces.example.com": { A: [pieces.v4], AAAA: [pieces.v6], tcpPieces: 3 },
  "cut.example.com": { A: [cut.v4], AAAA: [cut.v6], truncate: true },
  "one.example.com": { A: [two[0].v4] },
  "two.example.com": { A: [two[1].v4] },
  "cased.example.com": { A: [cased.v4] },
  "auto.example.com.shop.svc.cluster.local": { cname: ["auto.example.com"], A: [autopath.v4] },
  "auto.example.com.other.svc.cluster.local": { cname: ["auto.example.com"], A: [other.v4] },
  "old.example.com": { A: [old.v4] },
  "nothing.example.com": {},
  "broken.example.com": { rcode: "SERVFAIL" },
};

/** Replies that no library writes: the rest of the message after the id, in hexadecimal. */
const question = Buffer.from(query("bad.example.com")).subarray(12).toString("hex");
const MALFORMED: Readonly<Record<string, string>> = {
  "no octets": "",
  "one octet": "00",
  "half a header": "000081800001",
  "a header that promises what is not there": "000081800001ffff00000000",
  "a question cut off": `0000818000010001000000000362616407${"65".repeat(3)}`,
  "a pointer to itself": "000081800001000100000000c00c00010001",
  "an answer's name that points at itself": `000081800001000100000000${question}c0210001000100000e100004c6336401`,
  "an answer of 65535 octets that are not there": `000081800001000100000000${question}c00c0001000100000e10ffffc6336401`,
  "an A record of three octets": `000081800001000100000000${question}c00c0001000100000e100003c63364`,
  "octets after the end": `000081800001000000000000${question}deadbeef`,
  "two questions": `000081800002000000000000${question}${question}`,
  "not a reply": `000001000001000000000000${question}`,
  "another opcode": `0000a9800001000000000000${question}`,
  "reserved label bits": `00008180000100010000000083626164${"00".repeat(5)}`,
  noise: Array.from({ length: 400 }, (_, i) => hexByte((i * 7919) >> 3)).join(""),
};

function hex(n: number): string {
  return n.toString(16).padStart(4, "0");
}
function hexByte(n: number): string {
  return (n & 255).toString(16).padStart(2, "0");
}
function ip4(text: string): string {
  return text
    .split(".")
    .map((part) => hexByte(Number(part)))
    .join("");
}
function addressHex(v6: string): string {
  return Number.parseInt(v6.slice(v6.lastIndexOf(":") + 1), 16)
    .toString(16)
    .padStart(3, "0");
}

describe("replies", { skip: skip({ root: true, addon: true, commands: [...LAB_COMMANDS, "dig"] }) }, () => {
  let lab: Lab;
  let dns: Awaited<ReturnType<typeof clusterDns>>;
  let server: DnsServer;
  let agent: TestAgent;
  let client: Client;
  let cnames: Client;

  before(async () => {
    lab = await createLab();
    dns = await clusterDns(lab);
    await lab.addPod({ name: "client" });
    await lab.addPod({ name: "cnames", kind: "bridge" });
    await lab.addServer({
      name: "out",
      addresses: Array.from({ length: addresses }, (_, i) => [`198.51.100.${i + 1}`, `2001:db8::1:${(i + 1).toString(16)}`]).flat(),
    });
    await serve(lab, "out", [{ kind: "echo", port: 443 }]);
    server = await dnsServer(lab, dns.pod, { port: dns.port, names: NAMES });
    const rule = { action: "Accept", ports: [{ protocol: "TCP", port: 443 }] };
    putPolicy(
      lab,
      "client.yaml",
      policy("client", {
        mode: "Enforce",
        subject: { podSelector: { matchLabels: { app: "client" } } },
        egress: [{ ...rule, to: [{ domainNames: ["*.example.com"] }] }],
      }),
    );
    // The bridged pod is for large replies, too.
    putPolicy(
      lab,
      "big.yaml",
      policy("big", {
        mode: "Enforce",
        subject: { podSelector: { matchLabels: { app: "cnames" } } },
        egress: [
          {
            ...rule,
            to: [{ domainNames: ["big.example.com", "huge.example.com", "huge-tcp.example.com", "pieces.example.com", "cut.example.com"] }],
          },
        ],
      }),
    );
    // Names a target of the chain only: `match` says that it counts although nobody asked for it.
    const targets = {
      mode: "Enforce",
      subject: { podSelector: { matchLabels: { app: "cnames" } } },
      egress: [{ ...rule, to: [{ domainNames: ["edge.cdn.example.net"], cnames: "Ignore" }] }],
    };
    putPolicy(lab, "cnames.yaml", policy("cnames", targets));
    agent = await startAgent(lab);
    client = await clientIn(lab, "client");
    cnames = await clientIn(lab, "cnames");
  });

  /** How a connection to each address ends: null is good. */
  const codes = async (from: Client, ...hosts: readonly string[]): Promise<(string | null)[]> =>
    (await Promise.all(hosts.map((host) => from.connect({ host, port: 443, send: "x" })))).map(({ code }) => code);
  const dig = async (where: string, ...words: readonly string[]): Promise<string> =>
    (await lab.run(where, ["dig", "+tries=1", "+time=3", ...words])).trim();
  /** Asks over UDP with the client's own octets. */
  const ask = (message: Uint8Array): Promise<string> => client.datagram({ host: dns.v4, port: 53, send: message }).then(({ data }) => data);

  test("a CNAME chain binds the asked name to the addresses at its end", async () => {
    assert.deepEqual(await codes(client, chain.v4, chain.v6), ["ECONNREFUSED", "ECONNREFUSED"], "before anybody asked");
    assert.equal((await client.resolve({ name: "chain.example.com" })).ok, true);
    assert.equal((await client.resolve({ name: "chain.example.com", type: "AAAA", server: `[${dns.v6}]` })).ok, true);
    assert.deepEqual(await codes(client, chain.v4, chain.v6), [null, null]);
  });

  test("a target of the chain counts only where the rule says so", async () => {
    assert.equal((await cnames.resolve({ name: "matched.example.com" })).ok, true);
    assert.deepEqual(await codes(cnames, matched.v4), ["ECONNREFUSED"], "cnames: Ignore");
    const spec = {
      mode: "Enforce",
      subject: { podSelector: { matchLabels: { app: "cnames" } } },
      egress: [
        {
          name: "edge",
          action: "Accept",
          to: [{ domainNames: ["edge.cdn.example.net"], cnames: "Match" }],
          ports: [{ protocol: "TCP", port: 443 }],
        },
      ],
    };
    const from = agent.events().length;
    putPolicy(lab, "cnames.yaml", policy("cnames", spec));
    await agent.event("the changed policy", (e) => ACCEPTED.has(e.why) && e.policy === "shop/cnames", { from });
    await until("cnames: Match", async () => {
      await cnames.resolve({ name: "matched.example.com" });
      return (await codes(cnames, matched.v4))[0] === null;
    });
    assert.deepEqual(await codes(cnames, matched.v6), ["ECONNREFUSED"], "the other family was not asked for");
  });

  test("a record whose owner is not on the chain teaches nothing", async () => {
    assert.equal((await client.resolve({ name: "foreign.example.com" })).ok, true);
    await client.resolve({ name: "evil.example.net" });
    assert.deepEqual(await codes(client, foreign.v4, stolen.v4), [null, "ECONNREFUSED"]);
  });

  test("a resolver that walks the search path for the pod (autopath) answers another name than the asked one", async () => {
    for (const search of ["shop", "other"]) await client.resolve({ name: `auto.example.com.${search}.svc.cluster.local` });
    assert.deepEqual(await codes(client, autopath.v4, other.v4), [null, "ECONNREFUSED"], "only the pod's own search path");
  });

  test("the hints of an HTTPS record are learned", async () => {
    await dig("client", `@${dns.v4}`, "hint.example.com", "TYPE65");
    assert.deepEqual(await codes(client, hint.v4, hint.v6), [null, null]);
  });

  for (const [what, name, addressOf, options, least] of [
    ["4 KB over UDP, in fragments", "big.example.com", big, ["+bufsize=8192", "+ignore", "+notcp"], 4000],
    ["58 KB over UDP, in fragments", "huge.example.com", huge, ["+bufsize=65535", "+ignore", "+notcp"], 58_000],
    ["58 KB over TCP, in many segments", "huge-tcp.example.com", hugeTcp, ["+tcp"], 58_000],
    ["over TCP, three octets a segment", "pieces.example.com", pieces, ["+tcp"], 50],
    ["truncated, then over TCP", "cut.example.com", cut, [], 40],
  ] as const) {
    for (const [family, type] of [
      ["v4", "A"],
      ["v6", "AAAA"],
    ] as const) {
      test(`a reply ${what}, IP${family}`, async () => {
        for (const [where, from] of [
          ["client", client],
          ["cnames", cnames],
        ] as const) {
          assert.deepEqual(await codes(from, addressOf[family]), ["ECONNREFUSED"], `${where} before`);
          const shown = await dig(where, `@${dns[family]}`, name, type, ...options, "+noall", "+answer", "+stats");
          assert.ok(Number(/MSG SIZE {2}rcvd: (\d+)/.exec(shown)?.[1]) >= least, `${where}: ${shown.slice(-200)}`);
          assert.deepEqual(await codes(from, addressOf[family]), [null], where);
        }
      });
    }
  }

  test("two queries in one segment, two replies on one connection", async () => {
    const send = Uint8Array.from([...framed(query("one.example.com", { id: 1 })), ...framed(query("two.example.com", { id: 2 }))]);
    const both = await client.connect({ host: dns.v4, port: 53, send, expect: 2 * (2 + 49) });
    assert.equal(both.ok, true, `${both.code} ${both.data.length}`);
    assert.deepEqual(await codes(client, two[0].v4, two[1].v4), [null, null]);
  });

  test("the case of a name is the client's (0x20), and EDNS is left alone", async () => {
    const message = query("CaSeD.eXaMpLe.CoM", { id: 0xbeef, edns: true });
    const reply = await ask(message);
    assert.equal(reply.slice(0, 2), "\xbe\xef");
    assert.ok(reply.includes("\x05CaSeD\x07eXaMpLe\x03CoM"), "the question comes back as it was asked");
    assert.deepEqual(await codes(client, cased.v4), [null]);
  });

  test("negative replies arrive, at once, and allow nothing", async () => {
    assert.equal(rcode(await ask(query("no-such.example.com"))), 3);
    assert.equal(rcode(await ask(query("nothing.example.com"))), 0);
    assert.equal(rcode(await ask(query("broken.example.com"))), 2);
    assert.equal((await client.resolve({ name: "no-such.example.com" })).code, "ENOTFOUND");
    assert.equal((await client.resolve({ name: "nothing.example.com" })).code, "ENODATA");
    assert.deepEqual(await codes(client, missing.v4), ["ECONNREFUSED"]);
  });

  test("malformed replies arrive as they were sent, octet for octet", async () => {
    const before = (await agent.status()).counters;
    for (const [what, raw] of Object.entries(MALFORMED)) {
      await server.setNames({ "bad.example.com": { raw } });
      const sent = Buffer.from(raw, "hex");
      if (sent.length >= 2) sent.writeUInt16BE(0x4242, 0);
      const message = query("bad.example.com", { id: 0x4242 });
      const udp = await client.datagram({ host: dns.v4, port: 53, send: message });
      assert.equal(udp.code, null, `${what}: ${udp.code}`);
      assert.equal(Buffer.from(udp.data, "latin1").toString("hex"), sent.toString("hex"), `${what}, UDP`);
      const wanted = framed(sent);
      const tcp = await client.connect({ host: dns.v6, port: 53, send: framed(message), expect: wanted.length });
      assert.equal(Buffer.from(tcp.data, "latin1").toString("hex"), Buffer.from(wanted).toString("hex"), `${what}, TCP`);
    }
    await server.setNames(NAMES);
    const { counters } = await agent.status();
    const count = Object.keys(MALFORMED).length;
    assert.ok((counters["repliesMalformed"] as number) - (before["repliesMalformed"] as number) >= count, "they were read");
    assert.equal(counters["faults"], 0);
    assert.equal((await client.resolve({ name: "chain.example.com" })).ok, true, "the next reply is read as ever");
  });

  test("a TCP connection to the resolver that is older than the agent goes on to teach", async () => {
    const held = await client.connect({
      host: dns.v4,
      port: 53,
      send: framed(query("chain.example.com", { id: 1 })),
      expect: 40,
      hold: true,
    });
    assert.equal(held.ok, true);
    await agent.kill();
    agent = await startAgent(lab);
    const reply = await client.talk({ hold: held.hold as number, send: framed(query("old.example.com", { id: 2 })), expect: 40 });
    assert.equal(rcode(reply.data.slice(2)), 0);
    assert.deepEqual(await codes(client, old.v4), [null]);
  });

  after(async () => {
    const status = agent?.child.status;
    await lab?.close();
    assert.equal(status, undefined, "the agent was alive to the end");
  });
});
