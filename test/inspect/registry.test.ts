import assert from "node:assert/strict";
import { test } from "node:test";
import { combine, Candidates } from "../../src/inspect/combine.ts";
import { type FirstBytes, type Inspector, NO_BYTES, type Reading } from "../../src/inspect/inspector.ts";
import { applications, inspect, inspectFirst, INSPECTORS } from "../../src/inspect/registry.ts";
import { Protocol } from "../../src/model/packet.ts";
import { HELLOS } from "./hellos.ts";

const { TCP, UDP } = Protocol;
const run = (text: string, closed = false) => ({ bytes: Buffer.from(text, "latin1"), start: 0, end: text.length, ends: [], closed });
const bytes = (client: string, server = ""): FirstBytes => ({ transport: TCP, client: run(client), server: run(server) });

const says = (application: string, reading: Reading, opens: "client" | "server" = "client"): Inspector => ({
  application,
  transports: [TCP],
  opens,
  read: () => reading,
});
const is = (application: string): Inspector => says(application, { application, serverName: undefined });
const no = says("no", { bad: "no" });
const more = says("more", { need: 9, of: "client" });
const waits = says("waits", { need: 1, of: "server", release: true });
const certain = says("certain", { need: 20, of: "client", application: "certain" });
const broken = says("broken", { bad: "broken", application: "broken" });

test("combine: the first that is certain holds, but waits for a stricter one that still reads", () => {
  const some = bytes("x");
  const cases: readonly [readonly Inspector[], Reading][] = [
    [[], { bad: "nothing reads this transport" }],
    [[no], { bad: "no" }],
    [[no, is("a"), is("b")], { application: "a", serverName: undefined }],
    [[broken, is("a")], { bad: "broken", application: "broken" }],
    [[is("a"), broken], { application: "a", serverName: undefined }],
    [[no, certain, is("a")], { need: 20, of: "client", application: "certain" }],
    [[more, is("a")], { need: 9, of: "client" }],
    [[more, broken], { need: 9, of: "client" }],
    [[more, certain], { need: 9, of: "client" }],
    // A client that waits for its server would otherwise wait for ever.
    [[more, waits], { need: 1, of: "server", release: true }],
    [[waits, more, no], { need: 1, of: "server", release: true }],
    [[says("a", { need: 3, of: "server" }), says("b", { need: 5, of: "client" })], { need: 5, of: "client" }],
    // Nothing seen of the side that opens is no reason to wait.
    [[says("greets", { need: 1, of: "server" }, "server"), is("a")], { application: "a", serverName: undefined }],
  ];
  for (const [inspectors, want] of cases)
    assert.deepEqual(combine(inspectors, some), want, inspectors.map((one) => one.application).join(" "));
});

test("candidates: only who can begin with the first byte is asked over TCP, and all over UDP", () => {
  const letter = (application: string, opens: "client" | "server", first: string): Inspector => ({
    application,
    transports: [TCP, UDP],
    opens,
    read: ({ client }) =>
      client.end > client.start && client.bytes[client.start] !== first.charCodeAt(0) ? { bad: "no" } : { need: 9, of: "client" },
  });
  const list = [letter("a", "client", "a"), letter("b", "client", "b"), letter("s", "server", "s")];
  const names = (transport: number, first: FirstBytes): string =>
    new Candidates(list, transport)
      .of(first)
      .map(({ application }) => application)
      .join("");
  assert.equal(names(TCP, bytes("apple")), "as");
  assert.equal(names(TCP, bytes("b")), "bs");
  assert.equal(names(TCP, bytes("", "hello")), "abs");
  assert.equal(names(UDP, bytes("apple")), "abs");
  assert.equal(names(Protocol.SCTP, bytes("apple")), "");
});

test("registry: evidence, need, bad, and what is not recognised", () => {
  const hello = Buffer.from(HELLOS.openssl13.hex.replaceAll(/\s/g, ""), "hex");
  const evidence = {
    application: "tls",
    serverName: "api.example.com",
    alpn: ["h2", "http/1.1"],
    ja4: HELLOS.openssl13.ja4,
    ech: false,
    version: "1.3",
  };
  for (const wanted of ["tls", ["ssh", "tls"], undefined])
    assert.deepEqual(
      inspectFirst(wanted, { transport: TCP, client: { ...NO_BYTES, bytes: hello, end: hello.length }, server: NO_BYTES }),
      evidence,
    );
  assert.deepEqual(inspect("tls", hello, 0, 100, TCP), { need: hello.length, of: "client", application: "tls" });
  assert.ok("need" in inspect(undefined, hello, 0, 0, TCP));
  const strange = run("\x91\x00 nobody speaks this\r\n");
  assert.ok("bad" in inspect("tls", strange.bytes, 0, strange.end, TCP));
  assert.deepEqual(inspect(undefined, strange.bytes, 0, strange.end, TCP), { application: undefined, serverName: undefined });
  assert.ok("bad" in inspect("tls", hello, 0, hello.length, UDP), "tls is not spoken over udp");
  assert.ok("bad" in inspect("no-such-protocol", hello, 0, hello.length, TCP));
  assert.ok(applications().includes("tls"));
  assert.equal(new Set(INSPECTORS.map(({ application }) => application)).size, INSPECTORS.length);
});

test("nothing was said, and nothing will be: no application", () => {
  const nothing: FirstBytes = { transport: TCP, client: run("", true), server: run("", true) };
  assert.deepEqual(inspectFirst(undefined, nothing), { application: undefined, serverName: undefined });
});
