import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ipText } from "../../src/base/address.ts";
import { Writer } from "../../src/base/netlink.ts";
import { newMessage, readMessage } from "../../src/base/netlink-read.ts";
import { forwarding } from "../../src/attach/bridge.ts";
import {
  askLinks,
  askNeighbours,
  askRoute,
  askSpace,
  numberSpace,
  readLink,
  readNeighbour,
  readRoute,
  readSpace,
} from "../../src/attach/rtnetlink.ts";
import { ip } from "./fake-network.ts";

const bytes = (hex: string): Buffer => Buffer.from(hex.replace(/\s/g, ""), "hex");

function written(write: (out: Writer) => void): string {
  const out = new Writer(16);
  write(out);
  return out.bytes.toString("hex", 0, out.at);
}

function read<T>(reader: (message: ReturnType<typeof newMessage>) => T, data: Buffer): T | undefined {
  const message = newMessage();
  return readMessage(message, data, 0, data.length) < 0 ? undefined : reader(message);
}

// Requests and answers below were recorded from Linux 6.18, links cut down to the attributes that are read.
test("requests, byte by byte", () => {
  assert.equal(
    written((out) => askSpace(out, 9, 11_380)),
    "1c0000005a00050009000000000000000000000008000200742c0000",
  );
  assert.equal(
    written((out) => numberSpace(out, 9, 11_380)),
    "240000005800050009000000000000000000000008000200742c000008000100ffffffff",
  );
  assert.equal(
    written((out) => askRoute(out, 10, ip("10.0.0.5"))),
    "240000001a0005000a00000000000000022000000000000000000000080001000a000005",
  );
  assert.equal(written((out) => askRoute(out, 10, ip("fd00::5"))).slice(32, 40), "0a800000");
  assert.equal(
    written((out) => askLinks(out, 7, undefined)),
    `280000001200010307000000${"00".repeat(20)}08001d0008000000`,
  );
  assert.equal(
    written((out) => askLinks(out, 7, 5)),
    `300000001200010307000000${"00".repeat(20)}08002e000500000008001d0008000000`,
  );
  assert.equal(
    written((out) => askNeighbours(out, 8)),
    `1c0000001e00010308000000${"00".repeat(16)}`,
  );
});

const LINK = bytes(`
  64000000 1000 0200 07000000 532c0000  00000100 14000000 43100100 00000000
  0a000300 63616c6931000000  08000500 02000000  08000a00 02000000
  18001200 09000100 7665746800000000 08000200 00000000
  08001b00 474e0000  08002500 00000000  04000680`);
LINK.writeUInt32LE(LINK.length, 0);

test("links: a bridge port that leads to namespace 0, loopback, no link", () => {
  assert.deepEqual(read(readLink, LINK), {
    index: 20,
    name: "cali1",
    kind: "veth",
    loopback: false,
    master: 2,
    peer: 2,
    space: 0,
    group: 20039,
  });
  const lo = bytes("2c000000 1000 0200 07000000 532c0000  00000403 01000000 49000100 00000000  07000300 6c6f0000");
  lo.writeUInt32LE(lo.length, 0);
  assert.deepEqual(read(readLink, lo), { index: 1, name: "lo", kind: "", loopback: true, master: 0, peer: 0, space: undefined, group: 0 });
  const unnamed = bytes("20000000 1000 0200 07000000 532c0000  00000100 05000000 00000000 00000000");
  assert.equal(read(readLink, unnamed), undefined);
});

test("namespaces: a number, none", () => {
  assert.equal(read(readSpace, bytes("1c000000 5800 0000 09000000 532c0000 00000000 08000100 00000000")), 0);
  assert.equal(read(readSpace, bytes("1c000000 5800 0000 09000000 532c0000 00000000 08000100 07000000")), 7);
  assert.equal(read(readSpace, bytes("1c000000 5800 0000 09000000 532c0000 00000000 08000100 ffffffff")), undefined);
  assert.equal(read(readSpace, bytes("14000000 5800 0000 09000000 532c0000 00000000")), undefined);
});

const ROUTE =
  "68000000180000000a000000532c000002200000fe0000010002000008000f00fe000000080001000a0000050800040002000000080007000a000001080019000000000024000c000200000000000000000000000000000000000000000000000000000000000000";

test("routes: the interface; unreachable and local ones lead nowhere", () => {
  assert.equal(read(readRoute, bytes(ROUTE)), 2);
  for (const type of ["02", "06", "07"]) assert.equal(read(readRoute, bytes(ROUTE.replace("fe000001", `fe0000${type}`))), undefined);
  assert.equal(read(readRoute, bytes("24000000020000010b000000532c00009bffffff240000001a0005000b00000000000000")), undefined);
});

const NEIGHBOUR =
  "580000001c00020008000000532c00000a000000020000008000000114000100fd0000000000000000000000000000050a0002000a0000000005000008000400000000001400030010000000100000001000000000000000";

test("neighbours: known ones only", () => {
  const neighbour = read(readNeighbour, bytes(NEIGHBOUR));
  assert.deepEqual([neighbour?.index, neighbour && ipText(neighbour.ip), neighbour?.mac], [2, "fd00::5", "0a0000000005"]);
  for (const state of ["01", "20", "00"])
    assert.equal(read(readNeighbour, bytes(NEIGHBOUR.replace("800000011400", `${state}0000011400`))), undefined, state);
});

test("cut and altered messages are read within their bounds, and never throw", () => {
  const whole = [LINK, bytes(ROUTE), bytes(NEIGHBOUR), bytes("1c000000 5800 0000 09000000 532c0000 00000000 08000100 07000000")];
  fc.assert(
    fc.property(
      fc.constantFrom(...whole),
      fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 6 }),
      fc.nat(120),
      (message, changes, cut) => {
        const data = Buffer.from(message.subarray(0, Math.max(16, message.length - cut)));
        for (const [at, value] of changes) if (at >= 4 && at < data.length) data[at] = value;
        data.writeUInt32LE(data.length, 0);
        const link = read(readLink, data);
        assert.ok(link === undefined || (link.index > 0 && link.name !== "" && link.name.length <= data.length));
        for (const reader of [readSpace, readRoute, readNeighbour]) read<unknown>(reader, data);
      },
    ),
    { numRuns: 2000 },
  );
});

test("a bridge's forwarding table: ports above 255, no local addresses, a cut entry", () => {
  const entry = (mac: string, port: number, local: number): string =>
    `${mac}${(port & 255).toString(16).padStart(2, "0")}0${local}00000000${(port >> 8).toString(16).padStart(2, "0")}000000`;
  const table = forwarding(bytes(entry("0a0000000001", 1, 0) + entry("0a0000000002", 300, 0) + entry("0a0000000003", 2, 1) + "0a00000000"));
  assert.deepEqual(
    [...table],
    [
      ["0a0000000001", 1],
      ["0a0000000002", 300],
    ],
  );
  assert.equal(forwarding(Buffer.alloc(0)).size, 0);
});
