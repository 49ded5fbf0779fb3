import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { addon, builtFile } from "../../src/base/addon.ts";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { tcpSegment } from "../../src/dns/packets.ts";
import { readBpfObject } from "../../src/firewall/bpf-object.ts";
import { FLOWS_MAX, type HelloPrograms, KNOWN_VALUE_BYTES, loadHellos } from "../../src/firewall/hellos.ts";
import { helloKey } from "../../src/firewall/hello-key.ts";
import { TcpFlag } from "../../src/model/packet.ts";
import { randomFrom } from "../dns/encode.ts";
import { mutated, plainHello } from "./mutated-hellos.ts";
import { need } from "../support/need.ts";

/** The programs as the kernel runs them, packet by packet (BPF_PROG_TEST_RUN): nothing is sent. */

const FAMILIES = [
  [4, parseIp("10.0.0.9") as Ip, parseIp("192.0.2.7") as Ip],
  [6, parseIp("fd00::9") as Ip, parseIp("2001:db8::7") as Ip],
] as const;
const PORT = 443;
const ISN = 0xfffffff0; // the stream wraps around
const { SYN, ACK, PSH, RST, FIN, URG } = TcpFlag;

type Family = (typeof FAMILIES)[number];

class Kernel {
  readonly loaded: HelloPrograms;
  private port = 40_000;
  constructor() {
    this.loaded = loadHellos(addon(), readBpfObject(readFileSync(builtFile("hello.bpf.o") as string)));
  }
  /** The kernel knows this hello for so many seconds. */
  know([, pod, server]: Family, hello: Uint8Array, seconds = 60): void {
    const value = Buffer.alloc(KNOWN_VALUE_BYTES);
    value.writeBigUInt64LE(process.hrtime.bigint() + BigInt(seconds * 1e9));
    this.loaded.maps.known.put(helloKey(pod, server, PORT, hello, 0, hello.length) as Uint8Array, value);
  }
  count([, pod, server]: Family, hello: Uint8Array): number {
    const value = Buffer.alloc(KNOWN_VALUE_BYTES);
    this.loaded.maps.known.get(helloKey(pod, server, PORT, hello, 0, hello.length) as Uint8Array, value);
    return Number(value.readBigUInt64LE(8));
  }
  /** A connection that has sent its SYN. */
  open([, pod, server]: Family, { isn = ISN, syn = true } = {}) {
    const { programs } = this.loaded;
    const port = this.port++;
    const from = { source: pod, sourcePort: port, destination: server, destinationPort: PORT, hopLimit: 64 };
    const to = { source: server, sourcePort: PORT, destination: pod, destinationPort: port, hopLimit: 64 };
    const client = (offset: number, payload: Uint8Array, flags: number = ACK | PSH) =>
      tcpSegment({ ...from, sequence: (isn + 1 + offset) >>> 0, acknowledgement: 1000, flags }, payload);
    const server_ = (acknowledged: number, payload: Uint8Array, flags: number = ACK) =>
      tcpSegment({ ...to, sequence: 1000, acknowledgement: (isn + 1 + acknowledged) >>> 0, flags }, payload);
    if (syn) assert.equal(programs.open.run(client(-1, new Uint8Array(0), SYN)), 0);
    return {
      sends: (offset: number, payload: Uint8Array, flags?: number) => programs.hello.run(client(offset, payload, flags)),
      /** The rules ask this first, and drop it. */
      early: (offset: number, payload: Uint8Array, flags?: number) => programs.early.run(client(offset, payload, flags)),
      /** The first packet of a connection, from the same port. */
      opens: (payload: Uint8Array, shift = 0, flags: number = SYN) => programs.open.run(client(shift - 1, payload, flags)),
      /** Any packet of the client's, changed. */
      sendsAs: (change: (packet: Uint8Array) => Uint8Array, offset: number, payload: Uint8Array, flags?: number) =>
        programs.hello.run(change(client(offset, payload, flags))),
      answers: (acknowledged: number, payload = new Uint8Array(0), flags?: number) =>
        programs.answer.run(server_(acknowledged, payload, flags)),
    };
  }
}

const NEEDS = { root: true, addon: true, commands: ["clang"] };
const GOOD = plainHello([], "good.example.com");
const EVIL = plainHello([], "evil.example.com");
const MORE = new Uint8Array(20);

/** Puts empty IPv6 destination options in front of TCP. */
function optioned(packet: Uint8Array): Uint8Array {
  const bytes = Buffer.concat([packet.subarray(0, 40), Buffer.of(6, 0, 1, 4, 0, 0, 0, 0), packet.subarray(40)]);
  bytes[6] = 60;
  bytes.writeUInt16BE(bytes.length - 40, 4);
  return bytes;
}

/** Says that it is too big for its length field (GSO). */
function jumbo(packet: Uint8Array): Uint8Array {
  const bytes = Buffer.from(packet);
  bytes.writeUInt16BE(0, (packet[0] as number) >> 4 === 4 ? 2 : 4);
  return bytes;
}

for (const family of FAMILIES) {
  test(`IPv${family[0]}: a known hello passes, what is behind it waits, and the server's acknowledgement of it ends the looking`, (t) => {
    if (!need(t, NEEDS)) return;
    const kernel = new Kernel();
    kernel.know(family, GOOD);
    const one = kernel.open(family);
    assert.equal(one.answers(0), 0, "the acknowledgement of the SYN");
    assert.equal(one.sends(0, new Uint8Array(0), ACK), 0, "no payload");
    assert.equal(one.sends(0, GOOD), 1);
    assert.equal(one.sends(0, GOOD), 1, "again, for it was lost");
    assert.equal(one.early(GOOD.length, MORE), 1, "what is behind it");
    assert.equal(one.early(0, GOOD), 0, "itself");
    assert.equal(one.early(GOOD.length, new Uint8Array(0), FIN | ACK), 0, "an end");
    assert.equal(one.answers(0), 0);
    assert.equal(one.answers(GOOD.length - 1), 0, "all but one byte");
    assert.equal(one.answers(GOOD.length + 2), 0, "more than was sent");
    assert.equal(one.answers(GOOD.length, MORE, RST | ACK), 0);
    assert.equal(one.answers(GOOD.length), 1);
    assert.equal(one.answers(GOOD.length), 0, "the rules have it");
    assert.equal(kernel.count(family, GOOD), 1);
    const closed = kernel.open(family);
    assert.equal(closed.early(0, GOOD), 0, "before any hello");
    assert.equal(closed.sends(0, GOOD), 1);
    assert.equal(closed.answers(GOOD.length + 1), 1, "and the client's FIN");
    kernel.loaded.close();
  });

  test(`IPv${family[0]}: a connection begins where its own SYN says, and what an earlier one with the same ports left counts for nothing`, (t) => {
    if (!need(t, NEEDS)) return;
    const kernel = new Kernel();
    kernel.know(family, GOOD);
    const verified = (): ReturnType<Kernel["open"]> => {
      const one = kernel.open(family);
      assert.equal(one.sends(0, GOOD), 1);
      return one;
    };
    const none = new Uint8Array(0);
    const fast = verified();
    fast.opens(MORE, GOOD.length);
    assert.equal(fast.sends(GOOD.length, EVIL), 0, "behind the hello of the one before; its SYN had data");
    assert.equal(fast.sends(GOOD.length, GOOD), 0, "whose SYN had data is userspace's");
    const again = verified();
    again.opens(none, 500);
    assert.equal(again.sends(0, GOOD), 0, "at the old place");
    assert.equal(again.answers(GOOD.length), 0, "acknowledged to the old one");
    const middle = verified();
    middle.opens(none, GOOD.length, ACK);
    assert.equal(middle.sends(0, GOOD), 0, "conntrack had forgotten it");
    const other = kernel.open(family);
    assert.equal(other.sends(-1, none, SYN), 0);
    assert.equal(other.sends(0, GOOD), 1, "the same SYN once more changes nothing");
    const two = kernel.open(family);
    assert.equal(two.sends(400, none, SYN), 0);
    assert.equal(two.sends(0, GOOD), 0, "another SYN: the server may have taken that one");
    const late = verified();
    assert.equal(late.sends(400, none, SYN), 0);
    assert.equal(late.answers(GOOD.length), 0, "another SYN, behind the hello");
    kernel.loaded.close();
  });

  test(`IPv${family[0]}: segments that are not read are known for whose they are`, (t) => {
    if (!need(t, NEEDS)) return;
    const kernel = new Kernel();
    kernel.know(family, GOOD);
    const odd = family[0] === 6 ? [optioned, jumbo] : [jumbo];
    for (const change of odd) {
      const first = kernel.open(family);
      assert.equal(first.sendsAs(change, 0, EVIL.subarray(0, 50)), 0);
      assert.equal(first.sends(0, GOOD), 0, `${change.name}: userspace has had the first bytes`);
      const second = kernel.open(family);
      assert.equal(second.sends(0, GOOD), 1);
      assert.equal(second.sendsAs(change, 0, EVIL.subarray(0, 50)), 0);
      assert.equal(second.answers(GOOD.length), 0, `${change.name}: so has it in the hello's place`);
    }
    kernel.loaded.close();
  });

  test(`IPv${family[0]}: nothing passes that is not known, at its place, and in time`, (t) => {
    if (!need(t, NEEDS)) return;
    const kernel = new Kernel();
    kernel.know(family, GOOD);
    assert.equal(kernel.open(family).sends(0, EVIL), 0, "another name");
    assert.equal(kernel.open(family).sends(1, GOOD), 0, "not the first bytes");
    assert.equal(kernel.open(family).sends(-1, GOOD), 0, "before the first bytes");
    assert.equal(kernel.open(family, { syn: false }).sends(0, GOOD), 0, "no SYN was seen");
    assert.equal(kernel.open(family).sends(0, GOOD.subarray(0, -1)), 0, "cut");
    for (const flag of [SYN, FIN, RST, URG]) assert.equal(kernel.open(family).sends(0, GOOD, ACK | flag), 0, `flag ${flag}`);
    const late = kernel.open(family);
    kernel.know(family, GOOD, -1);
    assert.equal(late.sends(0, GOOD), 0, "its time is over");
    const fast = kernel.open(family, { syn: false });
    fast.opens(GOOD);
    kernel.know(family, GOOD);
    assert.equal(fast.sends(0, GOOD), 0, "data in the SYN");
    kernel.loaded.close();
  });

  test(`IPv${family[0]}: whoever sends other bytes has userspace read the rest, whatever comes then`, (t) => {
    if (!need(t, NEEDS)) return;
    const kernel = new Kernel();
    kernel.know(family, GOOD);
    const evil: readonly (readonly [string, (one: ReturnType<Kernel["open"]>) => number])[] = [
      ["other bytes in its place", (one) => one.sends(0, EVIL)],
      ["a part of it", (one) => one.sends(0, GOOD.subarray(0, 50))],
      ["from its middle", (one) => one.sends(20, MORE)],
      ["before it", (one) => one.sends(-20, MORE)],
      ["far behind it", (one) => one.early(2 ** 21, MORE) + one.sends(2 ** 21, MORE)],
      ["urgent bytes behind it", (one) => one.sends(GOOD.length, MORE, ACK | URG)],
    ];
    for (const [what, act] of evil) {
      const one = kernel.open(family);
      assert.equal(one.sends(0, GOOD), 1);
      assert.equal(act(one), 0, what);
      assert.equal(one.answers(GOOD.length), 0, `${what}: the acknowledgement is userspace's`);
      assert.equal(one.sends(GOOD.length, MORE), 0, `${what}: so is what follows`);
      assert.equal(one.sends(0, GOOD), 0, `${what}: and the hello`);
    }
    const first = kernel.open(family);
    assert.equal(first.sends(GOOD.length, MORE), 0, "what follows came first");
    assert.equal(first.sends(0, GOOD), 0);
    kernel.loaded.close();
  });
}

test("the kernel reads hellos as the mirror does: 20 000 of them, most of them broken", (t) => {
  if (!need(t, NEEDS)) return;
  let kernel = new Kernel();
  const random = randomFrom(5);
  let known = 0;
  for (let i = 0; i < 20_000; i++) {
    if (i % 5000 === 4999) {
      kernel.loaded.close(); // what is userspace's stays until it has been seen there
      kernel = new Kernel();
    }
    const family = FAMILIES[i % 2] as Family;
    const bytes = mutated(random);
    if (bytes.length === 0 || bytes.length > 1400) continue;
    const key = helloKey(family[1], family[2], PORT, bytes, 0, bytes.length);
    if (key !== undefined) kernel.know(family, bytes);
    const passed = kernel.open(family).sends(0, bytes);
    assert.equal(passed, key === undefined ? 0 : 1, Buffer.from(bytes).toString("hex"));
    if (key === undefined) continue;
    known++;
    kernel.loaded.maps.known.delete(key);
    assert.equal(kernel.open(family).sends(0, bytes), 0, "forgotten");
  }
  assert.ok(known > 2000, `${known} had a key`);
  kernel.loaded.close();
});

test("a flood of SYNs: what no longer fits is userspace's, and what was there before stays", (t) => {
  if (!need(t, NEEDS)) return;
  const kernel = new Kernel();
  const [family] = FAMILIES;
  kernel.know(family, GOOD);
  const before = kernel.open(family);
  const verified = kernel.open(family);
  assert.equal(verified.sends(0, GOOD), 1);
  for (let i = 0; i < FLOWS_MAX; i++) kernel.open(family);
  const late = kernel.open(family);
  assert.equal(late.sends(0, GOOD), 0);
  assert.equal(late.answers(GOOD.length), 0);
  assert.equal(before.sends(0, GOOD), 1);
  assert.equal(verified.answers(GOOD.length), 1);
  kernel.loaded.close();
});

test("packets that are no whole TCP segment, and random ones, are userspace's", (t) => {
  if (!need(t, NEEDS)) return;
  const kernel = new Kernel();
  const random = randomFrom(6);
  const whole = Buffer.from(
    tcpSegment(
      {
        source: FAMILIES[0][1],
        sourcePort: 1,
        destination: FAMILIES[0][2],
        destinationPort: PORT,
        hopLimit: 64,
        sequence: 1,
        acknowledgement: 1,
        flags: ACK,
      },
      GOOD,
    ),
  );
  kernel.know(FAMILIES[0], GOOD);
  for (let i = 0; i < 5000; i++) {
    const packet = i % 2 === 0 ? Buffer.from(whole) : Buffer.from(Array.from({ length: 40 + (random() % 200) }, () => random() & 255));
    for (let changes = 0; changes < 3; changes++) packet[(random() % 60) % packet.length] = random() & 255;
    const part = packet.subarray(0, Math.max(40, packet.length - (random() % 100)));
    for (const program of Object.values(kernel.loaded.programs)) assert.equal(program.run(part), 0);
  }
  kernel.loaded.close();
});
