import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ip, ipText, parseIp } from "../../src/base/address.ts";
import { newPacket } from "../../src/capture/decode.ts";
import { type Packet, Protocol } from "../../src/model/packet.ts";
import { Asked } from "../../src/worker/asked.ts";

const ip = (text: string): Ip => parseIp(text) as Ip;
const POD = ip("10.244.0.11");

/** A segment of the pod's, before or behind DNAT. */
function segment(port: number, to: string, toPort: number, sequence = 7): Packet {
  return Object.assign(newPacket(), {
    protocol: Protocol.TCP,
    source: POD,
    sourcePort: port,
    destination: ip(to),
    destinationPort: toPort,
    sequence,
    tcpFlags: 2,
  });
}

function datagram(port: number, to: string, toPort: number, text: string): Packet {
  const bytes = Buffer.from(text);
  return Object.assign(newPacket(), {
    protocol: Protocol.UDP,
    source: POD,
    sourcePort: port,
    destination: ip(to),
    destinationPort: toPort,
    bytes,
    payloadStart: 0,
    payloadEnd: bytes.length,
  });
}

const restored = (asked: Asked, packet: Packet): string | undefined =>
  asked.restore(packet) ? `${ipText(packet.destination)}:${packet.destinationPort}` : undefined;

test("the first packet tells what later ones asked for", () => {
  const asked = new Asked();
  asked.begin(segment(4000, "10.96.0.20", 443));
  assert.equal(restored(asked, segment(4000, "10.244.0.9", 8443)), "10.96.0.20:443");
  assert.equal(restored(asked, segment(4000, "10.244.0.9", 8443, 99)), "10.96.0.20:443", "a later segment");
  assert.equal(restored(asked, segment(4000, "10.244.0.8", 8443, 99)), undefined, "another server");
  assert.equal(restored(asked, segment(4001, "10.244.0.9", 8443, 99)), undefined, "another port");
});

test("without a translation it is what it is", () => {
  const asked = new Asked();
  asked.begin(segment(4000, "198.51.100.10", 443));
  assert.equal(restored(asked, segment(4000, "198.51.100.10", 443)), "198.51.100.10:443");
});

test("two connections of one port are not judged as one another", () => {
  const asked = new Asked();
  asked.begin(segment(4000, "10.96.0.20", 443, 1));
  asked.begin(segment(4000, "10.96.0.30", 443, 2));
  assert.equal(restored(asked, segment(4000, "10.244.0.8", 443, 2)), "10.96.0.30:443");
  assert.equal(restored(asked, segment(4000, "10.244.0.9", 443, 1)), "10.96.0.20:443");
  assert.equal(restored(asked, segment(4000, "10.244.0.9", 443, 3)), "10.96.0.20:443");
});

test("what looks the same and goes to two places tells nothing", () => {
  const asked = new Asked();
  asked.begin(segment(4000, "10.96.0.20", 443));
  asked.begin(segment(4000, "10.96.0.30", 443));
  assert.equal(restored(asked, segment(4000, "10.244.0.9", 443)), undefined);
  asked.begin(datagram(5000, "10.96.0.20", 443, "hello"));
  asked.begin(datagram(5000, "10.96.0.30", 443, "hello"));
  assert.equal(restored(asked, datagram(5000, "10.244.0.9", 443, "hello")), undefined);
  asked.begin(datagram(5000, "10.96.0.20", 443, "another"));
  asked.begin(datagram(5000, "10.96.0.20", 443, "another"));
  assert.equal(restored(asked, datagram(5000, "10.244.0.9", 443, "another")), "10.96.0.20:443", "sent again");
});

test("conntrack's word counts as well; the oldest is forgotten first, and the used is not the oldest", () => {
  const asked = new Asked();
  for (let i = 0; i < 2048; i++)
    asked.set(Protocol.TCP, 1000 + i, { address: ip("10.244.0.9"), port: 80 }, { address: ip("10.96.0.20"), port: 8080 });
  assert.equal(restored(asked, segment(1000, "10.244.0.9", 80)), "10.96.0.20:8080");
  asked.set(Protocol.TCP, 9000, { address: ip("10.244.0.9"), port: 80 }, { address: ip("10.96.0.20"), port: 8080 });
  assert.equal(restored(asked, segment(1000, "10.244.0.9", 80)), "10.96.0.20:8080");
  assert.equal(restored(asked, segment(1001, "10.244.0.9", 80)), undefined);
});
