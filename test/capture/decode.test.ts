import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ipText } from "../../src/base/address.ts";
import { Protocol, TcpFlag } from "../../src/model/packet.ts";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import { concat, ip4, ip6, tcp, text, u16, u32, udp } from "./build.ts";

const { TCP, UDP, SCTP, ICMP, ICMPv6 } = Protocol;

/** What the decoder says, as one line. */
function read(bytes: Uint8Array, start = 0, end = bytes.length): string {
  const p = newPacket();
  if (!decodeIp(bytes, start, end, p)) return "malformed";
  const payload = p.payloadEnd - p.payloadStart;
  return `${ipText(p.source)} ${p.sourcePort} > ${ipText(p.destination)} ${p.destinationPort} proto ${p.protocol}${p.fragment ? " fragment" : ""} payload ${payload}`;
}

const data = text("hello");
const ext = (next: number, words = 0): Uint8Array => concat([next, words], new Uint8Array(6 + words * 8));
const frag = (next: number, offsetBytes: number, more: boolean): Uint8Array => concat([next, 0], u16(offsetBytes | (more ? 1 : 0)), u32(7));
const v4 = "10.0.0.1 1000 > 192.0.2.1 443";
const v6 = "fd00::1 1000 > 2001:db8::1 443";
const t = tcp({ from: 1000, to: 443 }, data);
const d = udp(1000, 443, data);

const ROWS: readonly (readonly [string, Uint8Array, string])[] = [
  ["tcp over ipv4", ip4({ protocol: TCP }, t), `${v4} proto 6 payload 5`],
  ["ipv4 options", ip4({ protocol: TCP, options: [1, 1, 1, 1, 7, 4, 4, 0] }, t), `${v4} proto 6 payload 5`],
  ["tcp options", ip4({ protocol: TCP }, tcp({ from: 1000, to: 443, options: [2, 4, 5, 180] }, data)), `${v4} proto 6 payload 5`],
  ["udp over ipv4", ip4({ protocol: UDP }, d), `${v4} proto 17 payload 5`],
  ["udp with bytes behind its length", ip4({ protocol: UDP }, udp(1000, 443, data, 10)), `${v4} proto 17 payload 2`],
  ["link padding behind the packet", concat(ip4({ protocol: UDP }, d), new Uint8Array(9)), `${v4} proto 17 payload 5`],
  ["sctp", ip4({ protocol: SCTP }, concat(u16(1000), u16(443), new Uint8Array(8), data)), `${v4} proto 132 payload 5`],
  ["icmp type and code", ip4({ protocol: ICMP }, concat([3, 1], new Uint8Array(6), data)), "10.0.0.1 0 > 192.0.2.1 769 proto 1 payload 5"],
  ["gre has no ports", ip4({ protocol: 47 }, data), "10.0.0.1 0 > 192.0.2.1 0 proto 47 payload 5"],
  ["tcp over ipv6", ip6({ next: TCP }, t), `${v6} proto 6 payload 5`],
  ["icmpv6", ip6({ next: ICMPv6 }, concat([128, 0], new Uint8Array(6))), "fd00::1 0 > 2001:db8::1 32768 proto 58 payload 0"],
  [
    "every extension header",
    ip6({ next: 0 }, concat(ext(60), ext(43, 1), ext(51), concat([TCP, 4], new Uint8Array(22)), t)),
    `${v6} proto 6 payload 5`,
  ],
  ["hop-by-hop, destination, routing", ip6({ next: 0 }, concat(ext(60), ext(43, 1), ext(TCP, 2), t)), `${v6} proto 6 payload 5`],
  ["authentication header", ip6({ next: 51 }, concat([TCP, 4], new Uint8Array(22), t)), `${v6} proto 6 payload 5`],
  ["hop-by-hop not first", ip6({ next: 60 }, concat(ext(0), ext(TCP), t)), "malformed"],
  [
    "eight extension headers",
    ip6({ next: 60 }, concat(...Array.from({ length: 7 }, () => ext(60)), ext(TCP), t)),
    `${v6} proto 6 payload 5`,
  ],
  ["nine extension headers", ip6({ next: 60 }, concat(...Array.from({ length: 8 }, () => ext(60)), ext(TCP), t)), "malformed"],
  ["no next header", ip6({ next: 59 }, data), "fd00::1 0 > 2001:db8::1 0 proto 59 payload 5"],
  ["ipv4 first fragment", ip4({ protocol: UDP, fragment: 0x2000 }, udp(1000, 443, data, 4000)), `${v4} proto 17 fragment payload 5`],
  ["ipv4 later fragment", ip4({ protocol: UDP, fragment: 5 }, d), "10.0.0.1 0 > 192.0.2.1 0 proto 17 fragment payload 13"],
  ["ipv4 don't-fragment bit", ip4({ protocol: UDP, fragment: 0x4000 }, d), `${v4} proto 17 payload 5`],
  ["ipv6 first fragment", ip6({ next: 44 }, concat(frag(UDP, 0, true), udp(1000, 443, data, 4000))), `${v6} proto 17 fragment payload 5`],
  ["ipv6 later fragment", ip6({ next: 44 }, concat(frag(UDP, 8, false), data)), "fd00::1 0 > 2001:db8::1 0 proto 17 fragment payload 5"],
  ["ipv6 atomic fragment", ip6({ next: 44 }, concat(frag(UDP, 0, false), d)), `${v6} proto 17 payload 5`],
  ["tiny first fragment", ip4({ protocol: TCP, fragment: 0x2000 }, t.subarray(0, 8)), "malformed"],
  ["cut by the copy range", ip4({ protocol: TCP }, t).subarray(0, 42), `${v4} proto 6 payload 2`],
  ["cut inside the tcp header", ip4({ protocol: TCP }, t).subarray(0, 39), "malformed"],
  ["length 0: too big for the field", ip4({ protocol: TCP, total: 0 }, t), `${v4} proto 6 payload 5`],
  ["ipv6 length 0", ip6({ next: TCP, length: 0 }, t), `${v6} proto 6 payload 5`],
  ["total length below the header", ip4({ protocol: TCP, total: 19 }, t), "malformed"],
  ["total length cuts the tcp header", ip4({ protocol: TCP, total: 39 }, t), "malformed"],
  ["header length 4 words", concat([0x44], ip4({ protocol: TCP }, t).subarray(1)), "malformed"],
  ["header length past the end", concat([0x4f], ip4({ protocol: 47 }, data).subarray(1)), "malformed"],
  ["tcp offset 4 words", ip4({ protocol: TCP }, concat(t.subarray(0, 12), [0x40], t.subarray(13))), "malformed"],
  ["tcp offset past the end", ip4({ protocol: TCP }, concat(t.subarray(0, 12), [0xf0], t.subarray(13))), "malformed"],
  ["udp length 7", ip4({ protocol: UDP }, udp(1000, 443, data, 7)), "malformed"],
  ["udp length past the packet", ip4({ protocol: UDP }, udp(1000, 443, data, 14)), "malformed"],
  ["icmp of 7 bytes", ip4({ protocol: ICMP }, new Uint8Array(7)), "malformed"],
  ["version 5", concat([0x55], new Uint8Array(40)), "malformed"],
  ["nothing", new Uint8Array(0), "malformed"],
];

for (const [name, bytes, want] of ROWS) {
  test(`decode: ${name}`, () => {
    assert.equal(read(bytes), want);
    const shifted = concat(new Uint8Array(3).fill(0x45), bytes, [0xff, 0xff]);
    assert.equal(read(shifted, 3, 3 + bytes.length), want, "at another offset");
  });
}

test("decode: sequence numbers, flags and offsets; nothing stays from the packet before", () => {
  const p = newPacket();
  const syn = ip4({ protocol: TCP }, tcp({ from: 1, to: 2, seq: 0xfffffff0, ack: 0x80000001, flags: TcpFlag.SYN | TcpFlag.ACK }, data));
  assert.ok(decodeIp(syn, 0, syn.length, p));
  assert.deepEqual(
    [p.sequence, p.acknowledgement, p.tcpFlags, p.transport, p.payloadStart, p.payloadEnd, p.end, p.hopLimit],
    [0xfffffff0, 0x80000001, 18, 20, 40, 45, 45, 64],
  );
  const gre = ip4({ protocol: 47, fragment: 0 }, data);
  assert.ok(decodeIp(gre, 0, gre.length, p));
  assert.deepEqual([p.sequence, p.acknowledgement, p.tcpFlags, p.sourcePort, p.fragment], [0, 0, 0, 0, false]);
});

test("decode: bounds that are not inside the buffer are malformed", () => {
  const bytes = ip4({ protocol: TCP }, t);
  for (const [start, end] of [
    [-1, 40],
    [0, bytes.length + 1],
    [10, 10],
    [20, 10],
  ] as const)
    assert.equal(read(bytes, start, end), "malformed");
});

test("decode: what is built is read back", () => {
  const port = fc.integer({ min: 0, max: 65535 });
  const body = fc.uint8Array({ maxLength: 64 });
  fc.assert(
    fc.property(
      port,
      port,
      body,
      fc.boolean(),
      fc.boolean(),
      fc.integer({ min: 0, max: 8 }),
      (from, to, payload, isTcp, isV6, extensions) => {
        const upper = isTcp ? tcp({ from, to }, payload) : udp(from, to, payload);
        const protocol = isTcp ? TCP : UDP;
        const chain = Array.from({ length: extensions }, (_, i) => ext(i === extensions - 1 ? protocol : 60, i % 3));
        const bytes = isV6 ? ip6({ next: extensions > 0 ? 60 : protocol }, concat(...chain, upper)) : ip4({ protocol }, upper);
        const p = newPacket();
        assert.ok(decodeIp(bytes, 0, bytes.length, p));
        assert.deepEqual([p.protocol, p.sourcePort, p.destinationPort, p.fragment], [protocol, from, to, false]);
        assert.deepEqual(p.bytes.subarray(p.payloadStart, p.payloadEnd), payload);
      },
    ),
  );
});

test("decode: hostile bytes never throw, and offsets stay inside the packet", () => {
  const seeds = ROWS.map(([, bytes]) => bytes);
  const edit = fc.tuple(fc.nat(80), fc.nat(255));
  const p = newPacket();
  fc.assert(
    fc.property(fc.constantFrom(...seeds), fc.array(edit, { maxLength: 6 }), fc.nat(80), (seed, edits, cut) => {
      const bytes = Uint8Array.from(seed.subarray(0, Math.max(0, seed.length - (cut > 60 ? cut - 60 : 0))));
      for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
      if (!decodeIp(bytes, 0, bytes.length, p)) return;
      assert.ok(
        p.start <= p.transport &&
          p.transport <= p.payloadStart &&
          p.payloadStart <= p.payloadEnd &&
          p.payloadEnd <= p.end &&
          p.end <= bytes.length,
      );
    }),
    { numRuns: 5000 },
  );
});
