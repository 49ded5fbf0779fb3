import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { checksum, sumPseudoHeader, sumWords } from "../../src/base/checksum.ts";
import { DNS_OCTETS_MAX, tcpProbe, tcpReply, tcpReset, tcpResetBack, udpReply } from "../../src/dns/packets.ts";
import { type Packet, Protocol, TcpFlag } from "../../src/model/packet.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;

function packet(fields: Partial<Packet>): Packet {
  return {
    bytes: new Uint8Array(0),
    start: 0,
    end: 0,
    source: ip("10.0.0.7"),
    destination: ip("10.96.0.10"),
    protocol: Protocol.UDP,
    hopLimit: 63,
    fragment: false,
    sourcePort: 40000,
    destinationPort: 53,
    transport: 0,
    sequence: 0,
    acknowledgement: 0,
    tcpFlags: 0,
    payloadStart: 0,
    payloadEnd: 0,
    ...fields,
  };
}

/** The straightforward checksum, of whole headers as RFC 1071 tells it: words added with end-around carry. */
function slowSum(octets: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < octets.length; i += 2) {
    sum += (octets[i] as number) * 256 + (octets[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

interface Read {
  source: Ip;
  destination: Ip;
  hopLimit: number;
  protocol: number;
  transport: Uint8Array;
}

/** Reads a packet and checks every length and checksum in it. */
function read(bytes: Uint8Array | undefined): Read {
  assert.ok(bytes !== undefined);
  const v4 = (bytes[0] as number) >> 4 === 4;
  const text = (from: number, to: number): Ip => String.fromCharCode(...bytes.subarray(from, to)) as Ip;
  const u16 = (at: number): number => ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  const view = v4
    ? {
        source: text(12, 16),
        destination: text(16, 20),
        hopLimit: bytes[8] as number,
        protocol: bytes[9] as number,
        transport: bytes.subarray(20),
      }
    : {
        source: text(8, 24),
        destination: text(24, 40),
        hopLimit: bytes[7] as number,
        protocol: bytes[6] as number,
        transport: bytes.subarray(40),
      };
  if (v4) {
    assert.equal(u16(2), bytes.length);
    assert.equal(slowSum([...bytes.subarray(0, 20)]), 0xffff, "IPv4 header checksum");
  } else {
    assert.equal(u16(4), bytes.length - 40);
  }
  const octets = (address: Ip): number[] => [...address].map((c) => c.charCodeAt(0));
  const pseudo = [
    ...octets(view.source),
    ...octets(view.destination),
    0,
    view.protocol,
    view.transport.length >> 8,
    view.transport.length & 255,
  ];
  assert.equal(slowSum([...pseudo, ...view.transport]), 0xffff, "transport checksum");
  return view;
}

const u16 = (bytes: Uint8Array, at: number): number => ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
const u32 = (bytes: Uint8Array, at: number): number => u16(bytes, at) * 65536 + u16(bytes, at + 2);

const FAMILIES: [Ip, Ip][] = [
  [ip("10.0.0.7"), ip("10.96.0.10")],
  [ip("fd00::7"), ip("fd00:96::a")],
];

test("checksum: the example of RFC 1071 §3", () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assert.equal(checksum(sumWords(bytes, 0, 8)), ~0xddf2 & 0xffff);
  assert.equal(
    checksum(sumWords(bytes, 0, 7)),
    checksum(sumWords(Uint8Array.of(...bytes.subarray(0, 7), 0), 0, 8)),
    "an odd octet is a high one",
  );
  assert.equal(checksum(0xffff), 0);
  assert.equal(checksum(0x1_ffff_fffe), 0);
  assert.equal(sumPseudoHeader(ip("0.1.0.2"), ip("0.4.0.8"), 17, 32), 15 + 17 + 32);
});

test("UDP reply, both families, any length", () => {
  for (const [source, destination] of FAMILIES) {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (dns) => {
        const got = read(udpReply(packet({ source, destination }), dns));
        assert.deepEqual([got.source, got.destination, got.hopLimit, got.protocol], [destination, source, 64, 17]);
        assert.deepEqual([u16(got.transport, 0), u16(got.transport, 2), u16(got.transport, 4)], [53, 40000, 8 + dns.length]);
        assert.deepEqual([...got.transport.subarray(8)], [...dns]);
      }),
    );
  }
});

test("a UDP checksum of 0 is sent as 0xffff", () => {
  let zeros = 0;
  for (let i = 0; i < 65536; i++) {
    const bytes = udpReply(packet({}), Uint8Array.of(i >> 8, i & 255)) as Uint8Array;
    assert.notEqual(u16(bytes, 26), 0);
    if (u16(bytes, 26) === 0xffff) zeros++;
  }
  assert.equal(zeros, 1);
});

test("TCP reply: acknowledges the query, pushes, closes", () => {
  for (const [source, destination] of FAMILIES) {
    const query = packet({
      source,
      destination,
      protocol: 6,
      tcpFlags: TcpFlag.ACK | TcpFlag.PSH,
      sequence: 0xfffffff0,
      acknowledgement: 0x80000001,
      payloadStart: 100,
      payloadEnd: 140,
    });
    const got = read(tcpReply(query, Uint8Array.of(1, 2, 3)));
    assert.deepEqual([got.source, got.destination, u16(got.transport, 0), u16(got.transport, 2)], [destination, source, 53, 40000]);
    assert.deepEqual([u32(got.transport, 4), u32(got.transport, 8)], [0x80000001, 0x18], "modulo 2^32");
    assert.equal(got.transport[13], TcpFlag.PSH | TcpFlag.FIN | TcpFlag.ACK);
    assert.deepEqual([...got.transport.subarray(20)], [0, 3, 1, 2, 3]);
    const closing = read(tcpReply({ ...query, tcpFlags: query.tcpFlags | TcpFlag.FIN }, new Uint8Array(0)));
    assert.equal(u32(closing.transport, 8), 0x19, "a FIN is acknowledged too");
    assert.equal(tcpReply({ ...query, tcpFlags: TcpFlag.SYN }, new Uint8Array(0)), undefined);
  }
});

test("what fits no packet is not built", () => {
  const query = packet({ tcpFlags: TcpFlag.ACK });
  assert.equal(udpReply(query, new Uint8Array(DNS_OCTETS_MAX + 1)), undefined);
  assert.equal(tcpReply(query, new Uint8Array(DNS_OCTETS_MAX + 1)), undefined);
  read(tcpReply(query, new Uint8Array(DNS_OCTETS_MAX)));
  read(udpReply(query, new Uint8Array(DNS_OCTETS_MAX)));
});

test("TCP reset: the held segment's own direction and numbers", () => {
  for (const [source, destination] of FAMILIES) {
    const held = packet({
      source,
      destination,
      protocol: 6,
      tcpFlags: TcpFlag.ACK | TcpFlag.PSH | TcpFlag.FIN,
      sequence: 5,
      acknowledgement: 9,
      payloadStart: 60,
      payloadEnd: 90,
    });
    const got = read(tcpReset(held));
    assert.deepEqual([got.source, got.destination, got.hopLimit, got.transport.length], [source, destination, 63, 20]);
    assert.deepEqual(
      [u16(got.transport, 0), u16(got.transport, 2), u32(got.transport, 4), u32(got.transport, 8), got.transport[13]],
      [40000, 53, 5, 9, TcpFlag.RST | TcpFlag.ACK],
    );
    const syn = read(tcpReset({ ...held, tcpFlags: TcpFlag.SYN }));
    assert.deepEqual([u32(syn.transport, 8), syn.transport[13]], [0, TcpFlag.RST]);
  }
});

test("TCP reset back: to the sender, with the number it expects", () => {
  for (const [source, destination] of FAMILIES) {
    const held = packet({
      source,
      destination,
      protocol: 6,
      tcpFlags: TcpFlag.ACK | TcpFlag.PSH,
      sequence: 5,
      acknowledgement: 9,
      payloadStart: 60,
      payloadEnd: 90,
    });
    const got = read(tcpResetBack(held));
    assert.deepEqual([got.source, got.destination, u16(got.transport, 0), u16(got.transport, 2)], [destination, source, 53, 40000]);
    assert.deepEqual([u32(got.transport, 4), u32(got.transport, 8), got.transport[13]], [9, 35, TcpFlag.RST | TcpFlag.ACK]);
    const syn = read(tcpResetBack({ ...held, tcpFlags: TcpFlag.SYN, payloadEnd: 60 }));
    assert.deepEqual([u32(syn.transport, 4), u32(syn.transport, 8)], [0, 6]);
  }
});

test("TCP probe: an ACK from server to pod", () => {
  for (const [pod, server] of FAMILIES) {
    const got = read(tcpProbe({ address: server, port: 443 }, { address: pod, port: 40000 }, 7));
    assert.deepEqual(
      [got.source, got.destination, u16(got.transport, 0), u16(got.transport, 2), u32(got.transport, 4), got.transport[13]],
      [server, pod, 443, 40000, 7, TcpFlag.ACK],
    );
  }
});
