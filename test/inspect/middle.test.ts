import assert from "node:assert/strict";
import { test } from "node:test";
import type { FirstBytes } from "../../src/inspect/inspector.ts";
import { readFromTheMiddle } from "../../src/inspect/middle.ts";
import { inspectFirst } from "../../src/inspect/registry.ts";
import { Protocol } from "../../src/model/packet.ts";

const run = (text: string) => ({ bytes: Buffer.from(text, "latin1"), start: 0, end: text.length, ends: [], closed: true });
const first = (client: string, server: string): FirstBytes => ({ transport: Protocol.TCP, client: run(client), server: run(server) });
const said = (bytes: FirstBytes): string | undefined => {
  const reading = readFromTheMiddle(bytes);
  return reading === undefined || "need" in reading ? undefined : reading.application;
};
const REST = "\xf1\x36\x5c\xd0\xb0\xcc\xa7\x5d rest of a message";

test("the sides the other way round", () => {
  const turned = first("SSH-2.0-OpenSSH_9.2p1\r\n", "");
  assert.equal(said({ ...turned, client: turned.server, server: turned.client }), "ssh");
});

test("one side alone, where the other is the rest of a message", () => {
  // LDAP: a bind response (RFC 4511 §4.2.2)
  assert.equal(said(first(REST, "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00")), "ldap");
  assert.equal(said(first("SSH-2.0-OpenSSH_9.2p1\r\n", REST)), "ssh");
});

test("a call of HTTP/2 whose preface was not seen; only here, and only a whole one", () => {
  // :method POST, :scheme http, :path /a.B/c, content-type application/grpc (RFC 7541, nothing of the dynamic table)
  const block = "\x83\x86\x04\x06/a.B/c\x0f\x10\x10application/grpc";
  const call = `\0\0${String.fromCharCode(block.length)}\x01\x04\0\0\0\x01${block}`;
  assert.equal(said(first(call, "")), "grpc");
  assert.equal(said(first(call.slice(0, -1), "")), undefined);
  assert.deepEqual(inspectFirst(undefined, first(call, "")), { application: undefined, serverName: undefined });
});

test("what nobody speaks", () => assert.equal(said(first(REST, REST)), undefined));
