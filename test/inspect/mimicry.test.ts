import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import type { FirstBytes, Run } from "../../src/inspect/inspector.ts";
import { inspectFirst } from "../../src/inspect/registry.ts";
import { Protocol } from "../../src/model/packet.ts";
import { type GoldenCase, readGolden } from "./golden.ts";

/** What is also another protocol, and is called that when nobody asked. */
const ALSO: Readonly<Record<string, string>> = { etcd: "grpc" };

function firstBytes({ transport, sent, closed }: GoldenCase): FirstBytes {
  const run = (of: "client" | "server"): Run => {
    const parts = sent.filter(({ from }) => from === of).map(({ bytes }) => bytes);
    const bytes = Buffer.concat(parts);
    let at = 0;
    const ends = transport === Protocol.UDP ? parts.map((part) => (at += part.length)) : [];
    return { bytes, start: 0, end: bytes.length, ends, closed };
  };
  return { transport, client: run("client"), server: run("server") };
}

for (const file of readdirSync(new URL("../../../test/inspect/golden/", import.meta.url))) {
  test(`what is one protocol's is no other's: ${file}, when any may be`, () => {
    for (const one of readGolden(file)) {
      const { application } = one.expected;
      if (application === undefined || "bad" in one.expected) continue;
      const reading = inspectFirst(undefined, firstBytes(one));
      const said = "need" in reading || "bad" in reading ? JSON.stringify(reading) : reading.application;
      assert.equal(said, ALSO[application] ?? application, one.name);
    }
  });
}
