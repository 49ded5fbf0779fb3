import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import type { Flow, Judge, Ruling, Waiting } from "../../src/inspect/flow.ts";
import type { Desk, Fate, Reason } from "../../src/inspect/flow-desk.ts";
import { FLOW_LIMITS } from "../../src/inspect/flow-store.ts";
import { Flows } from "../../src/inspect/flows.ts";
import { TcpFlag } from "../../src/model/packet.ts";
import type { Evidence } from "../../src/model/verdict.ts";
import { ip4, tcp, text } from "../capture/build.ts";
import { HELLOS } from "./hellos.ts";

const HELLO = new Uint8Array(Buffer.from(HELLOS.openssl13.hex, "hex"));
const NAME = HELLOS.openssl13.serverName;
const POD = { name: "pod" };
const CLIENT = "10.0.0.1";
const PROXY = "192.0.2.1";
const BEGIN = 0xfffffff0; // sequence numbers wrap
const SERVER_BEGIN = 5000;
const OK = "HTTP/1.1 200 Connection established\r\n\r\n";

/** A pod that may ask a proxy for a.example and for NAME; one connection, whose next bytes are at `sent` and `heard`. */
class World implements Desk<object> {
  readonly flows = new Flows<object>(this, FLOW_LIMITS);
  now = 0;
  next = 1;
  sent = 0;
  heard = 0;
  readonly fates = new Map<number, Fate>();
  readonly said: string[] = [];
  readonly resets: string[] = [];
  readonly watch: boolean;

  constructor(watch = false) {
    this.watch = watch;
  }
  judge(): Judge {
    return {
      rule: ({ application, serverName, upgrade, fields, evasion }: Evidence): Ruling => {
        const target = fields?.target?.split(":")[0];
        const named = (target === "a.example" || target === NAME) && serverName === target;
        const what = `${fields?.method} ${target}${upgrade === undefined ? "" : ` ${upgrade} ${serverName}`}`;
        const allow = application === "http1" && named && evasion === undefined && (upgrade === undefined || upgrade === "tls");
        return { allow, detail: `${allow ? "" : "not "}${what}` };
      },
      applications: () => ["http1", "tls"],
      proxied: () => true,
    };
  }
  settle(_flow: Flow<object>, { id }: Waiting, fate: Fate): void {
    assert.equal(this.fates.get(id), "hold", `packet ${id} is held`);
    this.fates.set(id, fate);
  }
  ruled(_flow: Flow<object>, { detail }: Ruling): void {
    this.said.push(detail as string);
  }
  refused(_flow: Flow<object>, why: Reason, message: string): void {
    this.said.push(`${why}: ${message}`);
  }
  reset(_flow: Flow<object>, end: string): void {
    this.resets.push(end);
  }
  count(): void {}

  /** The client says it; the server has it when it went on. */
  client(
    what: string | Uint8Array,
    { at = this.sent, ack = this.heard, flags = 16 as number, to = PROXY, begin = BEGIN, quiet = false } = {},
  ): Fate {
    const bytes = typeof what === "string" ? text(what) : what;
    const raw = ip4(
      { protocol: 6, source: CLIENT, destination: to },
      tcp({ from: 40_000, to: 3128, seq: (begin + at) >>> 0, ack: SERVER_BEGIN + ack, flags }, bytes),
    );
    const id = this.next++;
    const fate = this.flows.fromClient(POD, packetOf(raw), id, 0, this.watch, this.now);
    this.fates.set(id, fate);
    this.sent = Math.max(this.sent, at + bytes.length);
    if (!quiet && (fate === "go" || fate === "confirm")) this.server("");
    return fate;
  }
  server(what: string, { at = this.heard, got = this.sent, flags = 16 as number } = {}): Fate {
    const raw = ip4(
      { protocol: 6, source: PROXY, destination: CLIENT },
      tcp({ from: 3128, to: 40_000, seq: SERVER_BEGIN + at, ack: (BEGIN + got) >>> 0, flags }, text(what)),
    );
    this.heard = Math.max(this.heard, at + what.length);
    return this.flows.fromServer(POD, packetOf(raw), this.watch, this.now);
  }
  later(ms: number): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.now = Math.min(end, this.now + 20);
      this.flows.sweep(this.now);
    }
  }
}

function packetOf(raw: Uint8Array): ReturnType<typeof newPacket> {
  const packet = newPacket();
  assert.ok(decodeIp(raw, 0, raw.length, packet));
  return packet;
}

const get = (host: string, more = ""): string => `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`;
const connect = (host: string, port = 443): string => `CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`;
const evil = Buffer.from(Buffer.from(HELLO).toString("latin1").replace(NAME, "api.exbmple.com"), "latin1");

test("each request of a connection is judged; between them it may be idle for long", () => {
  const it = new World();
  for (let i = 0; i < 50; i++) {
    assert.equal(it.client(get("a.example")), "go");
    assert.equal(it.server("HTTP/1.1 204 No\r\n\r\n"), "go");
    it.later(i === 7 ? 1_000_000 : 1000);
  }
  assert.equal(it.said.length, 50);
  assert.ok(it.flows.load.octets < 4096, `${it.flows.load.octets} bytes`);
  assert.equal(it.client(get("b.example")), "deny");
  assert.equal(it.said.at(-1), "not GET b.example");
  assert.deepEqual(it.resets, ["server"]);
  assert.equal(it.client(get("a.example")), "drop", "and it stays denied");
  it.later(10_000);
  assert.deepEqual([it.flows.load.size, it.flows.load.held], [0, 0]);
});

test("at every split: nothing of a denied request is complete at the proxy", () => {
  const all = get("a.example") + get("b.example");
  for (let cut = 1; cut < all.length; cut++) {
    const it = new World();
    it.client(all.slice(0, cut));
    if (cut % 2 === 0) it.later(100); // what is held of a head goes on after a while
    it.client(all.slice(cut));
    assert.equal(it.said.at(-1), "not GET b.example", `cut at ${cut}`);
    assert.equal(it.flows.load.held, 0);
    assert.deepEqual(it.resets, ["server"]);
  }
});

test("bodies flow, whatever is in them; what follows is judged", () => {
  const it = new World();
  assert.equal(it.client(`POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 400000\r\n\r\n`), "go");
  for (let i = 0; i < 400; i++) assert.equal(it.client(get("b.example").padEnd(1000)), "go");
  assert.ok(it.flows.load.octets < 16_384, `${it.flows.load.octets} bytes`);
  assert.equal(it.client(get("b.example")), "deny");
  assert.deepEqual(it.said, ["POST a.example", "not GET b.example"]);
});

test("more is not in flight than is kept for comparison", () => {
  const it = new World();
  it.client(`POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4000000\r\n\r\n`);
  const fates = Array.from({ length: 400 }, () => it.client("x".repeat(1000), { quiet: true }));
  const first = fates.indexOf("drop");
  assert.equal(first, 262);
  assert.ok(fates.slice(first).every((fate) => fate === "drop"));
  const lost = it.sent - (400 - first) * 1000;
  it.server("", { got: lost });
  assert.equal(it.client("x".repeat(1000), { at: lost }), "go");
});

test("segments out of order, and sent again", () => {
  const it = new World();
  it.client(get("a.example"));
  const next = get("a.example", "X: y\r\n");
  const at = it.sent;
  assert.equal(it.client(next.slice(20), { at: at + 20 }), "hold");
  assert.equal(it.client(next.slice(0, 20), { at }), "go");
  assert.deepEqual([...it.fates.values()], ["go", "go", "go"]);
  assert.equal(it.client(next, { at }), "strip", "the proxy has it");
  assert.equal(it.client(next.slice(0, 5), { at, quiet: true }), "strip");
  assert.deepEqual(it.said, ["GET a.example", "GET a.example"]);
});

test("sent again with other bytes", () => {
  const it = new World();
  it.client(get("a.example"));
  const at = it.sent;
  assert.equal(it.client(get("a.example"), { quiet: true }), "go");
  assert.equal(it.client(get("b.example"), { at, quiet: true }), "deny");
  assert.match(it.said.at(-1) as string, /^evasion/);
});

test("a tunnel: TLS with the target's name passes when the server has it", () => {
  const it = new World();
  assert.equal(it.client(connect(NAME)), "go");
  assert.equal(it.server(OK), "go");
  it.later(100_000);
  assert.equal(it.client(HELLO, { quiet: true }), "confirm");
  assert.equal(it.server(""), "pass");
  assert.deepEqual(it.said, [`CONNECT ${NAME}`, `CONNECT ${NAME} tls ${NAME}`]);
});

test("a tunnel at every split of the hello, before and after the answer", () => {
  for (let cut = 1; cut < HELLO.length; cut += 7) {
    for (const early of [false, true]) {
      const it = new World();
      it.client(connect(NAME));
      if (!early) it.server(OK);
      it.client(HELLO.subarray(0, cut));
      if (early) {
        it.later(200);
        assert.deepEqual([...it.fates.values()], ["go", "hold"], "nothing goes on before the answer");
        it.server(OK.slice(0, 10), { got: connect(NAME).length });
        it.server(OK.slice(10), { got: connect(NAME).length });
      }
      it.client(HELLO.subarray(cut), { quiet: true });
      assert.equal(it.server(""), "pass", `cut at ${cut}`);
      assert.ok([...it.fates.values()].every((fate) => fate === "go" || fate === "confirm"));
    }
  }
});

const DENIED: readonly (readonly [string, string, string | Uint8Array, string])[] = [
  ["another name inside", connect(NAME), evil, `not CONNECT ${NAME} tls api.exbmple.com`],
  ["no TLS on port 443", connect(NAME), "SSH-2.0-x\r\n", `not CONNECT ${NAME} unknown ${NAME}`],
  ["HTTP on port 443", connect(NAME), get(NAME), `not CONNECT ${NAME} http1 ${NAME}`],
  ["another host in plain", connect(NAME, 80), "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", `not CONNECT ${NAME}`],
];
for (const [what, asked, inside, said] of DENIED) {
  test(`a tunnel: ${what}`, () => {
    const it = new World();
    it.client(asked);
    it.server(OK);
    assert.equal(it.client(inside), "deny");
    assert.deepEqual(it.said, [`CONNECT ${NAME}`, said]);
  });
}

test("a tunnel to another port may be anything", () => {
  const it = new World();
  it.client(connect(NAME, 22));
  it.server(`${OK}SSH-2.0-server\r\n`);
  assert.equal(it.client("SSH-2.0-client\r\n", { quiet: true }), "confirm");
  assert.equal(it.server(""), "pass");
});

test("a refused CONNECT is followed by other requests, which are judged", () => {
  const it = new World();
  it.client(connect(NAME));
  it.server("HTTP/1.1 407 Who?\r\nContent-Length: 5\r\n\r\nhello");
  assert.equal(it.client(connect(NAME)), "go");
  assert.equal(it.server("HTTP/1.1 407 Who?\r\nContent-Length: 5\r\n\r\n"), "go");
  assert.equal(it.server("hello"), "go");
  assert.equal(it.client(connect("b.example")), "deny");
});

test("an answer does not agree to a CONNECT twice", () => {
  const it = new World();
  it.client(connect(NAME));
  it.client(connect("b.example"));
  it.server("HTTP/1.1 407 Who?\r\n\r\n", { got: connect(NAME).length });
  assert.equal(it.said.at(-1), "not CONNECT b.example");
  assert.deepEqual([...it.fates.values()], ["go", "deny"]);
});

test("what the proxy would read in two ways", () => {
  const it = new World();
  it.client(get("a.example"));
  const both = "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
  assert.equal(it.client(both), "deny");
  assert.match(it.said.at(-1) as string, /^evasion: both/);
});

test("a head that never ends", () => {
  const it = new World();
  it.client(get("a.example"));
  it.client("GET http://a.example/ HTTP/1.1\r\n");
  it.later(6000);
  assert.match(it.said.at(-1) as string, /^incomplete/);
});

test("another connection from the same port", () => {
  const post = "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n";
  for (const where of [
    { to: "192.0.2.9", ack: 7_000_000 },
    { ack: 7_000_000, at: post.length },
    { begin: 0x50000000, at: 0 },
  ]) {
    const it = new World();
    it.client(post);
    assert.equal(it.client(get("b.example"), { ...where, quiet: true }), "deny", "it is a head, not that body");
    assert.equal(it.said.at(-1), "not GET b.example");
    assert.deepEqual(it.resets, ["server", "server"], "and the old connection is ended");
  }
});

test("packets of other servers to the same port change nothing", () => {
  const it = new World();
  it.client("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n");
  assert.equal(it.server("", { at: 90_000_000, flags: TcpFlag.RST | 16 }), "go");
  it.heard = 0;
  it.later(100_000);
  assert.equal(it.client(get("b.example")), "go", "still its body");
});

test("Monitor only speaks", () => {
  const it = new World(true);
  assert.equal(it.client(get("a.example")), "go");
  assert.equal(it.client(get("b.example")), "pass");
  assert.deepEqual(it.said, ["GET a.example", "not GET b.example"]);
  assert.deepEqual(it.resets, []);
  const tunnel = new World(true);
  assert.equal(tunnel.client(connect(NAME)), "go");
  assert.equal(tunnel.server(OK), "go");
  assert.equal(tunnel.client(evil), "pass");
  assert.match(tunnel.said.at(-1) as string, /^not CONNECT/);
});
