import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { Elastic } from "../../src/alerts/sinks/elastic.ts";
import { outcomeOf, retryAfter } from "../../src/alerts/sinks/http.ts";
import { Otlp } from "../../src/alerts/sinks/otlp.ts";
import type { Sink } from "../../src/alerts/sinks/sink.ts";
import { Splunk } from "../../src/alerts/sinks/splunk.ts";
import { SecretFile } from "../../src/alerts/sinks/watched-file.ts";
import { Webhook, webhookSignature } from "../../src/alerts/sinks/webhook.ts";
import { batchOf, certificates, collector, never, NO_TLS, tempFolder } from "./collectors.ts";
import { NOW, ORIGIN } from "./events.ts";

// The servers here are strict fakes, made from the public specifications: none of these collectors is in Debian.
const DEPS = { host: ORIGIN.host, json: true, nowMs: () => NOW };

test("Splunk HEC: token, envelope, and an event that is refused by its number", async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, "token"), "B5A79AAD-D822-46CC-80D1-819F80D7BFB0\n");
  let answer: [number, string] = [200, '{"text":"Success","code":0}'];
  const { url, requests } = await collector(t, (_, response) => response.writeHead(answer[0]).end(answer[1]));
  const target = {
    kind: "splunk" as const,
    url,
    tls: NO_TLS,
    tokenFile: join(folder, "token"),
    index: "security",
    sourcetype: "namegate",
    ack: false,
  };
  const sink = new Splunk(target, DEPS);
  t.after(() => sink.close());
  const batch = batchOf(3);
  assert.deepEqual(await sink.send(batch, never), { kind: "done" });
  const [request] = requests;
  assert.equal(`${request?.method} ${request?.url}`, "POST /services/collector/event");
  assert.equal(request?.headers["authorization"], "Splunk B5A79AAD-D822-46CC-80D1-819F80D7BFB0");
  const events = (request?.body ?? "").split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    events.map(({ event }) => event),
    batch.map(({ event }) => JSON.parse(JSON.stringify(event)) as unknown),
  );
  assert.deepEqual(
    { ...events[0], event: 0 },
    {
      time: "1795687200.123",
      host: "node-1.example",
      source: "namegate",
      sourcetype: "namegate",
      index: "security",
      fields: { event_id: "run-0" },
      event: 0,
    },
  );
  answer = [400, '{"text":"Invalid data format","code":6,"invalid-event-number":1}'];
  const outcome = await sink.send(batch, never);
  assert.ok(outcome.kind === "each");
  assert.deepEqual(
    outcome.results.map((one) => (typeof one === "object" ? "refused" : one)),
    ["retry", "refused", "retry"],
  );
  answer = [400, '{"text":"Invalid data format","code":6,"invalid-event-number":99}'];
  assert.equal((await sink.send(batch, never)).kind, "refused");
  for (const [status, body] of [
    [400, '{"text":"Incorrect index","code":7}'],
    [403, '{"text":"Invalid token","code":4}'],
    [503, '{"text":"Server is busy","code":9}'],
    [400, "<html>"],
  ] as const) {
    answer = [status, body];
    assert.equal((await sink.send(batch, never)).kind, "retry", body);
  }
});

test("Splunk HEC with acknowledgement: done only when an indexer has it", async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, "token"), "x");
  let polls = 0;
  const { url, requests } = await collector(t, (request, response) => {
    if (request.url === "/services/collector/event") response.end('{"text":"Success","code":0,"ackId":7}');
    else response.end(JSON.stringify({ acks: { 7: ++polls > 1 } }));
  });
  const target = {
    kind: "splunk" as const,
    url,
    tls: NO_TLS,
    tokenFile: join(folder, "token"),
    index: undefined,
    sourcetype: "namegate",
    ack: true,
  };
  const sink = new Splunk(target, DEPS);
  t.after(() => sink.close());
  assert.deepEqual(await sink.send(batchOf(1), never), { kind: "done" });
  assert.equal(polls, 2);
  const channel = requests[0]?.headers["x-splunk-request-channel"] as string;
  assert.match(channel, /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  assert.equal(requests[1]?.url, `/services/collector/ack?channel=${channel}`);
  assert.equal(requests[1]?.body, '{"acks":[7]}');
});

test("_bulk: created under an id of its own, conflicts are arrivals, items are settled one by one", async (t) => {
  const stored = new Map<string, unknown>();
  const script: Record<number, number> = {};
  const { url, requests } = await collector(t, (request, response) => {
    const lines = request.body.split("\n");
    assert.equal(lines.pop(), "", "NDJSON ends in a line feed");
    const items = Array.from({ length: lines.length / 2 }, (_, i) => {
      const { create } = JSON.parse(lines[2 * i] as string) as { create: { _index: string; _id: string } };
      const document = JSON.parse(lines[2 * i + 1] as string) as Record<string, unknown>;
      assert.equal(document["@timestamp"], "2026-11-26T10:00:00.123Z");
      const status = script[i] ?? (stored.has(create._id) ? 409 : 201);
      if (status === 201) stored.set(create._id, document);
      return { create: { status, ...(status > 201 && { error: { type: "some_exception", reason: "because" } }) } };
    });
    response.end(JSON.stringify({ errors: items.some(({ create }) => create.status > 201), items }));
  });
  const sink = new Elastic(
    { kind: "elastic", url: `${url}/es/`, tls: NO_TLS, index: "logs-namegate-default", apiKeyFile: undefined, basicFile: undefined },
    DEPS,
  );
  t.after(() => sink.close());
  script[1] = 429;
  script[2] = 400;
  const outcome = await sink.send(batchOf(4), never);
  assert.ok(outcome.kind === "each");
  assert.deepEqual(outcome.results, ["done", "retry", { refused: "400 some_exception: because" }, "done"]);
  delete script[1];
  delete script[2];
  assert.match(requests[0]?.url ?? "", /^\/es\/_bulk\?filter_path=/);
  assert.equal(requests[0]?.headers["content-type"], "application/x-ndjson");
  const again = await sink.send(batchOf(4), never);
  assert.ok(again.kind === "each");
  assert.deepEqual(again.results, ["done", "done", "done", "done"]);
  assert.equal(stored.size, 4);
  assert.deepEqual(
    [...stored.keys()].sort(),
    [0, 1, 2, 3].map((i) => `node-1.example:run-${i}`),
  );
});

test("OTLP: the request is the JSON encoding of ExportLogsServiceRequest, and partial success is final", async (t) => {
  let answer = "{}";
  const { url, requests } = await collector(t, (_, response) => response.end(answer));
  const sink = new Otlp({ kind: "otlp", url, tls: NO_TLS, authorizationFile: undefined }, { ...ORIGIN, nowMs: () => NOW });
  t.after(() => sink.close());
  assert.deepEqual(await sink.send(batchOf(2), never), { kind: "done" });
  assert.equal(requests[0]?.url, "/v1/logs");
  const body = JSON.parse(requests[0]?.body ?? "") as {
    resourceLogs: [{ resource: unknown; scopeLogs: [{ logRecords: Record<string, unknown>[] }] }];
  };
  const [record] = body.resourceLogs[0].scopeLogs[0].logRecords;
  assert.equal(body.resourceLogs[0].scopeLogs[0].logRecords.length, 2);
  assert.equal(record?.["timeUnixNano"], "1795687200123000000");
  assert.equal(record?.["severityNumber"], 13);
  assert.deepEqual(Object.keys(record ?? {}).sort(), [
    "attributes",
    "body",
    "eventName",
    "observedTimeUnixNano",
    "severityNumber",
    "severityText",
    "timeUnixNano",
  ]);
  for (const { key, value } of (record as Record<string, unknown>)["attributes"] as { key: string; value: object }[]) {
    assert.equal(typeof key, "string");
    assert.deepEqual(Object.keys(value), ["stringValue"]);
  }
  answer = '{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}';
  const outcome = await sink.send(batchOf(2), never);
  assert.ok(outcome.kind === "each");
  assert.deepEqual(outcome.results, Array(2).fill({ refused: "1 of these 2 were refused: too old" }));
});

test("webhook: signed as Standard Webhooks says, with a secret that is read again when it changes", async (t) => {
  const folder = tempFolder(t);
  const secretFile = join(folder, "secret");
  // The vector of the specification's own libraries.
  assert.equal(
    webhookSignature(
      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      "msg_p5jXN8AQM9LWM0D4loKWxJek",
      1614265330,
      Buffer.from('{"test": 2432232314}'),
    ),
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  );
  writeFileSync(secretFile, "first\n");
  const { url, requests } = await collector(t, (_, response) => response.writeHead(204).end());
  const sink = new Webhook({ kind: "webhook", url: `${url}/hook`, tls: NO_TLS, secretFile }, DEPS);
  t.after(() => sink.close());
  const verify = (i: number, secret: string): void => {
    const { headers, body } = requests[i] as (typeof requests)[number];
    const signed = `${String(headers["webhook-id"])}.${String(headers["webhook-timestamp"])}.${body}`;
    assert.equal(headers["webhook-signature"], `v1,${createHmac("sha256", secret).update(signed).digest("base64")}`);
    assert.equal(headers["webhook-timestamp"], String(Math.floor(NOW / 1000)));
    assert.equal((JSON.parse(body) as unknown[]).length, 2);
  };
  assert.deepEqual(await sink.send(batchOf(2), never), { kind: "done" });
  verify(0, "first");
  writeFileSync(`${secretFile}.new`, "second");
  renameSync(`${secretFile}.new`, secretFile);
  assert.deepEqual(await sink.send(batchOf(2), never), { kind: "done" });
  verify(1, "second");
  assert.equal(requests[0]?.headers["webhook-id"], requests[1]?.headers["webhook-id"]);
  writeFileSync(secretFile, "two\nlines");
  const refused = await sink.send(batchOf(2), never);
  assert.ok(refused.kind === "retry" && /not printable/.test(refused.why));
  assert.ok("why" in new SecretFile(join(folder, "nothing")).read());
  assert.equal(requests.length, 2);
});

test("HTTPS: the server must have a certificate of the authority, and gets the client's", async (t) => {
  const pki = certificates(tempFolder(t));
  writeFileSync(join(pki.folder, "secret"), "s");
  const { url, requests } = await collector(t, (_, response) => response.end(), pki);
  const send = async (tls: typeof pki.tls): Promise<string> => {
    const sink = new Webhook({ kind: "webhook", url, tls, secretFile: join(pki.folder, "secret") }, DEPS);
    const outcome = await sink.send(batchOf(1), never);
    sink.close();
    return outcome.kind === "done" ? "done" : outcome.kind === "retry" ? outcome.why : outcome.kind;
  };
  assert.equal(await send(pki.tls), "done");
  assert.match(await send({ ...pki.tls, caFile: undefined }), /unable to verify|self.signed|local issuer/);
  assert.match(await send({ ...pki.tls, certFile: undefined, keyFile: undefined }), /alert|reset|hang up|certificate/i);
  assert.match(await send({ ...pki.tls, serverName: "other.example" }), /altnames|does not match/i);
  assert.match(await send({ ...pki.tls, keyFile: join(pki.folder, "nothing") }), /cannot be read/);
  assert.equal(requests.length, 1);
});

test("status codes and Retry-After", () => {
  const of = (status: number): string => outcomeOf({ kind: "answer", status, body: "x\u001b[31m", afterMs: 5 }).kind;
  assert.deepEqual([200, 204, 301, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503].map(of), [
    "done",
    "done",
    "retry",
    "refused",
    "retry",
    "retry",
    "retry",
    "retry",
    "refused",
    "refused",
    "retry",
    "retry",
    "retry",
  ]);
  assert.deepEqual(outcomeOf({ kind: "answer", status: 503, body: "a\u001b\nb", afterMs: 9 }), {
    kind: "retry",
    why: "503 a b",
    afterMs: 9,
  });
  assert.equal(retryAfter("120", 0), 120_000);
  assert.equal(retryAfter("Thu, 26 Nov 2026 10:01:00 GMT", Date.parse("2026-11-26T10:00:00Z")), 60_000);
  assert.equal(retryAfter("Thu, 26 Nov 2020 10:01:00 GMT", Date.parse("2026-11-26T10:00:00Z")), 0);
  for (const text of [undefined, "", "-1", "soon", "9".repeat(100)]) assert.equal(retryAfter(text, 0), undefined, text);
});

/** What a collector may do instead of answering. */
const HOSTILE: Readonly<Record<string, (write: (data: string | Buffer) => void, end: () => void) => void>> = {
  "never answers": () => undefined,
  "closes at once": (_, end) => end(),
  "answers garbage": (write, end) => {
    write("\u0000\u0001 not http\r\n\r\n");
    end();
  },
  "answers half": (write, end) => {
    write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
    end();
  },
  "one byte at a time": (write) => {
    write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
    const timer = setInterval(() => write("x"), 5);
    setTimeout(() => clearInterval(timer), 2000);
  },
  "a body without end": (write) => {
    write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    const chunk = Buffer.alloc(65_536, 120);
    for (let i = 0; i < 200; i++) write(Buffer.concat([Buffer.from("10000\r\n"), chunk, Buffer.from("\r\n")]));
  },
  "headers without end": (write) => {
    write("HTTP/1.1 200 OK\r\n");
    for (let i = 0; i < 500; i++) write(`x-${i}: ${"y".repeat(1000)}\r\n`);
  },
  "sends elsewhere": (write, end) => {
    write("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
    end();
  },
};

test("a hostile collector costs a try and nothing else", { timeout: 20_000 }, async (t) => {
  const folder = tempFolder(t);
  writeFileSync(join(folder, "secret"), "s");
  for (const [name, act] of Object.entries(HOSTILE)) {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () =>
        act(
          (data) => void (socket.destroyed || socket.write(data)),
          () => socket.end(),
        ),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const sinks: Sink[] = [
      new Webhook({ kind: "webhook", url, tls: NO_TLS, secretFile: join(folder, "secret") }, DEPS),
      new Elastic({ kind: "elastic", url, tls: NO_TLS, index: "i", apiKeyFile: undefined, basicFile: undefined }, DEPS),
    ];
    for (const sink of sinks) {
      const abort = new AbortController();
      const timer = setTimeout(() => abort.abort(), 400);
      const from = performance.now();
      const outcome = await sink.send(batchOf(3), abort.signal);
      clearTimeout(timer);
      assert.equal(outcome.kind, "retry", name);
      assert.ok(performance.now() - from < 3000, name);
      sink.close();
    }
    server.close();
  }
});
