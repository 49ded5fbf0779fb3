/**
 * Workload: one thread decodes the same reply again and again, as the DNS queue does with what resolvers send: a single
 * address, two CNAMEs with four addresses, eight addresses, a negative answer; and a hostile 64 KiB one. Ours: `learn`
 * (validation, chain, bindings, names as strings). Theirs: `decode` of dns-packet, which then knows neither chain nor
 * bindings. The ratio is what to compare; nanoseconds depend on the machine.
 *
 * node dist/bench/dns-reader.js
 */
import dnsPacket from "dns-packet";
import { learn } from "../src/dns/reply.ts";
import type { Learned } from "../src/model/binding.ts";
import { a, ask, cname, encode, labels } from "../test/dns/encode.ts";

const long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(56)].join(".");
const four = [1, 2, 3, 4].map((i) => a("e13678.dscb.akamaiedge.net", [23, 50, 108, i], 20));
const cases: [string, Uint8Array][] = [
  ["A x1", encode({ questions: ask("api.stripe.com"), answers: [a("api.stripe.com", [1, 2, 3, 4])] })],
  [
    "CNAME x2, A x4",
    encode({
      questions: ask("www.microsoft.com"),
      answers: [
        cname("www.microsoft.com", "www.microsoft.com-c-3.edgekey.net"),
        cname("www.microsoft.com-c-3.edgekey.net", "e13678.dscb.akamaiedge.net"),
        ...four,
      ],
    }),
  ],
  ["A x8", encode({ questions: ask("api.stripe.com"), answers: Array.from({ length: 8 }, (_, i) => a("api.stripe.com", [1, 2, 3, i])) })],
  [
    "NXDOMAIN",
    encode({
      flags: 0x8183,
      questions: ask("nope.example.com"),
      authorities: [{ name: labels("example.com"), type: 6, data: new Uint8Array(22) }],
    }),
  ],
  [
    "hostile: 4000 pointers to a 250 B name",
    encode({ questions: ask(long), answers: Array.from({ length: 4000 }, () => a(long, [1, 2, 3, 4])) }),
  ],
];

/** Nanoseconds a call: the best of some rounds of about 50 ms. */
function measure(run: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 8; round++) {
    let calls = 0;
    const start = performance.now();
    let now = start;
    while (now - start < 50) {
      for (let i = 0; i < 16; i++) run();
      calls += 16;
      now = performance.now();
    }
    best = Math.min(best, ((now - start) * 1e6) / calls);
  }
  return best;
}

const out: Learned[] = [];
for (const [what, bytes] of cases) {
  const buffer = Buffer.from(bytes);
  const ours = measure(() => void learn(bytes, 0, bytes.length, out));
  const theirs = measure(() => void dnsPacket.decode(buffer));
  console.log(
    `${what.padEnd(40)} ${String(bytes.length).padStart(6)} B  learn ${ours.toFixed(0).padStart(8)} ns  dns-packet ${theirs.toFixed(0).padStart(9)} ns  ratio ${(theirs / ours).toFixed(1)}`,
  );
}
