import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp, type Ip } from "../../src/base/address.ts";
import { checksum, sumWords } from "../../src/base/checksum.ts";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import { CANARY_DESTINATION, CANARY_PROTOCOL } from "../../src/model/canary.ts";
import { canaryFrame } from "../../src/selftest/frame.ts";

const MAC = [2, 0, 0, 0, 0, 9];
const nonce = Uint8Array.from({ length: 16 }, (_, i) => i + 1);

for (const text of ["10.244.0.11", "fd00:10:244::b"])
  test(`a canary from ${text} is read as what it is`, () => {
    const source = parseIp(text) as Ip;
    const frame = canaryFrame(MAC, source, nonce);
    assert.deepEqual([...frame.subarray(0, 6)], MAC);
    assert.equal((frame[12] as number) * 256 + (frame[13] as number), source.length === 4 ? 0x0800 : 0x86dd);
    const packet = newPacket();
    assert.ok(decodeIp(frame, 14, frame.length, packet));
    assert.deepEqual([packet.source, packet.destination], [source, CANARY_DESTINATION[source.length === 4 ? 4 : 6]]);
    assert.deepEqual([packet.protocol, packet.hopLimit, packet.fragment], [CANARY_PROTOCOL, 1, false]);
    assert.deepEqual(frame.subarray(packet.payloadStart, packet.payloadEnd), nonce);
    if (source.length === 4) assert.equal(checksum(sumWords(frame, 14, 34)), 0, "the header's checksum is right");
  });
