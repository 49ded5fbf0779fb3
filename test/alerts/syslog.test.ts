import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { syslogMessage } from "../../src/alerts/formats/syslog.ts";
import type { Outgoing } from "../../src/alerts/sinks/sink.ts";
import { SyslogStream } from "../../src/alerts/sinks/syslog-stream.ts";
import { SyslogUdp } from "../../src/alerts/sinks/syslog-udp.ts";
import type { TargetSettings, TlsSettings } from "../../src/model/alerts.ts";
import { need } from "../support/need.ts";
import { batchOf, certificates, never, NO_TLS, tempFolder } from "./collectors.ts";

type SyslogTarget = TargetSettings & { kind: "syslog" };
const render = ({ event, text }: Outgoing): string => syslogMessage(event, "node-1", 7, "local0", text);
const target = (port: number, over: Partial<SyslogTarget> = {}): SyslogTarget => ({
  kind: "syslog",
  transport: "tcp",
  host: "127.0.0.1",
  port,
  facility: "local0",
  framing: "octet-counting",
  tls: NO_TLS,
  ...over,
});

/** A TCP server on loopback. */
async function server(t: TestContext, on: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const listening = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    on(socket);
  });
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listening.close();
  });
  return (listening.address() as AddressInfo).port;
}

/** RFC 6587 §3.4.1. */
function unframe(bytes: Buffer): string[] {
  const found: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const blank = bytes.indexOf(0x20, at);
    const length = Number(bytes.toString("latin1", at, blank));
    assert.ok(length > 0 && blank + 1 + length <= bytes.length);
    found.push(bytes.toString("utf8", blank + 1, blank + 1 + length));
    at = blank + 1 + length;
  }
  return found;
}

async function until(what: () => boolean, ms = 5000): Promise<void> {
  for (const end = performance.now() + ms; !what(); ) {
    assert.ok(performance.now() < end, "it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("TCP: frames by octets or by line, over one connection, which is made again when it was closed", async (t) => {
  for (const framing of ["octet-counting", "newline"] as const) {
    const heard: Buffer[] = [];
    let connections = 0;
    let last: Socket | undefined;
    const port = await server(t, (socket) => {
      connections++;
      last = socket;
      socket.on("data", (part: Buffer) => heard.push(part));
    });
    const sink = new SyslogStream(target(port, { framing }), render);
    t.after(() => sink.close());
    const batch = batchOf(5);
    assert.deepEqual(await sink.send(batch, never), { kind: "done" });
    assert.deepEqual(await sink.send(batch, never), { kind: "done" });
    const wanted = [...batch, ...batch].map(render);
    await until(() => heard.reduce((sum, { length }) => sum + length, 0) >= wanted.join("").length + wanted.length);
    const text = Buffer.concat(heard);
    assert.deepEqual(framing === "newline" ? text.toString().split("\n").slice(0, -1) : unframe(text), wanted);
    assert.equal(connections, 1);
    last?.destroy();
    await until(() => last?.destroyed === true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(await sink.send(batch, never), { kind: "done" });
    assert.equal(connections, 2);
  }
});

test("a receiver that is not there, does not read, closes, or talks costs a try", { timeout: 40_000 }, async (t) => {
  const why = async (port: number, over: Partial<SyslogTarget> = {}, chars = 2, withinMs = 10_000): Promise<string> => {
    const sink = new SyslogStream(target(port, over), render);
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), withinMs);
    const outcome = await sink.send(
      batchOf(50).map((one) => ({ ...one, text: "x".repeat(chars) })),
      abort.signal,
    );
    clearTimeout(timer);
    sink.close();
    return outcome.kind === "retry" ? outcome.why : outcome.kind;
  };
  assert.match(await why(1), /ECONNREFUSED/);
  const silent = await server(t, (socket) => void socket.pause());
  assert.match(await why(silent, {}, 400_000, 500), /takes nothing/);
  assert.match(await why(silent, { transport: "tls" }, 2, 500), /time limit/);
  const closing = await server(t, (socket) => void socket.resetAndDestroy());
  assert.match(await why(closing, {}, 400_000), /closed|ECONNRESET|EPIPE|ended/);
  const talking = await server(t, (socket) => {
    socket.pause();
    const chunk = Buffer.alloc(65_536);
    for (let i = 0; i < 20; i++) socket.write(chunk);
  });
  assert.match(await why(talking, {}, 400_000), /no syslog receiver|closed|EPIPE|ended/);
});

test("UDP: a message a datagram; what is longer than one is refused", async (t) => {
  const receiver = createSocket("udp4");
  const heard: string[] = [];
  receiver.on("message", (bytes) => heard.push(bytes.toString()));
  await new Promise<void>((resolve) => receiver.bind(0, "127.0.0.1", resolve));
  t.after(() => receiver.close());
  const sink = new SyslogUdp("127.0.0.1", receiver.address().port, render);
  t.after(() => sink.close());
  const batch = batchOf(3);
  batch.push({ ...(batch[0] as Outgoing), text: "x".repeat(70_000) });
  const outcome = await sink.send(batch, never);
  assert.ok(outcome.kind === "each");
  assert.deepEqual(outcome.results, ["done", "done", "done", { refused: "longer than a datagram" }]);
  await until(() => heard.length === 3);
  assert.deepEqual(heard, batch.slice(0, 3).map(render));
  const lost = new SyslogUdp("no-such-host.invalid", 514, render);
  const failed = await lost.send(batchOf(2), never);
  assert.ok(failed.kind === "each");
  assert.deepEqual(failed.results, ["retry", "retry"]);
  lost.close();
});

/** rsyslogd in the foreground with these modules; every message as it was read: priority, host, program, structured data, text. */
async function rsyslog(t: TestContext, folder: string, input: string): Promise<{ lines: () => string[]; child: ChildProcess }> {
  const out = join(folder, "out.log");
  writeFileSync(
    join(folder, "rsyslog.conf"),
    `global(workDirectory="${folder}" maxMessageSize="64k")\n${input}\ntemplate(name="t" type="string" string="%pri%|%hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\\n")\naction(type="omfile" file="${out}" template="t" flushOnTXEnd="on" ioBufferSize="4k")\n`,
  );
  const child = spawn("rsyslogd", ["-n", "-f", join(folder, "rsyslog.conf"), "-i", join(folder, "pid")], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (part: Buffer) => (said += part.toString()));
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  t.after(async () => {
    child.kill("SIGTERM");
    await ended;
    if (said !== "") t.diagnostic(said.slice(0, 1000));
  });
  return {
    child,
    lines: () =>
      existsSync(out)
        ? readFileSync(out, "utf8")
            .split("\n")
            .slice(0, -1)
            .filter((line) => line.includes("namegate@"))
        : [],
  };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Until the receiver listens. */
async function sendTo(sink: SyslogStream, batch: readonly Outgoing[]): Promise<void> {
  let why = "";
  for (let i = 0; i < 100; i++) {
    const outcome = await sink.send(batch, never);
    if (outcome.kind === "done") return;
    why = "why" in outcome ? outcome.why : "";
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(why);
}

const parts = (line: string): string[] => line.split("|");

test("a real rsyslog reads TCP, and the fields are those that were written", { timeout: 20_000 }, async (t) => {
  if (!need(t, { commands: ["rsyslogd"] })) return;
  const folder = tempFolder(t);
  const port = await freePort();
  const { lines } = await rsyslog(t, folder, `module(load="imtcp")\ninput(type="imtcp" address="127.0.0.1" port="${port}")`);
  const sink = new SyslogStream(target(port), render);
  t.after(() => sink.close());
  const batch = batchOf(50);
  await sendTo(sink, batch);
  await until(() => lines().length >= 50, 10_000);
  const [pri, host, app, pid, id, data, ...text] = parts(lines()[0] as string);
  assert.deepEqual([pri, host, app, pid, id], ["132", "node-1", "namegate", "7", "connection"]);
  assert.match(data ?? "", /^\[namegate@32473 id="run-0" verdict="deny" why="wrong-port" pod="shop\/checkout-0"/);
  assert.equal(text.join("|").trimStart(), batch[0]?.text);
  assert.deepEqual(
    lines().map((line) => /id="([^"]+)"/.exec(line)?.[1]),
    batch.map(({ event }) => event.id),
  );
});

test("a real rsyslog with TLS and client certificates (RFC 5425)", { timeout: 20_000 }, async (t) => {
  if (!need(t, { commands: ["rsyslogd", "openssl"] })) return;
  if (!existsSync("/usr/share/doc/rsyslog-openssl")) return t.skip("needs the package rsyslog-openssl");
  const folder = tempFolder(t);
  const pki = certificates(folder);
  const port = await freePort();
  const { lines } = await rsyslog(
    t,
    folder,
    `global(defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="${folder}/ca.pem" defaultNetstreamDriverCertFile="${folder}/server.pem" defaultNetstreamDriverKeyFile="${folder}/server.key")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" address="127.0.0.1" port="${port}")`,
  );
  const withTls = (tls: TlsSettings): SyslogStream => new SyslogStream(target(port, { transport: "tls", host: "localhost", tls }), render);
  const sink = withTls(pki.tls);
  t.after(() => sink.close());
  await sendTo(sink, batchOf(200));
  await until(() => lines().length >= 200, 10_000);
  assert.equal(new Set(lines().map((line) => /id="([^"]+)"/.exec(line)?.[1])).size, 200);
  // The server is believed only with the authority's certificate.
  const stranger = withTls({ ...pki.tls, caFile: undefined });
  t.after(() => stranger.close());
  const outcome = await stranger.send(batchOf(1), never);
  assert.ok(outcome.kind === "retry" && /verify|self.signed|issuer/.test(outcome.why), JSON.stringify(outcome));
});
