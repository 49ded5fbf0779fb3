import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { existsSync } from "node:fs";
import { type IncomingHttpHeaders, type IncomingMessage, request, type ServerResponse } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { History } from "../../src/alerts/history.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { Event } from "../../src/model/event.ts";
import { refusal } from "../../src/page/guard.ts";
import { Streams } from "../../src/page/stream.ts";
import { until } from "../support/lab.ts";
import { day, HOST, RUN } from "./sample.ts";
import { servePage } from "./server.ts";

interface Answer {
  readonly code: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}
function get(port: number, path: string, headers: Record<string, string> = {}, method = "GET"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, method, headers, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (body += chunk));
      response.on("end", () => resolve({ code: response.statusCode ?? 0, headers: response.headers, body }));
    });
    asked.on("error", reject);
    asked.end();
  });
}

const none = (): Promise<unknown> => Promise.resolve({ ready: true });

test("who may see the page", () => {
  const ask = (
    remoteAddress: string | undefined,
    host: string | undefined,
    more: IncomingHttpHeaders = {},
    url = "/data/events",
  ): boolean => refusal({ socket: { remoteAddress }, headers: { ...(host === undefined ? {} : { host }), ...more }, url }) === undefined;
  for (const host of ["localhost:9810", "LOCALHOST:9810", "127.0.0.1:9810", "[::1]:9810", "127.0.0.1", "localhost:18080", "127.8.0.1:1"])
    assert.ok(ask("127.0.0.1", host), host);
  for (const address of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]) assert.ok(ask(address, "localhost:1"), address);
  for (const address of ["10.244.0.5", "192.0.2.1", "::2", "fd00::1", "::ffff:10.0.0.1", "12.7.0.1", undefined])
    assert.ok(!ask(address, "localhost:9810"), address);
  for (const host of [
    "evil.example:9810",
    "localhost.evil.example:9810",
    "127.0.0.1.evil.example",
    "evil.example#127.0.0.1",
    "user@localhost",
    "localhost:9810:1",
    "[::1].evil.example",
    "0.0.0.0:9810",
    "10.0.0.1:9810",
    "",
    undefined,
  ])
    assert.ok(!ask("127.0.0.1", host), host);
  assert.ok(ask("127.0.0.1", "localhost:9810", { origin: "http://localhost:9810" }));
  for (const origin of ["http://evil.example", "http://localhost:3000", "https://localhost:9810", "null"])
    assert.ok(!ask("127.0.0.1", "localhost:9810", { origin }), origin);
  const site = (value: string, more: IncomingHttpHeaders = {}, url?: string): boolean =>
    ask("127.0.0.1", "localhost:9810", { "sec-fetch-site": value, ...more }, url);
  assert.ok(site("same-origin") && site("none"));
  assert.ok(!site("cross-site") && !site("same-site"));
  const link = { "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };
  assert.ok(site("cross-site", link, "/"), "a link to the page");
  assert.ok(!site("cross-site", link), "not to what it asks for");
  assert.ok(!site("cross-site", { ...link, "sec-fetch-dest": "iframe" }, "/"));
});

test("another Host gets nothing but metrics and health", async (t) => {
  const { port } = await servePage(t, { history: new History(), status: none });
  const evil = { host: "evil.example" };
  for (const path of ["/", "/app.mjs", "/data/status", "/data/events", "/data/destinations", "/data/suggestion", "/nothing"]) {
    const { code, body, headers } = await get(port, path, evil);
    assert.equal(code, 403, path);
    assert.match(body, /Host must be/);
    assert.equal(headers["access-control-allow-origin"], undefined);
  }
  for (const path of ["/metrics", "/healthz", "/readyz"]) assert.equal((await get(port, path, evil)).code, 200, path);
});

test("files and answers have strict headers, only GET is answered, and nothing else is served", async (t) => {
  const { port } = await servePage(t, { history: new History(), status: none });
  const index = await get(port, "/");
  const named = [...index.body.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map((match) => match[1] as string);
  assert.ok(named.includes("/app.mjs") && named.includes("/page.css") && named.includes("/icon.svg"), named.join());
  const app = await get(port, "/app.mjs");
  const modules = [...app.body.matchAll(/from "\.(\/[a-z]+\.mjs)"/g)].map((match) => match[1] as string);
  assert.ok(modules.length >= 6);
  for (const path of ["/", ...named, ...modules, "/data/status", "/data/destinations", "/data/suggestion?event=x"]) {
    const { code, headers } = await get(port, path);
    assert.equal(code, 200, path);
    const csp = headers["content-security-policy"] as string;
    assert.match(csp, /^default-src 'none'; .*frame-ancestors 'none'/);
    assert.doesNotMatch(csp, /unsafe|\*|http|data:/);
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers["referrer-policy"], "no-referrer");
    assert.equal(headers["cross-origin-opener-policy"], "same-origin");
    assert.equal(headers["cross-origin-resource-policy"], "same-origin");
    assert.equal(headers["cache-control"], "no-store");
    assert.equal(headers["access-control-allow-origin"], undefined);
  }
  assert.match(app.headers["content-type"] ?? "", /^text\/javascript/);
  for (const path of [
    "/page.ts",
    "/../page.ts",
    "/static/app.mjs",
    "/%2e%2e/page.js",
    "//etc/passwd",
    "/constructor",
    "/data/__proto__",
    "/favicon.ico",
  ])
    assert.equal((await get(port, path)).code, 404, path);
  for (const method of ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
    assert.equal((await get(port, "/data/status", {}, method)).code, 405, method);
});

test("the page is text without markup made of text, and without anything from elsewhere", async (t) => {
  const { port } = await servePage(t, { history: new History(), status: none });
  const paths = [
    "/",
    "/page.css",
    "/app.mjs",
    "/dom.mjs",
    "/words.mjs",
    "/store.mjs",
    "/feed.mjs",
    "/list.mjs",
    "/picture.mjs",
    "/panels.mjs",
    "/event.mjs",
    "/explain.mjs",
  ];
  for (const path of paths) {
    const { body } = await get(port, path);
    assert.doesNotMatch(
      body,
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\("|@import|url\(/,
      path,
    );
    assert.doesNotMatch(body.replaceAll("http://www.w3.org/2000/svg", ""), /https?:|\/\/[a-z]+\.[a-z]/, path);
    if (path === "/") assert.doesNotMatch(body, /style=|\son[a-z]+=|<style|<script(?! type="module" src=)/);
  }
});

test("one status for all who ask at once, and what it cannot say", async (t) => {
  let asked = 0;
  let fails = false;
  const status = async (): Promise<unknown> => {
    asked++;
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (fails) throw new Error("the packet thread does not answer");
    return { ready: true };
  };
  let now = 1000;
  const { port } = await servePage(t, { history: new History(), status, nowMs: () => now });
  const answers = await Promise.all([1, 2, 3].map(() => get(port, "/data/status")));
  assert.equal(asked, 1);
  assert.deepEqual(JSON.parse(answers[2]?.body ?? ""), { host: HOST, version: "0.1.0", run: RUN, status: { ready: true } });
  now += 5000;
  fails = true;
  const failed = await get(port, "/data/status");
  assert.equal(failed.code, 503);
  assert.match(failed.body, /does not answer/);
});

test("destinations: not sent again while they are the same, and kept when the page closes", async (t) => {
  const { history, events } = day(50, Date.now());
  const { port, page, state, close } = await servePage(t, { history, events, status: none });
  const first = await get(port, "/data/destinations");
  const etag = first.headers.etag as string;
  assert.ok((JSON.parse(first.body) as { workloads: object[] }).workloads.length > 2);
  assert.deepEqual([(await get(port, "/data/destinations", { "if-none-match": etag })).code], [304]);
  page.push(events[0] as Event);
  assert.equal((await get(port, "/data/destinations", { "if-none-match": etag })).code, 200);
  await close();
  assert.ok(existsSync(join(state, "destinations.json")));
});

test("the rule that would allow an event of this run", async (t) => {
  const { history, events } = day(200, Date.now());
  const { port } = await servePage(t, { history, status: none });
  const denied = events.find(({ why }) => why === "no-rule") as Event;
  const { body } = await get(port, `/data/suggestion?event=${denied.id}`);
  assert.match((JSON.parse(body) as { yaml: string }).yaml, /domainNames: \["?(telemetry\.vendor\.example|pypi\.org)/);
  for (const id of ["", "other-3", `${RUN}-0`, `${RUN}-201`, `${RUN}--1`, `${RUN}-1e9`, `${RUN}-1.5`, "__proto__"])
    assert.equal((await get(port, `/data/suggestion?event=${encodeURIComponent(id)}`)).body, "null", id);
});

/** What a client of the stream has got: `[event, data]`. */
function stream(port: number, path = "/data/events", headers: Record<string, string> = {}) {
  const messages: { event: string; data: string; id: string | undefined }[] = [];
  let rest = "";
  let code = 0;
  const asked = request({ host: "127.0.0.1", port, path, headers, agent: false }, (response) => {
    code = response.statusCode ?? 0;
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      const parts = (rest + chunk).split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const field = (name: string): string | undefined => new RegExp(`^${name}: (.*)$`, "m").exec(part)?.[1];
        const data = field("data");
        if (data !== undefined) messages.push({ event: field("event") ?? "message", data, id: field("id") });
      }
    });
    response.on("error", () => undefined);
  });
  asked.on("error", () => undefined);
  asked.end();
  const events = (): Event[] => messages.flatMap(({ event, data }) => (event === "message" ? (JSON.parse(data) as Event[]) : []));
  return { messages, events, seqs: () => events().map(({ seq }) => seq), code: () => code, end: () => asked.destroy() };
}

test("events: all that are there, then those that come, and on from the last one after a break", async (t) => {
  const { history } = day(1000, Date.now());
  const { port } = await servePage(t, { history, status: none });
  const one = stream(port);
  await until("the backlog", () => one.events().length === 1000 || undefined, 5000);
  assert.deepEqual(
    one.seqs(),
    Array.from({ length: 1000 }, (_, i) => i + 1),
  );
  assert.deepEqual(JSON.parse(one.messages[0]?.data ?? ""), { run: RUN });
  const stamp = stamper("later");
  const push = (): void =>
    history.push({
      ...stamp({ type: "agent", verdict: "info", message: "line\n\ndata: x" }, 0),
      id: `${RUN}-${history.total + 1}`,
      seq: history.total + 1,
    });
  push();
  await until("the next one", () => one.events().length === 1001 || undefined, 5000);
  assert.equal(one.events()[1000]?.message, "line\n\ndata: x");
  const last = one.messages.at(-1)?.id as string;
  one.end();
  push();
  const again = stream(port, "/data/events", { "last-event-id": last });
  await until("what came meanwhile", () => again.events().length === 1 || undefined, 5000);
  const query = stream(port, `/data/events?after=${last}`);
  await until("the same by the query", () => query.events().length === 1 || undefined, 5000);
  assert.deepEqual([again.seqs(), query.seqs()], [[1002], [1002]]);
  const other = stream(port, "/data/events?after=otherrun-1001");
  await until("all of this run for somebody of another", () => other.events().length === 1002 || undefined, 5000);
  for (const client of [again, query, other]) client.end();
});

test("no more than eight clients, and a place is free again when one goes", async (t) => {
  const { history } = day(10, Date.now());
  const { port } = await servePage(t, { history, status: none });
  const clients = Array.from({ length: 8 }, () => stream(port));
  await until("all have the backlog", () => clients.every((client) => client.events().length === 10) || undefined, 5000);
  const ninth = stream(port);
  await until("the ninth is told", () => ninth.messages.some(({ event }) => event === "full") || undefined, 5000);
  clients[0]?.end();
  await until(
    "a place is free",
    async () => {
      const next = stream(port);
      await new Promise((resolve) => setTimeout(resolve, 100));
      if (next.events().length === 10) return clients.push(next), true;
      next.end();
      return undefined;
    },
    5000,
  );
  for (const client of clients) client.end();
});

/** A client whose socket takes nothing until `drain`. */
class Stuck extends EventEmitter {
  readonly written: string[] = [];
  stuck = false;
  destroyed = false;
  write(text: string): boolean {
    this.written.push(text);
    return !this.stuck;
  }
  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.emit("close");
  }
}

test("a client that does not read holds one batch, is told what it missed, and is cut when it never reads", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const history = new History();
  const stamp = stamper(RUN);
  const push = (count: number): void => {
    for (let i = 0; i < count; i++) history.push(stamp({ type: "agent", verdict: "info" }, 0));
  };
  /** A timer that a timer sets is one of the next step. */
  const pass = (ms: number): void => {
    for (let at = 0; at < ms; at += 25) t.mock.timers.tick(25);
  };
  const said = (index: number, what: RegExp): string | undefined => what.exec(client.written[index] ?? "")?.[1];
  const streams = new Streams(history, RUN);
  const client = new Stuck();
  assert.ok(streams.open(client as unknown as ServerResponse, undefined));
  push(1000);
  client.stuck = true;
  pass(1000);
  const held = client.written.length;
  assert.equal(held, 2, "the greeting and one batch");
  push(30_000);
  pass(10_000);
  assert.equal(client.written.length, held, "nothing more is written to it");
  client.stuck = false;
  client.emit("drain");
  pass(10_000);
  assert.equal(Number(said(held, /^event: missed\ndata: (\d+)/)), 31_000 - 10_000 - 256);
  assert.equal(Number(said(held, /"seq":(\d+)/)), 21_001);
  const last = client.written.findLastIndex((text) => text.includes('"seq"'));
  assert.equal(said(last, /^id: page0000-(\d+)/), "31000");
  push(1);
  client.stuck = true;
  pass(25);
  assert.ok(!client.destroyed);
  pass(20_000);
  assert.ok(client.destroyed);
  assert.equal(streams.size, 0);
  const before = client.written.length;
  push(10);
  pass(60_000);
  assert.equal(client.written.length, before);
});

test("a page that is closed lets go of its clients", async (t) => {
  const { history } = day(10, Date.now());
  const { port, close } = await servePage(t, { history, status: none });
  const client = stream(port);
  await until("it is there", () => client.events().length === 10 || undefined, 5000);
  await close();
});

/** The path alone decides, whatever the request line has. */
test("a request line that is no path", async (t) => {
  const { page } = await servePage(t, { history: new History(), status: none });
  const response = {} as ServerResponse;
  assert.equal(page.handle({ url: "http://[", headers: {}, socket: {} } as unknown as IncomingMessage, response), false);
});
