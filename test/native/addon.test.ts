import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createSocket, type Socket } from "node:dgram";
import { closeSync, openSync, readdirSync, readlinkSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import {
  addon,
  HOLD,
  NetlinkProtocol,
  NfVerdict,
  type PacketQueue,
  type PacketQueueOptions,
  type QueueStats,
  RECORD_WORDS,
  RecordWord,
} from "../../src/base/addon.ts";
import type { QueueWork } from "./queueWorker.ts";

/**
 * The addon against the real kernel: the file runs itself again in a network namespace of its own (`unshare -n`), where
 * UDP over loopback goes through queues. Needs root.
 */
const INSIDE = process.env["NAMEGATE_TEST_NETNS"] === "1";

if (!INSIDE) {
  const root = process.getuid?.() === 0;
  test("the addon, in a network namespace", { skip: root ? false : "needs root (unshare -n)", timeout: 120_000 }, () => {
    const env: NodeJS.ProcessEnv = { ...process.env, NAMEGATE_TEST_NETNS: "1" };
    delete env["NODE_TEST_CONTEXT"];
    const file = fileURLToPath(import.meta.url);
    const run = spawnSync("unshare", ["-n", process.execPath, "--expose-gc", "--test-reporter=spec", file], { env, encoding: "utf8" });
    assert.equal(run.status, 0, `${run.stdout}\n${run.stderr}`);
    process.stdout.write(process.env["NAMEGATE_TEST_VERBOSE"] === "1" ? run.stdout : "");
  });
} else {
  describe("inside the namespace", { timeout: 100_000 }, inside);
}

const WATCHED_PORT = 7000;
const MARK = 0x40;

function options(queue: number, more: Partial<PacketQueueOptions> = {}): PacketQueueOptions {
  return {
    queue,
    copyRange: 2048,
    maxLength: 4096,
    receiveBuffer: 8 << 20,
    batch: 64,
    gso: true,
    failOpen: false,
    deadlineMs: 5000,
    deadlineVerdict: NfVerdict.drop,
    ...more,
  };
}

function output(...command: string[]): string {
  return execFileSync(command[0] as string, command.slice(1), { encoding: "utf8" });
}

function run(...command: string[]): void {
  execFileSync(command[0] as string, command.slice(1), { stdio: ["ignore", "ignore", "inherit"] });
}

/** Queues what goes to one UDP port. */
function rule(iptables: "iptables" | "ip6tables", port: number, queue: number): void {
  run(iptables, "-w", "-t", "mangle", "-A", "OUTPUT", "-p", "udp", "--dport", `${port}`, "-j", "NFQUEUE", "--queue-num", `${queue}`);
}

interface Sink {
  readonly socket: Socket;
  readonly got: string[];
  close(): void;
}

async function sink(port: number, type: "udp4" | "udp6" = "udp4"): Promise<Sink> {
  const socket = createSocket({ type, recvBufferSize: 64 << 20 });
  const got: string[] = [];
  socket.on("message", (message) => got.push(message.toString("latin1")));
  await new Promise<void>((done) => socket.bind(port, type === "udp4" ? "127.0.0.1" : "::1", done));
  return { socket, got, close: () => socket.close() };
}

async function until(what: string, condition: () => boolean, ms = 3000): Promise<void> {
  for (const end = performance.now() + ms; !condition(); await sleep(2)) {
    if (performance.now() > end) assert.fail(`${what}: not within ${ms} ms`);
  }
}

/** The UDP payload of packet `i` of the batch in hand (IPv4 without options, or IPv6 without extensions). */
function payload(queue: PacketQueue, i: number): string {
  const offset = queue.records[i * RECORD_WORDS + RecordWord.offset] as number;
  const length = queue.records[i * RECORD_WORDS + RecordWord.length] as number;
  const header = (queue.packets[offset] as number) >> 4 === 4 ? 28 : 48;
  return Buffer.from(queue.packets.subarray(offset + header, offset + length)).toString("latin1");
}

const word = (queue: PacketQueue, i: number, which: keyof typeof RecordWord) =>
  queue.records[i * RECORD_WORDS + RecordWord[which]] as number;

function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] as number) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** A UDP packet over IPv4 from 127.0.0.1 to itself, without a UDP checksum. */
function udp4(source: number, destination: number, text: string): Buffer {
  const packet = Buffer.alloc(28 + text.length);
  packet.set([0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt16BE(checksum(packet.subarray(0, 20)), 10);
  packet.writeUInt16BE(source, 20);
  packet.writeUInt16BE(destination, 22);
  packet.writeUInt16BE(8 + text.length, 24);
  packet.write(text, 28, "latin1");
  return packet;
}

function udp6(source: number, destination: number, text: string): Buffer {
  const packet = Buffer.alloc(48 + text.length);
  packet[0] = 0x60;
  packet.writeUInt16BE(8 + text.length, 4);
  packet.set([17, 64], 6);
  packet[23] = packet[39] = 1;
  packet.writeUInt16BE(source, 40);
  packet.writeUInt16BE(destination, 42);
  packet.writeUInt16BE(8 + text.length, 44);
  packet.write(text, 48, "latin1");
  const pseudo = Buffer.concat([packet.subarray(8, 40), Buffer.from([0, 0, 0, 8 + text.length, 0, 0, 0, 17]), packet.subarray(40)]);
  packet.writeUInt16BE(checksum(pseudo) || 0xffff, 46);
  return packet;
}

async function worker(
  work: QueueWork,
): Promise<{ worker: Worker; batches: () => number; look: () => Promise<{ stats: QueueStats; events: string[] }> }> {
  const thread = new Worker(new URL("./queueWorker.js", import.meta.url), { workerData: work });
  let packets = 0;
  thread.on("message", (message: { batch?: number }) => {
    packets += message.batch ?? 0;
  });
  await new Promise<void>((done, fail) => {
    thread.once("message", () => done());
    thread.once("error", fail);
  });
  const look = () =>
    new Promise<{ stats: QueueStats; events: string[] }>((done) => {
      const listen = (message: { stats?: QueueStats }) => {
        if (message.stats === undefined) return;
        thread.off("message", listen);
        done(message as { stats: QueueStats; events: string[] });
      };
      thread.on("message", listen);
      thread.postMessage("look");
    });
  return { worker: thread, batches: () => packets, look };
}

function inside(): void {
  let client: Socket;
  const { PacketQueue: Queue, NetlinkSocket, RawSender } = addon();
  const send = (text: string, port: number) => client.send(text, port, "127.0.0.1");
  const lost: string[] = [];
  const onLost = (what: string, detail: string) => lost.push(`${what}: ${detail}`);

  before(async () => {
    run("ip", "link", "set", "lo", "up");
    client = createSocket("udp4");
    await new Promise<void>((done) => client.bind(0, "127.0.0.1", done));
    for (let i = 0; i < 10; i++) rule("iptables", WATCHED_PORT + i, i);
    rule("ip6tables", WATCHED_PORT, 0);
  });
  after(() => client.close());

  test("accept, drop and an untouched verdict", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    const seen: string[] = [];
    queue.start((count) => {
      for (let i = 0; i < count; i++) {
        const text = payload(queue, i);
        seen.push(text);
        assert.equal(queue.verdicts[2 * i], NfVerdict.drop, "prefilled");
        assert.equal(word(queue, i, "hook"), (3 << 16) | 0x800);
        assert.equal(word(queue, i, "outdev"), 1);
        assert.equal(word(queue, i, "fullLength"), 28 + text.length);
        if (text.startsWith("accept")) queue.verdicts[2 * i] = NfVerdict.accept;
        if (text.startsWith("drop")) queue.verdicts[2 * i] = NfVerdict.drop;
      }
    }, onLost);
    for (const text of ["accept 1", "drop", "nothing", "accept 2"]) send(text, WATCHED_PORT);
    await until("both", () => to.got.length === 2 && seen.length === 4);
    await sleep(20);
    assert.deepEqual(to.got, ["accept 1", "accept 2"]);
    const { received, settled, held, gaps, late } = queue.stats();
    assert.deepEqual({ received, settled, held, gaps, late }, { received: 4, settled: 4, held: 0, gaps: 0, late: 0 });
    queue.close();
    queue.close();
    to.close();
  });

  test("IPv6, and a copy range that cuts", async () => {
    const to = await sink(WATCHED_PORT, "udp6");
    const queue = new Queue(options(0, { copyRange: 60 }));
    const seen: number[] = [];
    queue.start((count) => {
      for (let i = 0; i < count; i++) {
        seen.push(word(queue, i, "length"), word(queue, i, "fullLength"), word(queue, i, "hook"));
        queue.verdicts[2 * i] = NfVerdict.accept;
      }
    }, onLost);
    const from = createSocket("udp6");
    from.send("x".repeat(500), WATCHED_PORT, "::1");
    await until("the packet", () => to.got.length === 1);
    assert.equal(to.got[0]?.length, 500);
    assert.deepEqual(seen, [60, 548, (3 << 16) | 0x86dd]);
    from.close();
    queue.close();
    to.close();
  });

  test("repeat with a mark: the rule in front of the queue sees it", async () => {
    const to = await sink(WATCHED_PORT + 1);
    run("iptables", "-w", "-t", "mangle", "-I", "OUTPUT", "-m", "mark", "--mark", `${MARK}/${MARK}`, "-j", "ACCEPT");
    const queue = new Queue(options(1));
    let calls = 0;
    queue.start((count) => {
      calls += count;
      for (let i = 0; i < count; i++) {
        queue.verdicts[2 * i] = NfVerdict.repeat;
        queue.verdicts[2 * i + 1] = MARK;
      }
    }, onLost);
    send("again", WATCHED_PORT + 1);
    await until("the packet", () => to.got.length === 1);
    assert.equal(calls, 1, "one queue trip");
    queue.close();
    to.close();
  });

  test("what is released in the callback is on its way before it ends, and once", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    const settled: number[] = [];
    let held = 0;
    queue.start((count) => {
      for (let i = 0; i < count; i++) {
        const hold = payload(queue, i) === "held";
        if (hold) held = word(queue, i, "id");
        queue.verdicts[2 * i] = hold ? HOLD : NfVerdict.accept;
      }
      const before = queue.stats().settled;
      queue.release();
      settled.push(queue.stats().settled - before);
      assert.throws(() => queue.replace(0, new Uint8Array(1)), RangeError, "nothing is in hand");
      for (let i = 0; i < count; i++) queue.verdicts[2 * i] = NfVerdict.drop;
      queue.release();
    }, onLost);
    for (const text of ["one", "held", "two"]) send(text, WATCHED_PORT);
    await until("two, and one held", () => to.got.length === 2 && held !== 0);
    assert.equal(
      settled.reduce((a, b) => a + b),
      2,
    );
    assert.equal(queue.stats().held, 1);
    assert.equal(queue.stats().unknown, 0);
    queue.settle(held, NfVerdict.accept, 0);
    await until("three", () => to.got.length === 3);
    queue.release();
    queue.close();
    to.close();
  });

  test("replace and settle with other bytes, longer and shorter", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    let held = 0;
    queue.start((count) => {
      for (let i = 0; i < count; i++) {
        const text = payload(queue, i);
        queue.verdicts[2 * i] = NfVerdict.accept;
        if (text === "later") {
          held = word(queue, i, "id");
          queue.verdicts[2 * i] = HOLD;
        } else if (text !== "same")
          queue.replace(i, udp4(client.address().port, WATCHED_PORT, text === "a" ? "longer than before".repeat(50) : "s"));
      }
      assert.throws(() => queue.replace(count, new Uint8Array(1)), RangeError);
    }, onLost);
    for (const text of ["a", "same", "shorter", "later"]) send(text, WATCHED_PORT);
    await until("three", () => to.got.length === 3 && held !== 0);
    assert.deepEqual(to.got, ["longer than before".repeat(50), "same", "s"]);
    assert.equal(queue.stats().held, 1);
    queue.settle(held, NfVerdict.accept, 0, udp4(client.address().port, WATCHED_PORT, "changed"));
    await until("four", () => to.got.length === 4);
    assert.equal(to.got[3], "changed");
    assert.throws(() => queue.replace(0, new Uint8Array(1)), RangeError, "outside of the callback");
    queue.close();
    to.close();
  });

  test("hold in any order; unknown ids and wrong verdicts harm nobody", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    const held = new Map<string, number>();
    queue.start((count) => {
      for (let i = 0; i < count; i++) {
        held.set(payload(queue, i), word(queue, i, "id"));
        queue.verdicts[2 * i] = HOLD;
      }
    }, onLost);
    for (const text of ["a", "b", "c", "d"]) send(text, WATCHED_PORT);
    await until("all held", () => held.size === 4);
    for (const text of ["c", "a", "d"]) queue.settle(held.get(text) as number, text === "a" ? NfVerdict.drop : NfVerdict.accept, 0);
    queue.settle(held.get("c") as number, NfVerdict.accept, 0);
    queue.settle(0xfffffff0, NfVerdict.accept, 0);
    assert.throws(() => queue.settle(held.get("b") as number, 7, 0), RangeError);
    await until("two", () => to.got.length === 2);
    assert.deepEqual(to.got, ["c", "d"]);
    const { held: outstanding, unknown } = queue.stats();
    assert.deepEqual({ outstanding, unknown }, { outstanding: 1, unknown: 2 });
    queue.close();
    to.close();
  });

  test("a callback that throws is reported; what it had decided holds, the rest gets the deadline's verdict", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    const reports: string[] = [];
    queue.start(
      (count) => {
        for (let i = 0; i < count; i++) {
          if (payload(queue, i) === "bad") throw new TypeError("broken on purpose");
          queue.verdicts[2 * i] = payload(queue, i) === "nonsense" ? 99 : NfVerdict.accept;
        }
      },
      (what, detail) => {
        reports.push(`${what}: ${detail}`);
        throw new Error("and so is the reporter");
      },
    );
    send("good", WATCHED_PORT);
    await until("good", () => to.got.length === 1);
    send("bad", WATCHED_PORT);
    await until("the report", () => reports.length === 1);
    send("nonsense", WATCHED_PORT);
    await until("the report", () => reports.length === 2);
    send("good", WATCHED_PORT);
    await until("good again", () => to.got.length === 2);
    assert.equal(reports[0], "fault: TypeError: broken on purpose");
    assert.match(reports[1] as string, /^fault: a verdict is neither/);
    assert.deepEqual(queue.stats().held, 0);
    queue.close();
    to.close();
  });

  test("microtasks run, and may settle, before the next batch", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    queue.start((count) => {
      for (let i = 0; i < count; i++) {
        queue.verdicts[2 * i] = HOLD;
        const id = word(queue, i, "id");
        void Promise.resolve().then(() => queue.settle(id, NfVerdict.accept, 0));
      }
    }, onLost);
    send("soon", WATCHED_PORT);
    await until("the packet", () => to.got.length === 1);
    queue.close();
    to.close();
  });

  test("close in the callback: its verdicts come first, what is held gets the deadline's", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0, { deadlineVerdict: NfVerdict.accept, batch: 1 }));
    let calls = 0;
    queue.start(() => {
      queue.verdicts[0] = calls++ === 0 ? HOLD : NfVerdict.drop;
      if (calls === 2) queue.close();
    }, onLost);
    for (const text of ["held", "dropped", "waiting"]) send(text, WATCHED_PORT);
    await until("two", () => to.got.length === 2);
    assert.deepEqual(to.got, ["held", "waiting"]);
    assert.throws(() => queue.start(() => {}, onLost), { code: "EBADF" });
    to.close();
  });

  test("a second owner gets EBUSY, also from another thread's socket", async () => {
    const first = new Queue(options(0));
    assert.throws(() => new Queue(options(0)), { code: "EBUSY", syscall: "nfqueue bind" });
    first.close();
    new Queue(options(0)).close();
  });

  test("without CAP_NET_ADMIN it is EPERM", () => {
    const code = `
      import { addon } from ${JSON.stringify(new URL("../../src/base/addon.js", import.meta.url).href)};
      try { new (addon().PacketQueue)(${JSON.stringify(options(9))}); } catch (error) { process.stdout.write(error.code); }`;
    const child = spawnSync("setpriv", ["--bounding-set=-net_admin", process.execPath, "--input-type=module", "-e", code], {
      encoding: "utf8",
    });
    assert.equal(child.stdout, "EPERM", child.stderr);
  });

  test("wrong options are refused by name", () => {
    for (const [name, value] of Object.entries({
      queue: 65536,
      copyRange: 70000,
      maxLength: 0,
      batch: 65,
      deadlineMs: 0,
      deadlineVerdict: 4,
      gso: 1,
    })) {
      assert.throws(() => new Queue({ ...options(0), [name]: value } as PacketQueueOptions), new RegExp(name), name);
    }
    assert.throws(() => (Queue as unknown as () => void)(), TypeError);
  });

  test("the watchdog settles what is held for too long, and says so", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0, { deadlineMs: 60, deadlineVerdict: NfVerdict.accept }));
    const reports: string[] = [];
    queue.start(
      (count) => {
        for (let i = 0; i < count; i++) queue.verdicts[2 * i] = HOLD;
      },
      (what, detail) => reports.push(`${what}: ${detail}`),
    );
    const start = performance.now();
    send("late", WATCHED_PORT);
    await until("the packet", () => to.got.length === 1);
    const waited = performance.now() - start;
    assert.ok(waited > 40 && waited < 500, `${waited} ms`);
    await until("the report", () => reports.length === 1);
    assert.equal(reports[0], "watchdog: 1 packets settled by the watchdog");
    const { late, settled, held } = queue.stats();
    assert.deepEqual({ late, settled, held }, { late: 1, settled: 1, held: 0 });
    queue.close();
    to.close();
  });

  test("a blocked worker: its batch and what waits unread are settled by the watchdog", async () => {
    const to = await sink(WATCHED_PORT + 2);
    const it = await worker({
      options: options(2, { deadlineMs: 100, deadlineVerdict: NfVerdict.accept }),
      behave: "block",
      blockMs: 1500,
    });
    const start = performance.now();
    send("first", WATCHED_PORT + 2);
    await sleep(50);
    for (let i = 0; i < 200; i++) send(`waiting ${i}`, WATCHED_PORT + 2);
    await until("all", () => to.got.length === 201, 1400);
    assert.ok(performance.now() - start < 1400, "before the worker came back");
    const { stats, events } = await it.look();
    assert.equal(stats.late, 201);
    assert.equal(stats.held, 0);
    assert.equal(stats.gaps, 0);
    assert.ok(
      events.some((event) => event.startsWith("watchdog")),
      events.join(),
    );
    await it.worker.terminate();
    to.close();
  });

  test("two workers, one terminated while it holds packets; the queue can be bound again at once", async () => {
    const a = await sink(WATCHED_PORT + 3);
    const b = await sink(WATCHED_PORT + 4);
    const one = await worker({ options: options(3), behave: "hold", blockMs: 0 });
    const two = await worker({ options: options(4), behave: "accept", blockMs: 0 });
    for (let i = 0; i < 50; i++) {
      send(`${i}`, WATCHED_PORT + 3);
      send(`${i}`, WATCHED_PORT + 4);
    }
    await until("both", () => one.batches() === 50 && b.got.length === 50);
    assert.equal((await one.look()).stats.held, 50);
    await one.worker.terminate();
    const again = new Queue(options(3));
    again.start((count) => again.verdicts.fill(NfVerdict.accept, 0, 2 * count), onLost);
    send("after", WATCHED_PORT + 3);
    send("after", WATCHED_PORT + 4);
    await until("after", () => a.got.length === 1 && b.got.length === 51);
    assert.deepEqual(a.got, ["after"], "what was held has been dropped");
    again.close();
    await two.worker.terminate();
    a.close();
    b.close();
  });

  test("workers that come and go, some in the middle of a block", async () => {
    for (let i = 0; i < 8; i++) {
      const it = await worker({ options: options(5, { deadlineMs: 50 }), behave: i % 2 === 0 ? "block" : "hold", blockMs: 30 });
      for (let n = 0; n < 20; n++) send("x", WATCHED_PORT + 5);
      await sleep(i * 5);
      await it.worker.terminate();
    }
  });

  test("50 000 packets in batches, none lost", async () => {
    const total = 50_000;
    const queue = new Queue(options(6, { maxLength: 16_384, receiveBuffer: 64 << 20, deadlineMs: 30_000 }));
    let seen = 0;
    let batches = 0;
    queue.start((count) => {
      seen += count;
      batches++;
      for (let i = 0; i < count; i++) queue.verdicts[2 * i] = NfVerdict.drop;
    }, onLost);
    const from = createSocket("udp4");
    await new Promise<void>((done) => from.bind(0, "127.0.0.1", done));
    from.connect(WATCHED_PORT + 6, "127.0.0.1");
    await new Promise<void>((done) => from.once("connect", done));
    // Bursts far above a batch, below the queue's length.
    for (let sent = 0; sent < total; ) {
      for (let i = 0; i < 5000; i++, sent++) from.send("flood");
      await until("burst", () => seen === sent, 10_000);
    }
    const { received, settled, held, gaps, enobufs } = queue.stats();
    assert.deepEqual({ received, settled, held, gaps, enobufs }, { received: total, settled: total, held: 0, gaps: 0, enobufs: 0 });
    assert.ok(batches < total / 8, `${batches} batches`);
    from.close();
    queue.close();
  });

  test("packets that do not fit are counted as gaps", async () => {
    const queue = new Queue(options(7, { receiveBuffer: 16 << 10, batch: 8 }));
    const reports: string[] = [];
    let seen = 0;
    queue.start(
      (count) => {
        seen += count;
      },
      (what) => reports.push(what),
    );
    for (let i = 0; i < 300; i++) send("x".repeat(400), WATCHED_PORT + 7);
    // Nobody reads while this loop runs: sends of node:dgram go out at once.
    await until("some", () => seen > 0);
    await sleep(50);
    send("one more, which shows the hole", WATCHED_PORT + 7);
    await until("the report", () => reports.includes("gap"));
    const { received, gaps } = queue.stats();
    assert.equal(received + gaps, 301);
    queue.close();
  });

  test("a failed socket: reported, opened again with back-off, old ids stay unknown", async () => {
    const to = await sink(WATCHED_PORT + 8);
    const before = new Set(sockets());
    const queue = new Queue(options(8, { deadlineMs: 40 }));
    const fd = sockets().find((name) => !before.has(name));
    assert.ok(fd !== undefined);
    const ids: number[] = [];
    const reports: string[] = [];
    queue.start(
      (count) => {
        for (let i = 0; i < count; i++) {
          ids.push(word(queue, i, "id"));
          queue.verdicts[2 * i] = NfVerdict.accept;
        }
      },
      (what, detail) => reports.push(`${what}: ${detail}`),
    );
    send("before", WATCHED_PORT + 8);
    await until("before", () => to.got.length === 1);
    // The kernel gives the lowest free number: the file takes the socket's place, readable and never a socket.
    closeSync(Number(fd));
    assert.equal(openSync("/dev/null", "r"), Number(fd));
    await until("bound again", () => reports.includes("rebind: bound again"));
    send("after", WATCHED_PORT + 8);
    await until("after", () => to.got.length === 2);
    assert.deepEqual(ids, [1, 2], "ids go on");
    assert.match(reports[0] as string, /^rebind: the socket failed/);
    assert.equal(queue.stats().rebinds, 1);
    queue.close();
    to.close();
  });

  test("memory that was transferred away closes the queue and drops the batch", async () => {
    const to = await sink(WATCHED_PORT);
    const queue = new Queue(options(0));
    const reports: string[] = [];
    queue.start(
      (count) => {
        queue.verdicts.fill(NfVerdict.accept, 0, 2 * count);
        structuredClone(queue.packets.buffer, { transfer: [queue.packets.buffer as ArrayBuffer] });
      },
      (what, detail) => reports.push(`${what}: ${detail}`),
    );
    send("x", WATCHED_PORT);
    await until("the report", () => reports.length === 1);
    assert.match(reports[0] as string, /^fault: the packet memory was transferred/);
    await sleep(20);
    assert.deepEqual(to.got, []);
    new Queue(options(0)).close();
    to.close();
  });

  test("queues that nobody started or closed are collected", async () => {
    const collect = (globalThis as { gc?: () => void }).gc;
    assert.ok(collect !== undefined);
    for (let i = 0; i < 20; i++) new Queue(options(100 + i));
    for (let i = 0; i < 20; i++) {
      collect();
      await sleep(5);
    }
    for (let i = 0; i < 20; i++) new Queue(options(100 + i)).close();
  });

  test("a netlink transaction: one ACK a message, also of a refused one, at an offset of a larger array", () => {
    const socket = new NetlinkSocket({ receiveBuffer: 1 << 20 });
    const request = new Uint8Array(100);
    const view = new DataView(request.buffer);
    const put = (at: number, type: number, seq: number) => {
      view.setUint32(at, 20, true);
      view.setUint16(at + 4, type, true);
      view.setUint16(at + 6, 5, true); // NLM_F_REQUEST | NLM_F_ACK
      view.setUint32(at + 8, seq, true);
    };
    put(8, 60 << 8, 1); // no such subsystem
    put(28, 61 << 8, 2);
    const reply = new Uint8Array(256).subarray(3);
    for (let i = 0; i < 50; i++) {
      const bytes = socket.transact(request.subarray(8), 40, reply, 2);
      assert.equal(bytes, 72);
      const answer = new DataView(reply.buffer, reply.byteOffset, bytes);
      assert.deepEqual([answer.getUint16(4, true), answer.getUint32(8, true), answer.getInt32(16, true)], [2, 1, -22]);
      assert.deepEqual([answer.getUint32(36 + 8, true), answer.getInt32(36 + 16, true)], [2, -22]);
    }
    assert.throws(() => socket.transact(request.subarray(8), 40, reply.subarray(0, 40), 2), { code: "EMSGSIZE" });
    assert.equal(socket.transact(request.subarray(8), 20, reply, 1), 36, "nothing is left over from the failure");
    const start = performance.now();
    assert.throws(() => socket.transact(request.subarray(8), 20, reply, 2), { code: "ETIMEDOUT" });
    assert.ok(performance.now() - start > 900);
    assert.throws(() => socket.transact(request, 101, reply, 1), RangeError);
    assert.throws(() => socket.transact(new Uint16Array(4) as unknown as Uint8Array, 1, reply, 1), TypeError);
    assert.throws(() => NetlinkSocket.prototype.receive.call({}, reply), TypeError);
    socket.close();
    socket.close();
    assert.throws(() => socket.transact(request, 20, reply, 1), { code: "EBADF" });
  });

  test("another protocol: the link table knows the loopback interface", () => {
    const socket = new NetlinkSocket({ protocol: NetlinkProtocol.route });
    const request = new Uint8Array(32);
    const view = new DataView(request.buffer);
    view.setUint32(0, 32, true);
    view.setUint16(4, 18, true); // RTM_GETLINK
    view.setUint16(6, 5, true);
    view.setUint32(8, 1, true);
    view.setInt32(20, 1, true); // its index
    const reply = new Uint8Array(32_768);
    const bytes = socket.transact(request, 32, reply, 1);
    assert.equal(new DataView(reply.buffer).getUint16(4, true), 16); // RTM_NEWLINK
    assert.ok(Buffer.from(reply.buffer, 0, bytes).includes("lo\0"));
    socket.close();
    assert.throws(() => new NetlinkSocket({ protocol: 31 }), { code: "EPROTONOSUPPORT" });
    assert.throws(() => new NetlinkSocket({ protocol: 32 }), RangeError);
  });

  test("a dump: send, then receive until NLMSG_DONE", () => {
    const socket = new NetlinkSocket();
    const request = new Uint8Array(20);
    const view = new DataView(request.buffer);
    view.setUint32(0, 20, true);
    view.setUint16(4, (1 << 8) | 1, true); // ctnetlink: IPCTNL_MSG_CT_GET
    view.setUint16(6, 0x301, true); // NLM_F_REQUEST | NLM_F_DUMP
    socket.send(request, 20);
    const reply = new Uint8Array(32_768);
    let done = false;
    for (let i = 0; i < 1000 && !done; i++) {
      const bytes = socket.receive(reply);
      const answer = new DataView(reply.buffer, 0, bytes);
      for (let at = 0; at < bytes; at += (answer.getUint32(at, true) + 3) & ~3) done ||= answer.getUint16(at + 4, true) === 3;
    }
    assert.ok(done);
    socket.close();
  });

  test("raw packets, IPv4 and IPv6, with a mark that rules can see", async () => {
    const four = await sink(7100);
    const six = await sink(7100, "udp6");
    run("iptables", "-w", "-A", "OUTPUT", "-p", "udp", "--dport", "7100", "-m", "mark", "!", "--mark", "0x20/0x20", "-j", "DROP");
    run("ip6tables", "-w", "-A", "OUTPUT", "-p", "udp", "--dport", "7100", "-m", "mark", "!", "--mark", "0x20/0x20", "-j", "DROP");
    const sender = new RawSender();
    const padded = Buffer.concat([udp4(53, 7100, "four"), Buffer.alloc(10)]);
    sender.send(padded, padded.length - 10, 0x20);
    sender.send(udp6(53, 7100, "six"), 51, 0x20);
    assert.throws(() => sender.send(udp4(53, 7100, "unmarked"), 36, 0), { code: "EPERM", syscall: "sendto" });
    sender.send(udp4(53, 7100, "marked"), 34, 0x20);
    await until("three", () => four.got.length === 2 && six.got.length === 1);
    assert.deepEqual([...four.got, ...six.got], ["four", "marked", "six"]);
    assert.throws(() => sender.send(new Uint8Array([0x45]), 1, 0), { code: "EINVAL" });
    assert.throws(() => sender.send(new Uint8Array(40), 40, 0), { code: "EINVAL" });
    sender.close();
    four.close();
    six.close();
  });

  test("a frame goes out of one end of a veth pair and comes in at the other", async () => {
    run("ip", "link", "add", "fr0", "type", "veth", "peer", "name", "fr1");
    for (const end of ["fr0", "fr1"]) run("ip", "link", "set", end, "up");
    const counted = (): number => {
      const [link] = JSON.parse(output("ip", "-j", "-s", "link", "show", "dev", "fr1")) as { stats64: { rx: { bytes: number } } }[];
      return link?.stats64.rx.bytes ?? -1;
    };
    const index = Number(/^(\d+):/.exec(output("ip", "-o", "link", "show", "dev", "fr0"))?.[1]);
    const frame = Buffer.alloc(2000);
    frame.writeUInt16BE(0x88b5, 12); // IEEE 802 local experimental
    const before = { sockets: sockets().length, bytes: counted() };
    const sender = new RawSender();
    sender.frame(index, frame, 1000);
    await until("the frame", () => counted() >= before.bytes + 1000);
    sender.frame(index, frame, 1000);
    // A program that was run just now may still have its pipes here, which are sockets too.
    await until("one socket for all frames", () => sockets().length === before.sockets + 1);
    assert.throws(() => sender.frame(99_999, frame, 100), { code: "ENXIO", syscall: "sendto" });
    assert.throws(() => sender.frame(0, frame, 100), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => sender.frame(index, frame, 2001), { code: "ERR_OUT_OF_RANGE" });
    assert.throws(() => sender.frame(index, frame, 2000), { code: "EMSGSIZE" });
    sender.close();
    await until("nothing stays open", () => sockets().length === before.sockets);
  });
}

/** Numbers of this process's sockets. */
function sockets(): string[] {
  return readdirSync("/proc/self/fd").filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).startsWith("socket:");
    } catch {
      return false;
    }
  });
}
