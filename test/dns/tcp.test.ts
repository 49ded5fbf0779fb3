import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { type Fed, TCP_LIMITS, TcpMessages } from "../../src/dns/tcp.ts";
import { type Packet, Protocol, TcpFlag } from "../../src/model/packet.ts";
import { randomFrom } from "./encode.ts";

const POD = parseIp("10.0.0.7") as Ip;
const RESOLVER = parseIp("10.96.0.10") as Ip;

function segment(sequence: number, payload: Uint8Array = new Uint8Array(0), flags: number = TcpFlag.ACK, sourcePort = 40000): Packet {
  const bytes = new Uint8Array(payload.length + 40);
  bytes.set(payload, 40);
  return {
    bytes,
    start: 0,
    end: bytes.length,
    source: POD,
    destination: RESOLVER,
    protocol: Protocol.TCP,
    hopLimit: 64,
    fragment: false,
    sourcePort,
    destinationPort: 53,
    transport: 20,
    sequence: sequence >>> 0,
    acknowledgement: 1,
    tcpFlags: flags,
    payloadStart: 40,
    payloadEnd: bytes.length,
  };
}

/** Messages with their two octets of length, one behind the other. */
function framed(...messages: string[]): Uint8Array {
  return Uint8Array.from(messages.flatMap((m) => [m.length >> 8, m.length & 255, ...Buffer.from(m, "latin1")]));
}

/** A table and what it handed over. */
function table(
  sender: "pod" | "resolver" = "pod",
  limits = TCP_LIMITS,
): { tcp: TcpMessages; got: string[]; feed: (packet: Packet, nowMs?: number) => Fed } {
  const tcp = new TcpMessages(sender, limits);
  const got: string[] = [];
  return {
    tcp,
    got,
    feed: (packet, nowMs = 0) =>
      tcp.feed(packet, nowMs, (bytes, start, end) => got.push(Buffer.from(bytes.subarray(start, end)).toString("latin1"))),
  };
}

const SYN = segment(999, undefined, TcpFlag.SYN);

test("three messages, cut at every place and at every two places", () => {
  const messages = ["", "first message", "x".repeat(20)];
  const all = framed(...messages);
  for (let i = 0; i <= all.length; i++) {
    for (let k = i; k <= all.length; k++) {
      const { got, feed } = table();
      feed(SYN);
      let last: Fed = "empty";
      for (const [from, to] of [
        [0, i],
        [i, k],
        [k, all.length],
      ] as const)
        if (to > from) last = feed(segment(1000 + from, all.subarray(from, to)));
      assert.deepEqual([got, last], [messages, "complete"], `cut at ${i} and ${k}`);
    }
  }
});

test("octet by octet: partial until whole", () => {
  const { got, feed } = table();
  const all = framed("ab", "cd");
  feed(SYN);
  const fed = [...all].map((octet, i) => feed(segment(1000 + i, Uint8Array.of(octet))));
  assert.deepEqual(fed, ["partial", "partial", "partial", "complete", "partial", "partial", "partial", "complete"]);
  assert.deepEqual(got, ["ab", "cd"]);
});

test("out of order, retransmitted, over the end of the number space", () => {
  const { got, feed } = table();
  const all = framed("hello", "world");
  const at = (i: number): number => 0xfffffffc + i;
  feed(segment(0xfffffffb, undefined, TcpFlag.SYN));
  assert.equal(feed(segment(at(7), all.subarray(7))), "gap");
  assert.equal(feed(segment(at(0), all.subarray(0, 4))), "partial");
  assert.equal(feed(segment(at(0), all.subarray(0, 4))), "old");
  assert.deepEqual(got, []);
  assert.equal(feed(segment(at(2), all.subarray(2, 9))), "complete");
  assert.deepEqual(got, ["hello", "world"]);
  assert.equal(feed(segment(at(0), all)), "old");
});

test("a message of 65535 octets, and the limit behind it", () => {
  const { tcp, got, feed } = table();
  const all = framed("m".repeat(65535));
  feed(SYN);
  for (let at = 1400; at < all.length; at += 1400) feed(segment(1000 + at, all.subarray(at, at + 1400)));
  assert.equal(feed(segment(1000, all.subarray(0, 1400))), "complete");
  assert.equal(got[0]?.length, 65535);
  assert.equal(feed(segment(1000 + all.length + 65537, Uint8Array.of(1))), "overflow");
  assert.equal(feed(segment(1000 + all.length, framed("later"))), "unknown", "lost for good");
  assert.equal(got.length, 1);
  assert.equal(tcp.octets, 0);
});

test("a retransmission with other bytes loses the stream, also after the message was read", () => {
  for (const first of [framed("allowed"), framed("allowed").subarray(0, 5)]) {
    const { got, feed } = table();
    feed(SYN);
    feed(segment(1000, first));
    const before = got.length;
    assert.equal(feed(segment(1000, framed("evil..."))), "overlap-differs");
    assert.equal(feed(segment(1000 + first.length, framed("more"))), "unknown");
    assert.equal(got.length, before);
  }
});

test("after a refusal nothing passes as old, and nothing behind it is read", () => {
  const tcp = new TcpMessages("pod");
  const got: string[] = [];
  const feed = (packet: Packet): Fed =>
    tcp.feed(packet, 0, (bytes, start, end) => {
      got.push(Buffer.from(bytes.subarray(start, end)).toString("latin1"));
      return got.at(-1) !== "evil";
    });
  const all = framed("good", "evil", "more");
  feed(SYN);
  assert.equal(feed(segment(1000, all.subarray(0, 8))), "partial");
  assert.equal(feed(segment(1007, all.subarray(7))), "refused");
  assert.deepEqual([got, tcp.octets], [["good", "evil"], 0]);
  assert.equal(feed(segment(1007, all.subarray(7))), "unknown", "again");
  assert.equal(feed(segment(5, undefined, TcpFlag.SYN)), "restarted");
  assert.equal(feed(segment(1007, all.subarray(7))), "unknown");
});

test("a stuck stream grows idle, however often it is tried", () => {
  const { tcp, feed } = table("pod", { ...TCP_LIMITS, idleMs: 100 });
  feed(SYN);
  for (let nowMs = 10; nowMs < 100; nowMs += 10) assert.equal(feed(segment(1010, framed("x")), nowMs), "gap");
  assert.equal(feed(segment(1000, framed("now what")), 100), "unknown");
  assert.equal(tcp.connections, 0);
});

test("without its SYN a connection stays unknown", () => {
  const { got, feed } = table();
  assert.equal(feed(segment(1000, framed("hello"))), "unknown");
  assert.equal(feed(segment(1000)), "empty");
  assert.deepEqual(got, []);
});

test("a resolver's stream is joined where a segment is whole messages; a pod's never is", () => {
  const [one, two, three] = ["first message", "second message", "third message"] as const;
  const whole = framed(one, two);
  const pod = table("pod");
  assert.equal(pod.feed(segment(5000, whole)), "unknown");
  const { feed, got } = table("resolver");
  assert.equal(feed(segment(4000, framed(one).subarray(1))), "unknown", "begins inside a message");
  assert.equal(feed(segment(4000, framed("short"))), "unknown", "no message is that short");
  assert.equal(feed(segment(4990, framed(one, two).subarray(0, 20))), "unknown", "ends inside one");
  assert.equal(feed(segment(5000, whole)), "complete");
  const rest = framed(three);
  assert.equal(feed(segment(5000 + whole.length, rest.subarray(0, 1))), "partial", "followed from there on");
  assert.equal(feed(segment(5000 + whole.length + 1, rest.subarray(1))), "complete");
  assert.deepEqual(got, [one, two, three]);
});

test("payload in the SYN counts (TFO)", () => {
  const { got, feed } = table();
  assert.equal(feed(segment(999, framed("early"), TcpFlag.SYN)), "complete");
  assert.equal(feed(segment(1007, framed("later"))), "complete");
  assert.deepEqual(got, ["early", "later"]);
});

test("a pod cannot restart a stream inside a message; a resolver can", () => {
  const inside = framed("forbidden").subarray(0, 6);
  const decoy = framed("innocent");
  for (const end of [TcpFlag.SYN, TcpFlag.RST, TcpFlag.FIN]) {
    const { got, feed } = table();
    feed(SYN);
    feed(segment(1000, inside));
    if (end !== TcpFlag.SYN) feed(segment(1000 + inside.length, undefined, end));
    assert.equal(feed(segment(1000 + inside.length - 1, undefined, TcpFlag.SYN)), "restarted");
    assert.equal(feed(segment(1000 + inside.length, decoy)), "partial", "read on as the resolver reads it");
    assert.equal(got.includes("innocent"), false);
  }
  const { got, feed } = table("resolver");
  feed(SYN);
  feed(segment(1000, inside));
  assert.equal(feed(segment(77, undefined, TcpFlag.SYN | TcpFlag.ACK)), "empty");
  assert.equal(feed(segment(78, framed("anew"))), "complete");
  assert.deepEqual(got, ["anew"]);
});

test("the SYN again changes nothing; a new one between messages begins anew", () => {
  const { tcp, got, feed } = table();
  feed(SYN);
  feed(segment(1000, framed("one").subarray(0, 4)));
  assert.equal(feed(SYN), "empty");
  feed(segment(1004, framed("one").subarray(4)));
  assert.equal(feed(segment(5, undefined, TcpFlag.SYN)), "empty");
  feed(segment(6, framed("two")));
  assert.deepEqual(got, ["one", "two"]);
  assert.equal(tcp.connections, 1);
});

test("FIN and RST forget, FIN after its payload", () => {
  for (const flag of [TcpFlag.FIN, TcpFlag.RST]) {
    const { tcp, got, feed } = table();
    feed(SYN);
    assert.equal(feed(segment(1000, framed("last"), TcpFlag.ACK | flag)), "complete");
    assert.deepEqual([got, tcp.connections, tcp.octets], [["last"], 0, 0]);
  }
});

test("idle connections are forgotten, used ones are not", () => {
  const { tcp, feed } = table("pod", { ...TCP_LIMITS, idleMs: 100 });
  feed(SYN, 0);
  feed(segment(1, undefined, TcpFlag.SYN, 2), 0);
  feed(segment(1000, framed("x")), 60);
  tcp.expire(100);
  assert.equal(tcp.connections, 1);
  assert.equal(feed(segment(1003, framed("y")), 159), "complete");
  assert.equal(feed(segment(1006, framed("y")), 259), "unknown");
  assert.deepEqual([tcp.connections, tcp.octets, tcp.evicted], [0, 0, 0]);
});

test("bounded by count: the longest unused goes, and is unknown from then on", () => {
  const { tcp, feed } = table("pod", { ...TCP_LIMITS, connections: 3 });
  for (const port of [1, 2, 3]) feed(segment(0, undefined, TcpFlag.SYN, port));
  feed(segment(1, framed("x"), TcpFlag.ACK, 1));
  feed(segment(0, undefined, TcpFlag.SYN, 4));
  assert.deepEqual([tcp.connections, tcp.evicted], [3, 1]);
  assert.equal(feed(segment(1, framed("x"), TcpFlag.ACK, 2)), "unknown");
  assert.equal(feed(segment(4, framed("x"), TcpFlag.ACK, 1)), "complete");
});

test("bounded by bytes", () => {
  const { tcp, feed } = table("pod", { ...TCP_LIMITS, octets: 100_000 });
  for (let port = 1; port <= 20; port++) {
    feed(segment(0, undefined, TcpFlag.SYN, port));
    feed(segment(1, framed("m".repeat(65535)).subarray(0, 20_000), TcpFlag.ACK, port));
    assert.ok(tcp.octets <= 100_000);
  }
  assert.ok(tcp.evicted > 0 && tcp.connections > 0);
});

test("random messages, cuts, order and repeats on many connections: each reads its own", () => {
  const random = randomFrom(11);
  const below = (n: number): number => random() % n;
  const { tcp, got, feed } = table("pod", TCP_LIMITS);
  for (let run = 0; run < 300; run++) {
    const messages = Array.from({ length: 1 + below(6) }, () => "m".repeat(below(90)) + run);
    const all = framed(...messages);
    const first = random();
    const port = 1 + below(60000);
    got.length = 0;
    feed(segment(first - 1, undefined, TcpFlag.SYN, port));
    const cuts = [0, ...Array.from({ length: below(12) }, () => below(all.length)), all.length].sort((x, y) => x - y);
    const pieces = cuts.slice(1).map((to, i) => [cuts[i] as number, to] as const);
    for (let i = pieces.length - 1; i > 0; i--) {
      const k = below(i + 1);
      [pieces[i], pieces[k]] = [pieces[k] as readonly [number, number], pieces[i] as readonly [number, number]];
    }
    for (const [from, to] of [...pieces, pieces[0] as readonly [number, number]]) {
      feed(segment(first + from, all.subarray(from, to), TcpFlag.ACK, port));
    }
    assert.deepEqual(got, messages);
    feed(segment(first + all.length, undefined, TcpFlag.FIN | TcpFlag.ACK, port));
  }
  assert.deepEqual([tcp.connections, tcp.octets], [0, 0]);
});
