import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Http1Requests } from "../../src/inspect/http1-requests.ts";

const latin = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "latin1"));

/** What is said of a client's stream, in words; `server` is the answer to whatever waits first. Pieces are cut at `cuts`. */
function walk(text: string, cuts: readonly number[] = [], server = ""): string[] {
  const bytes = latin(text);
  const answer = latin(server);
  const reader = new Http1Requests();
  const said: string[] = [];
  let answered = false;
  const ends = [...new Set([...cuts, bytes.length])].sort((a, b) => a - b);
  let at = 0;
  for (const end of ends) {
    for (;;) {
      const step = reader.next(bytes, at, end);
      if (step.kind === "bad") return [...said, "bad"];
      assert.ok(step.at >= at && step.at <= end);
      at = step.at;
      if (step.kind === "request") {
        const { method, target, host } = step.request;
        said.push([method, target === undefined ? `host ${host?.host}` : `${target.host}:${target.port}`].join(" "));
      } else if (step.kind === "wait" && !answered && server !== "") {
        answered = true;
        for (let i = 0; i < answer.length; i++) reader.answer(answer, i, i + 1);
      } else if (step.kind === "tunnel" || step.kind === "wait") return [...said, `${step.kind} at ${at}`];
      else if (step.kind === "more") break;
    }
  }
  assert.equal(at, bytes.length);
  return said;
}

const TO_A = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n";
const TO_B = "GET http://b.example:81/x HTTP/1.1\r\nHost: b.example:81\r\n\r\n";
const CONNECT = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
const POST = "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n";
const chunked = (body: string): string => `${POST}Transfer-Encoding: chunked\r\n\r\n${body}`;
const A = "GET a.example:80";
const B = "GET b.example:81";
const P = "POST a.example:80";

const ROWS: readonly (readonly [string, string, string, readonly string[]])[] = [
  ["pipelined", TO_A + TO_B, "", [A, B]],
  ["empty lines between", `${TO_A}\r\n${TO_B}`, "", [A, B]],
  ["to the proxy itself", "GET /stats HTTP/1.1\r\nHost: proxy.example\r\n\r\n", "", ["GET host proxy.example"]],
  ["a body", `${POST}Content-Length: 5\r\n\r\nGET /${TO_B}`, "", [P, B]],
  ["an empty body", `${POST}Content-Length: 0\r\n\r\n${TO_B}`, "", [P, B]],
  ["chunks", chunked(`5\r\nGET /\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n${TO_B}`), "", [P, B]],
  ["chunks with a trailer", chunked(`1 \r\na\r\n0\r\nX: y\r\nZ: z\r\n\r\n${TO_B}`), "", [P, B]],
  ["CONNECT, not answered yet", `${CONNECT}\x16\x03`, "", ["CONNECT a.example:443", `wait at ${CONNECT.length}`]],
  ["CONNECT, agreed", `${CONNECT}\x16\x03`, "HTTP/1.1 200 OK\r\n\r\n", ["CONNECT a.example:443", `tunnel at ${CONNECT.length}`]],
  ["CONNECT, refused", CONNECT + TO_B, "HTTP/1.1 407 Who?\r\n\r\n", ["CONNECT a.example:443", B]],
  ["CONNECT, refused, again", CONNECT + CONNECT, "HTTP/1.1 407 Who?\r\n\r\n", ["CONNECT a.example:443", "CONNECT a.example:443"]],
  ["CONNECT, an odd answer", CONNECT + TO_B, "220 ready\r\n\r\n", ["CONNECT a.example:443", "bad"]],
  [
    "an upgrade behind an interim answer",
    `${TO_A.slice(0, -2)}Upgrade: websocket\r\n\r\nxy`,
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n",
    [A, `tunnel at ${TO_A.length + 20}`],
  ],
  ["an upgrade that is not taken", `${TO_A.slice(0, -2)}Upgrade: h2c\r\n\r\n${TO_B}`, "HTTP/1.1 200 OK\r\n\r\n", [A, B]],
  ["CONNECT behind another request", TO_A + CONNECT, "", [A, "bad"]],
  ["CONNECT with a body", `${CONNECT.slice(0, -2)}Content-Length: 4\r\n\r\nabcd`, "", ["bad"]],
  ["both lengths", `${POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, "", ["bad"]],
  ["a chunk size with a sign", chunked("+5\r\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["a chunk size with 0x", chunked("0x5\r\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["a chunk size of 13 digits", chunked("0000000000005\r\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["no chunk size", chunked("\r\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["a chunk size that ends with LF", chunked("5\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["an extension that ends with LF", chunked("5;a\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["a chunk longer than its size", chunked("4\r\nGET /\r\n0\r\n\r\n"), "", [P, "bad"]],
  ["a trailer with a bare LF", chunked("0\r\nX: y\n\r\n"), "", [P, "bad"]],
  ["a bare CR before the end", "GET http://a.example/ HTTP/1.1\r\n\r\r\n", "", ["bad"]],
  ["rubbish", "\x16\x03\x01", "", ["bad"]],
  ["rubbish behind a request", `${TO_A}\x16\x03\x01`, "", [A, "bad"]],
  ["two Hosts", `${TO_A.slice(0, -2)}Host: b.example\r\n\r\n`, "", ["bad"]],
];

for (const [name, text, server, want] of ROWS) {
  test(`requests: ${name}, at every split`, () => {
    assert.deepEqual(walk(text, [], server), want);
    for (let cut = 1; cut < text.length; cut++) assert.deepEqual(walk(text, [cut], server), want, `cut at ${cut}`);
    assert.deepEqual(
      walk(
        text,
        Array.from({ length: text.length }, (_, i) => i),
        server,
      ),
      want,
      "byte by byte",
    );
  });
}

test("target and Host that differ are told", () => {
  const bytes = latin("GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n");
  const step = new Http1Requests().next(bytes, 0, bytes.length);
  assert.ok(step.kind === "request" && step.request.disagree && step.request.target?.name === "a.example");
});

test("a head without end is given up at 64 KiB, in small pieces too", () => {
  const reader = new Http1Requests();
  const line = latin(`X: ${"a".repeat(95)}\r\n`);
  reader.next(latin("GET / HTTP/1.1\r\n"), 0, 16);
  let pieces = 0;
  while (reader.next(line, 0, line.length).kind === "more") assert.ok(++pieces < 1000);
  assert.equal(pieces, 655);
  assert.equal(reader.next(line, 0, line.length).kind, "bad", "and for good");
});

test("any bytes behind any begin: the same however cut, and no throw", () => {
  const begins = ROWS.map(([, text]) => text);
  fc.assert(
    fc.property(
      fc.constantFrom(...begins),
      fc.nat(200),
      fc.uint8Array({ maxLength: 12 }),
      fc.array(fc.nat(200), { maxLength: 5 }),
      (begin, at, bytes, cuts) => {
        const text = begin.slice(0, at) + Buffer.from(bytes).toString("latin1") + begin.slice(at + bytes.length);
        const kept = cuts.filter((cut) => cut <= text.length);
        assert.deepEqual(walk(text, kept, "HTTP/1.1 200 OK\r\n\r\n"), walk(text, [], "HTTP/1.1 200 OK\r\n\r\n"));
      },
    ),
    { numRuns: 1500, seed: 9112 },
  );
});
