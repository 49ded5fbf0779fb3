import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { domainStart } from "../../src/base/domain.ts";
import { recordType } from "../../src/base/record-type.ts";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import { readCapture } from "../../src/capture/file.ts";
import { readAsked } from "../../src/dns/question.ts";
import {
  DOMAINS_MAX,
  type Excess,
  exceeds,
  informationOf,
  type Limits,
  POD_DOMAINS_MAX,
  Questions,
  WINDOW_MS,
} from "../../src/dns/tunnel.ts";
import { Protocol } from "../../src/model/packet.ts";
import { DNS_LIMITS } from "../../src/policy/view.ts";
import { query } from "../support/dns.ts";
import { need } from "../support/need.ts";

const SEARCHES = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "eu-west-1.compute.internal"];
const DEFAULTS: Limits = { ...DNS_LIMITS, types: new Set(DNS_LIMITS.types) };
const NO_LIMITS: Limits = {
  ...DNS_LIMITS,
  nameLength: 255,
  entropy: 8,
  names: 10_000,
  data: 1_000_000,
  types: new Set(),
};

/** Asks for one name after the other, `perSecond` of them; the first limit that is exceeded, and at which name. */
function ask(
  names: Iterable<string | readonly string[]>,
  { perSecond = 10, type = "A", limits = DEFAULTS }: { perSecond?: number; type?: string; limits?: Limits } = {},
): (Excess & { readonly at: number }) | undefined {
  const questions = new Questions<string>(7);
  let at = 0;
  for (const name of names) {
    const bytes = query(name, { type: recordType(type) as number });
    const asked = readAsked(bytes, 0, bytes.length, SEARCHES);
    assert.ok(asked !== undefined, String(name));
    const excess = exceeds(limits, asked, questions.count("pod", asked, (at * 1000) / perSecond));
    if (excess !== undefined) return { ...excess, at };
    at++;
  }
  return undefined;
}

const hex = (i: number, octets: number): string => createHash("shake256", { outputLength: octets }).update(`${i}`).digest("hex");
const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
const base32 = (i: number, chars: number): string =>
  [...createHash("shake256", { outputLength: chars }).update(`${i}`).digest()].map((octet) => BASE32[octet & 31]).join("");
const times = (count: number, name: (i: number) => string): string[] => Array.from({ length: count }, (_, i) => name(i));
const labelled = (text: string, most = 57): string => (text.match(new RegExp(`.{1,${most}}`, "g")) ?? []).join(".");

/** What honest pods ask for, as it looks on the wire; facts of public services, names made up where they are somebody's. */
const HONEST: readonly string[] = [
  "api.stripe.com",
  "d111111abcdef8.cloudfront.net",
  "e12345.dscb.akamaiedge.net",
  "a1916.dscg1.akamai.net",
  "r3---sn-4g5e6nzz.googlevideo.com",
  "ec2-203-0-113-25.eu-central-1.compute.amazonaws.com",
  "orders.cluster-c9akciq32rgh.eu-west-1.rds.amazonaws.com",
  "0123456789ABCDEF0123456789ABCDEF.gr7.us-east-1.eks.amazonaws.com",
  "vpce-0a1b2c3d4e5f67890-abcdefgh.execute-api.eu-west-1.vpce.amazonaws.com",
  "internal-a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6-1234567890.eu-west-1.elb.amazonaws.com",
  "my-very-long-bucket-name-with-a-purpose-and-an-account-12345678.s3.dualstack.eu-west-1.amazonaws.com",
  "6f1d9c2e-8a4b-4c1d-9e2f-0a1b2c3d4e5f.privatelink.blob.core.windows.net",
  "mystorage.z6.web.core.windows.net",
  "o4501234567890123.ingest.us.sentry.io",
  "7-45-0-app.agent.datadoghq.eu",
  "0.0.0.0.1.0.0.4e.135jg5e1pd7s4735ftrqweufm5.avqs.mcafee.com",
  "_sip._tcp.example.com",
  "_mongodb._tcp.cluster0.ab1cd.mongodb.net",
  "_https._tcp.deb.debian.org",
  "_acme-challenge.checkout.shop.example.com",
  "_dmarc.example.co.uk",
  "selector1-contoso-com._domainkey.contoso.onmicrosoft.com",
  `${hex(1, 28)}._openpgpkey.example.com`,
  `_${hex(2, 16)}.checkout.example.com`,
  `${hex(3, 20)}.ebl.msbl.org`,
  `${hex(4, 31)}.email-blocklist.example.net`,
  "2.0.0.127.zen.spamhaus.org",
  "25.113.0.203.in-addr.arpa",
  `${"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"}.ip6.arpa`,
  "25.113.0.203.in-addr.spf.example.com",
  "cr1.k8s.io",
  "kubernetes.default.svc.cluster.local",
  "kafka-0.kafka-headless.streaming.svc.cluster.local",
  "_http._tcp.prometheus-operated.monitoring.svc.cluster.local",
  "10-244-0-11.shop.pod.cluster.local",
  "xn--bcher-kva.example",
  "localhost",
  "db",
  "",
];

test("what honest pods ask for exceeds nothing, with the search path and every type around it", () => {
  const walked = HONEST.flatMap((name) => [name, ...SEARCHES.map((search) => (name === "" ? search : `${name}.${search}`))]);
  for (const type of ["A", "AAAA", "HTTPS", "SRV", "TXT", "PTR", "MX", "ANY"])
    assert.equal(ask(walked, { type, perSecond: 1000 }), undefined);
});

test("busy honest pods exceed nothing", () => {
  const rows: Record<string, readonly string[]> = {
    "a mail server, 300 clients a minute against one block list": times(300, (i) => `${i % 256}.${(i * 7) % 256}.0.203.zen.spamhaus.org`),
    "a log analyser, 1000 addresses a minute": times(1000, (i) => `${i % 256}.${(i * 7) % 256}.${(i * 31) % 256}.${i % 200}.in-addr.arpa`),
    "a crawler, 500 blogs of one host": times(500, (i) => `the-blog-${i}.blogspot.com`),
    "a backup of 200 buckets": times(200, (i) => `customer-${i}-archive.s3.eu-west-1.amazonaws.com`),
    "the same 50 names without a cache, through the search path": times(10_000, (i) => `service-${i % 50}.example.com.${SEARCHES[i % 4]}`),
    "a controller that walks 900 services": times(900, (i) => `svc-${i}.team-${i % 9}.svc.cluster.local`),
  };
  for (const [what, names] of Object.entries(rows)) assert.equal(ask(names, { perSecond: names.length / 59 }), undefined, what);
});

test("names of real captures exceed nothing", (t) => {
  if (!need(t, { env: ["NAMEGATE_CORPUS"] })) return;
  const folder = join(process.env["NAMEGATE_CORPUS"] as string, "captures");
  const packet = newPacket();
  let names = 0;
  const found: string[] = [];
  for (const file of readdirSync(folder).filter((name) => /\.pcap(ng)?$/.test(name))) {
    const questions = new Questions<string>(1);
    for (const { bytes, start, end, time } of readCapture(readFileSync(join(folder, file)))) {
      if (!decodeIp(bytes, start, end, packet) || packet.protocol !== Protocol.UDP) continue;
      if (packet.sourcePort !== 53 && packet.destinationPort !== 53) continue;
      const asked = readAsked(bytes, packet.payloadStart, packet.payloadEnd, []);
      if (asked === undefined) continue;
      names++;
      const pod = packet.destinationPort === 53 ? packet.source : packet.destination;
      const excess = exceeds(DEFAULTS, asked, questions.count(pod, asked, time));
      if (excess !== undefined) found.push(`${file}: ${asked.name} ${JSON.stringify(excess)}`);
    }
  }
  assert.ok(names > 100, `${names} questions`);
  assert.deepEqual(found, []);
});

test("tunnels are seen within their first packets", () => {
  const evil = "t.evil.example";
  const rows: readonly [string, Iterable<string | readonly string[]>, Parameters<typeof ask>[1], Excess["limit"], number][] = [
    // iodine's names are as long as it may, in labels of 57; its raw codec uses octets above 127.
    ["iodine, NULL", times(1, (i) => `${labelled(base32(i, 120))}.${evil}`), { type: "NULL" }, "types", 0],
    ["iodine, private type", times(1, (i) => `y${i}.${evil}`), { type: "TYPE65399" }, "types", 0],
    ["iodine, long names", times(9, (i) => `${labelled(base32(i, 220))}.${evil}`), {}, "nameLength", 0],
    ["iodine, base32 of 110 octets", times(200, (i) => `${labelled(base32(i, 110))}.${evil}`), { perSecond: 50 }, "entropy", 20],
    [
      "iodine, base128",
      times(200, (i) => hex(i, 50)).map((text) => [
        [...Buffer.from(text, "hex")].map((c) => String.fromCharCode(128 | c)).join(""),
        "t",
        "evil",
        "example",
      ]),
      { perSecond: 50 },
      "data",
      130,
    ],
    ["hexadecimal, 120 octets, two a second", times(120, (i) => `${labelled(hex(i, 60), 60)}.${evil}`), { perSecond: 2 }, "data", 75],
    ["base32, 60 octets, 2 a second", times(150, (i) => `${base32(i, 60)}.${evil}`), { perSecond: 2 }, "data", 119],
    ["short names, 30 a second", times(2000, (i) => `${i.toString(36)}.${evil}`), { perSecond: 30 }, "names", 1100],
    [
      "below the reverse zone of a network",
      times(1500, (i) => `${[...hex(i, 8)].join(".")}.8.b.d.0.1.0.0.2.ip6.arpa`),
      { perSecond: 30 },
      "data",
      700,
    ],
  ];
  for (const [what, names, options, limit, by] of rows) {
    const excess = ask(names, options);
    assert.equal(excess?.limit, limit, `${what}: ${JSON.stringify(excess)}`);
    assert.ok(excess.at <= by, `${what}: at ${excess.at}`);
  }
});

test("each limit by itself", () => {
  const below = (limits: Partial<Limits>): Limits => ({ ...NO_LIMITS, ...limits });
  assert.deepEqual(ask(["a.b.example", "ab.b.example"], { limits: below({ labelLength: 6 }) }), {
    limit: "labelLength",
    most: 6,
    found: 7,
    at: 0,
  });
  // The search suffix is nobody's data.
  assert.equal(ask([`abc.example.com.${SEARCHES[0]}`], { limits: below({ nameLength: 15 }) }), undefined);
  assert.deepEqual(ask(["abcd.example.com"], { limits: below({ nameLength: 15 }) }), { limit: "nameLength", most: 15, found: 16, at: 0 });
  assert.equal(ask(Array(500).fill("a.example.com"), { limits: below({ names: 1 }) }), undefined);
  assert.deepEqual(ask(["a.example.com", "b.example.com"], { limits: below({ names: 1 }) }), { limit: "names", most: 1, found: 2, at: 1 });
  assert.equal(ask(["a.example.com", "b.example.net"], { limits: below({ names: 1 }) }), undefined);
  assert.deepEqual(ask(Array(500).fill("a.example.com"), { limits: below({ queries: 100 }), perSecond: 5 }), {
    limit: "queries",
    most: 100,
    found: 101,
    at: 100,
  });
  // A minute later it counts anew.
  assert.equal(ask(Array(500).fill("a.example.com"), { limits: below({ queries: 100 }), perSecond: 1 }), undefined);
  assert.deepEqual(ask(["a.example"], { limits: below({ types: new Set([16]) }), type: "TXT" }), {
    limit: "types",
    most: 0,
    found: 16,
    at: 0,
  });
  const text = labelled(base32(1, 200));
  assert.equal(ask([`${text}.example.com`], { limits: below({ entropy: 4.5 }) })?.limit, "entropy");
  assert.equal(ask([`${text.slice(0, 62)}.example.com`], { limits: below({ entropy: 4 }) }), undefined);
});

test("counts are right within a few per cent, whatever is asked twice", () => {
  for (const count of [10, 100, 1000, 5000, 10_000]) {
    const questions = new Questions<string>(count);
    let names = 0;
    for (let i = 0; i < count * 2; i++) {
      const bytes = query(`${hex(i % count, 8)}.example.com`);
      const asked = readAsked(bytes, 0, bytes.length, []);
      assert.ok(asked !== undefined);
      ({ names } = questions.count("pod", asked, 0));
    }
    assert.ok(Math.abs(names - count) <= Math.max(2, count * 0.1), `${count}: ${names}`);
  }
  assert.equal(informationOf("aaaa", 4), 0);
  assert.equal(informationOf("ab.cd", 5), 8);
  assert.equal(informationOf("abcdefgh", 4), 8);
});

test("the domain: two labels, three below a country's registry, a network of reverse names", () => {
  const domain = (name: string): string => name.slice(domainStart(name));
  const rows: Record<string, string> = {
    "": "",
    com: "com",
    "example.com": "example.com",
    "a.b.example.com": "example.com",
    "a.example.co.uk": "example.co.uk",
    "example.co.uk": "example.co.uk",
    "co.uk": "co.uk",
    "a.b.example.de": "example.de",
    "a.com.example": "com.example",
    "25.113.0.203.in-addr.arpa": "0.203.in-addr.arpa",
    "203.in-addr.arpa": "203.in-addr.arpa",
    [`${"1.".repeat(24)}8.b.d.0.1.0.0.2.ip6.arpa`]: "8.b.d.0.1.0.0.2.ip6.arpa",
    ".": ".",
    "..": "..",
    ".a.b": ".a.b",
  };
  for (const [name, expected] of Object.entries(rows)) assert.equal(domain(name), expected, name);
});

test("memory is bounded, and the domain with the fewest names goes first", () => {
  const questions = new Questions<number>(3);
  const count = (pod: number, name: string, nowMs = 0): number => {
    const bytes = query(name);
    const asked = readAsked(bytes, 0, bytes.length, []);
    assert.ok(asked !== undefined);
    return questions.count(pod, asked, nowMs).names;
  };
  for (let i = 0; i < 100; i++) count(0, `${i}.evil.example`);
  // Ever new domains do not make the busy one forgotten.
  for (let i = 0; i < 10_000; i++) count(0, `a.d${i}.example`);
  assert.ok(Math.abs(count(0, "100.evil.example") - 101) <= 5);
  assert.equal(questions.size, POD_DOMAINS_MAX);
  for (let pod = 1; pod < 500; pod++) for (let i = 0; i < POD_DOMAINS_MAX; i++) count(pod, `a.d${i}.example`);
  assert.equal(questions.size, DOMAINS_MAX);
  assert.ok(Math.abs(count(0, "101.evil.example") - 102) <= 5);
  questions.sweep(WINDOW_MS);
  assert.equal(questions.size, 0);
  // A clock that goes back begins a new minute.
  assert.equal(count(1, "a.example.com", 1_000_000), 1);
  assert.equal(count(1, "b.example.com", 10), 1);
});

test("any octets: the question is read or it is not, and counts stay sane", () => {
  const questions = new Questions<string>(5);
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 63 }), { maxLength: 4 }),
      fc.nat(200_000),
      (noise, raw, nowMs) => {
        readAsked(noise, 0, noise.length, SEARCHES);
        const labels = raw.map((label) => Buffer.from(label).toString("latin1"));
        const bytes = query(labels);
        const asked = readAsked(bytes, 0, bytes.length, SEARCHES);
        if (labels.join(".").length > 253) return assert.equal(asked, undefined);
        assert.ok(asked !== undefined && asked.name.length <= 253 && asked.labelLength <= 63);
        assert.ok(asked.domainAt >= 0 && asked.domainAt <= asked.name.length);
        const domain = questions.count("pod", asked, nowMs);
        assert.ok(domain.names >= 1 && domain.data >= 0 && domain.queries >= 1);
        const excess = exceeds(DEFAULTS, asked, domain);
        if (excess !== undefined) assert.ok(Number.isFinite(excess.found) && (excess.limit === "types" || excess.found > excess.most));
      },
    ),
    { numRuns: 2000 },
  );
});
