import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp, type Ip } from "../../src/base/address.ts";
import { HELLO_KEY_BYTES, helloKey } from "../../src/firewall/hello-key.ts";
import { helloEvidence } from "../../src/inspect/tls-evidence.ts";
import { readClientHello } from "../../src/inspect/tls.ts";
import { randomFrom } from "../dns/encode.ts";
import { HELLOS } from "../inspect/hellos.ts";
import { mutated, plainHello } from "./mutated-hellos.ts";

const POD = parseIp("10.0.0.9") as Ip;
const SERVER = parseIp("2001:db8::7") as Ip;
const keyOf = (bytes: Uint8Array): string | undefined => {
  const key = helloKey(POD, SERVER, 443, bytes, 0, bytes.length);
  return key === undefined ? undefined : Buffer.from(key).toString("hex");
};
const bytesOf = ({ hex }: { readonly hex: string }): Buffer => Buffer.from(hex, "hex");

test("real clients' hellos in one segment have a key; it has addresses, port, server name, ALPN and versions", () => {
  for (const name of ["openssl13", "openssl12", "node", "pg17", "noSniIp"] as const) assert.ok(keyOf(bytesOf(HELLOS[name])), name);
  const key = Buffer.from(keyOf(bytesOf(HELLOS.openssl13)) as string, "hex");
  assert.equal(key.length, HELLO_KEY_BYTES);
  assert.equal(key.toString("hex", 0, 34), "00000000000000000000ffff0a000009" + "20010db8000000000000000000000007" + "01bb");
  assert.ok(key.includes("api.example.com") && key.includes("http/1.1"));
  assert.notEqual(keyOf(bytesOf(HELLOS.node)), keyOf(bytesOf(HELLOS.noSniIp)));
});

test("what changes from one connection to the next is not in the key", () => {
  const hello = bytesOf(HELLOS.node);
  const again = Buffer.from(hello);
  for (let i = 11; i < 11 + 32; i++) again[i] = 255 - (again[i] as number); // the random
  again[again.length - 1] = 0; // the key share
  assert.equal(keyOf(again), keyOf(hello));
});

test("no key for what is not whole, has something behind it, or is not known here: ECH, GREASE, another version", () => {
  const hello = bytesOf(HELLOS.node);
  assert.equal(keyOf(hello.subarray(0, -1)), undefined);
  assert.equal(keyOf(Buffer.concat([hello, Buffer.of(20, 3, 3, 0, 1, 1)])), undefined);
  assert.ok(keyOf(Buffer.from(plainHello([]))));
  for (const extra of [0xfe0d, 0xffce, 0x1a1a, 0x3374, 0]) assert.equal(keyOf(plainHello([[extra, [0]]])), undefined, extra.toString(16));
  assert.equal(
    keyOf(
      plainHello([
        [41, [0]],
        [21, [0]],
      ]),
    ),
    undefined,
    "an extension behind pre_shared_key",
  );
  assert.ok(
    keyOf(
      plainHello([
        [21, [0]],
        [41, [0]],
      ]),
    ),
  );
  const old = Buffer.from(hello);
  old[10] = 2; // TLS 1.1
  assert.equal(keyOf(old), undefined);
});

test("hellos with the same key say the same to every policy: what is wrong with one is in its key, or it has none", () => {
  const random = randomFrom(11);
  const said = new Map<string, string>();
  let keys = 0;
  for (let round = 0; round < 30_000; round++) {
    const bytes = mutated(random);
    const key = keyOf(bytes);
    if (key === undefined) continue;
    keys++;
    const hello = readClientHello(bytes, 0, bytes.length);
    assert.ok(!("need" in hello));
    let text: string;
    if ("bad" in hello) {
      // Such a hello is never taught to the kernel; any other with its key would be the same there.
      text = hello.bad;
      assert.match(text, /server_name|server name|ALPN|supported_versions/, Buffer.from(bytes).toString("hex"));
    } else {
      const { serverName, alpn, ech, version, ...rest } = helloEvidence("tls", hello, "t");
      assert.equal(ech, false);
      text = JSON.stringify({ serverName, alpn, version, evasion: "evasion" in rest ? rest.evasion : undefined });
    }
    assert.equal(said.get(key) ?? text, text);
    said.set(key, text);
  }
  assert.ok(keys > 3000 && said.size > 100, `${keys} keys, ${said.size} different`);
});
