/**
 * Mutated messages, queries and TCP segments. Nothing may throw, take long, or break what is promised of the results.
 * For an hour: FUZZ_SECONDS=3600 npm run fuzz -- dns, or node dist/test/dns/message.fuzz.js --seconds 3600 [--seed N]
 */
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import type { Ip } from "../../src/base/address.ts";
import { dnsName } from "../../src/base/name.ts";
import { HOPS_MAX } from "../../src/dns/chain.ts";
import { readQuery, refused } from "../../src/dns/query.ts";
import { readAsked } from "../../src/dns/question.ts";
import { ADDRESSES_MAX, learn } from "../../src/dns/reply.ts";
import { TCP_LIMITS, TcpMessages } from "../../src/dns/tcp.ts";
import { exceeds, POD_DOMAINS_MAX, Questions } from "../../src/dns/tunnel.ts";
import type { Learned } from "../../src/model/binding.ts";
import { type Packet, Protocol, TcpFlag } from "../../src/model/packet.ts";
import { DNS_LIMITS } from "../../src/policy/view.ts";
import { a, aaaa, ask, cname, encode, labels, param, randomFrom, svcb } from "./encode.ts";

const opt = { name: [], type: 41, class: 1232, ttl: 0, data: new Uint8Array(0) };
const hints = [
  ...param(0, 0, 1),
  ...param(1, 2, 104, 50),
  ...param(3, 1, 187),
  ...param(4, 1, 2, 3, 4),
  ...param(5, 9, 9),
  ...param(6, ...new Array<number>(16).fill(3)),
];
const SEEDS: readonly Uint8Array[] = [
  encode({ questions: ask("api.stripe.com"), answers: [a("api.stripe.com", [1, 2, 3, 4])], additionals: [opt] }),
  encode({
    questions: ask("a.test"),
    answers: [
      cname("a.test", "b.a.test"),
      cname("b.a.test", "c.test"),
      a("c.test", [1, 2, 3, 4]),
      a("c.test", [1, 2, 3, 5]),
      aaaa("c.test", 1),
    ],
  }),
  encode({ questions: ask("x.y.svc.local"), answers: [cname("x.y.svc.local", "x.y"), a("x.y", [5, 6, 7, 8])] }),
  encode({ questions: ask("a.test", 65), answers: [svcb("a.test", 1, "s.test", hints), svcb("a.test", 0, "t.test", [])] }),
  encode({ flags: 0x8183, questions: ask("nope.test") }),
  encode({ flags: 0x0100, questions: ask("wWw.TeSt", 28), additionals: [opt] }),
  encode({
    flags: 0x0100,
    questions: ask("q.test"),
    additionals: [opt, { name: labels("key"), type: 250, class: 255, data: new Uint8Array(9) }],
  }),
];
/** Octets that mean something at many places. */
const SPECIAL = [0, 1, 4, 5, 12, 16, 28, 41, 46, 63, 64, 65, 0x7f, 0x80, 0xc0, 0xff];
/** A mutated small message takes microseconds; a pause of the machine is told from slow code by trying again. */
const SLOW_MS = 5;

export interface FuzzCount {
  iterations: number;
  learned: number;
  queries: number;
  messages: number;
  slowestMs: number;
}

/** Runs until `until(iterations)` is true, looked at every 1000. Throws what it found, with the seed and iteration. */
export function fuzz(seed: number, until: (iterations: number) => boolean): FuzzCount {
  const random = randomFrom(seed);
  const below = (n: number): number => random() % n;
  const count: FuzzCount = { iterations: 0, learned: 0, queries: 0, messages: 0, slowestMs: 0 };
  const out: Learned[] = [];
  const work = new Uint8Array(1024);
  const questions = new Questions<number>(seed);
  const limits = { ...DNS_LIMITS, types: new Set(DNS_LIMITS.types) };
  const tcp = new TcpMessages("resolver", { ...TCP_LIMITS, connections: 8, octets: 300_000 });
  const stream = Uint8Array.from({ length: 4096 }, (_, i) => (i % 32 === 1 ? 30 : i % 32 === 0 ? 0 : i)); // messages of 30 octets
  const packet: Packet = {
    bytes: stream,
    start: 0,
    end: 0,
    source: "\n\0\0\x07" as Ip,
    destination: "\n\0\0\x0a" as Ip,
    protocol: Protocol.TCP,
    hopLimit: 64,
    fragment: false,
    sourcePort: 0,
    destinationPort: 53,
    transport: 0,
    sequence: 0,
    acknowledgement: 0,
    tcpFlags: 0,
    payloadStart: 0,
    payloadEnd: 0,
  };
  const onMessage = (bytes: Uint8Array, from: number, to: number): void => {
    count.messages++;
    assert.ok(from >= 0 && from <= to && to <= bytes.length);
  };
  for (; count.iterations % 1000 !== 0 || !until(count.iterations); count.iterations++) {
    const base = SEEDS[below(SEEDS.length)] as Uint8Array;
    const start = below(3) * 7;
    work.set(base, start);
    let end = start + base.length;
    for (let k = below(6); k > 0; k--) {
      const at = start + below(end - start);
      const kind = below(8);
      if (kind < 3) work[at] = random();
      else if (kind < 6) work[at] = SPECIAL[below(SPECIAL.length)] as number;
      else if (kind === 6) work.copyWithin(at, start + below(end - start), end);
      else end = Math.max(start + 1, Math.min(work.length, end + below(24) - 12));
    }
    try {
      const before = performance.now();
      const outcome = learn(work, start, end, out, ["svc.local", "local"]);
      const query = readQuery(work, start, end);
      const asked = readAsked(work, start, end, ["svc.local", "local"]);
      if (asked !== undefined) {
        const domain = questions.count(0, asked, count.iterations);
        const excess = exceeds(limits, asked, domain);
        assert.ok(asked.domainAt <= asked.name.length && asked.labelLength <= 63 && domain.names >= 1 && domain.data >= 0);
        assert.ok(excess === undefined || Number.isFinite(excess.found));
        // A query that we would forward is one that was looked at.
        assert.ok(questions.size <= POD_DOMAINS_MAX);
      } else assert.ok("bad" in query);
      const refusal = refused(work, start, end);
      packet.sourcePort = below(10);
      const kind = below(40);
      const at = kind < 8 ? 0 : below(200);
      packet.bytes = kind === 39 ? work : stream; // other bytes at the same place
      packet.tcpFlags = kind < 4 ? TcpFlag.SYN : kind === 5 ? TcpFlag.RST : kind === 6 ? TcpFlag.FIN : TcpFlag.ACK;
      packet.sequence = (0xffffff80 + at - (kind < 4 ? 1 : 0)) >>> 0;
      packet.payloadStart = at;
      packet.payloadEnd = at + (kind < 2 ? 0 : below(150));
      tcp.feed(packet, count.iterations, onMessage);
      let tookMs = performance.now() - before;
      for (let again = 0; again < 10 && tookMs > SLOW_MS; again++) {
        const retried = performance.now();
        learn(work, start, end, out, ["svc.local", "local"]);
        refused(work, start, end);
        tookMs = Math.min(tookMs, performance.now() - retried);
      }
      count.slowestMs = Math.max(count.slowestMs, tookMs);
      assert.equal(outcome.kind === "learned", out.length > 0 && !outcome.tc);
      assert.equal(outcome.reason !== undefined, outcome.kind === "malformed" || outcome.kind === "ignored");
      assert.ok(out.length <= ADDRESSES_MAX * (HOPS_MAX + 1) && outcome.addresses <= ADDRESSES_MAX);
      for (const { name, ttl, address } of out) {
        assert.equal(dnsName(name), name);
        assert.ok(ttl >= 0 && ttl <= 0x7fffffff && (address.length === 4 || address.length === 16));
      }
      if (out.length > 0) count.learned++;
      if (!("bad" in query)) {
        count.queries++;
        assert.ok(query.questionEnd <= end && query.qname === (query.qname && dnsName(query.qname)));
        assert.equal((refusal?.[3] ?? 0) & 15, 5);
      }
      if (refusal !== undefined) assert.ok(refusal.length <= end - start + 17 && refusal[0] === work[start]);
      assert.ok(tcp.connections <= 8 && tcp.octets <= 300_000);
      assert.ok(count.slowestMs < SLOW_MS, `${count.slowestMs} ms`);
    } catch (error) {
      throw new Error(`seed ${seed}, iteration ${count.iterations}: ${Buffer.from(work.subarray(start, end)).toString("hex")}`, {
        cause: error,
      });
    }
  }
  return count;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const argument = (name: string, otherwise: number): number => {
    const at = process.argv.indexOf(name);
    return at < 0 ? otherwise : Number(process.argv[at + 1]);
  };
  const end = performance.now() + argument("--seconds", Number(process.env["FUZZ_SECONDS"] ?? 10)) * 1000;
  console.log(fuzz(argument("--seed", Date.now() >>> 0), () => performance.now() >= end));
}
