import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Fault } from "../../src/base/fault.ts";
import { openPassive, type PcapPackage, type PcapSession } from "../../src/capture/passive.ts";
import { ROOT, skip } from "../support/need.ts";

const none = (): void => {};

/** A package whose sessions are counted and say nothing unless told to. */
function fake(): {
  load: () => PcapPackage;
  sessions: { filter: string; closed: number; emit(bytes: Uint8Array): void }[];
  refuse: boolean;
  stuck: boolean;
} {
  const made: ReturnType<typeof fake> = {
    refuse: false,
    stuck: false,
    sessions: [],
    load: () => ({
      warningHandler: none,
      createSession(_device, options): PcapSession {
        if (made.refuse) throw new Error("no such device");
        let listener: Parameters<PcapSession["on"]>[1] = none;
        const s = {
          filter: String(options["filter"]),
          closed: 0,
          emit(bytes: Uint8Array) {
            const header = Buffer.alloc(16);
            header.writeUInt32LE(1_700_000_000, 0);
            header.writeUInt32LE(250_000, 4);
            header.writeUInt32LE(bytes.length, 8);
            listener({ buf: Buffer.from(bytes), header });
          },
        };
        made.sessions.push(s);
        return {
          link_type: "LINKTYPE_LINUX_SLL",
          on: (_event, l) => (listener = l),
          stats() {
            if (s.closed > 0 && !made.stuck) throw new Error("already closed");
            return { ps_recv: 0, ps_drop: 7 };
          },
          close: () => void s.closed++,
        };
      },
    }),
  };
  return made;
}

async function until(what: () => boolean, ms = 5000): Promise<void> {
  for (const end = Date.now() + ms; !what(); await sleep(5))
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what.toString()}`);
}

test("a missing package says how to install it", () => {
  const load = (): never => {
    throw new Fault("pcap-missing", "x", "npm install pcap");
  };
  assert.throws(
    () => openPassive({ filter: "", onPacket: none, onState: none, load }),
    (e) => e instanceof Fault && e.fix.includes("npm install"),
  );
});

test("a refused first session is a fault", () => {
  const pcap = fake();
  pcap.refuse = true;
  assert.throws(
    () => openPassive({ filter: "udp", onPacket: none, onState: none, load: pcap.load }),
    (e) => e instanceof Fault && e.code === "capture-refused",
  );
});

test("a session that goes silently dead is opened again, with back-off, and each is closed once", async () => {
  const pcap = fake();
  const said: string[] = [];
  const passive = openPassive({
    filter: "udp",
    onPacket: none,
    onState: (t) => said.push(t),
    load: pcap.load,
    heartbeatMs: 10,
    backoffMs: 20,
  });
  assert.match(pcap.sessions[0]?.filter ?? "", /^\(udp\) or \(udp and src host 127\.0\.0\.1 .*port 9\)$/);
  await until(() => passive.stats().reopened >= 1);
  pcap.refuse = true;
  await until(() => said.some((t) => t.includes("cannot be opened: no such device; opening it again in 80 ms")));
  assert.equal(passive.stats().open, false);
  pcap.refuse = false;
  await until(() => passive.stats().open);
  passive.close();
  passive.close();
  await sleep(20);
  assert.deepEqual(
    pcap.sessions.map((s) => s.closed),
    pcap.sessions.map(() => 1),
  );
  assert.ok(said.some((t) => t.includes("dead, its own canary was not seen")));
  assert.ok(said.some((t) => t === "capture: 7 packets lost, the ring was full"));
  assert.equal(passive.stats().dropped, 7 * pcap.sessions.length);
});

test("sessions that do not close are not piled up", async () => {
  const pcap = fake();
  pcap.stuck = true;
  const said: string[] = [];
  const passive = openPassive({ filter: "", onPacket: none, onState: (t) => said.push(t), load: pcap.load, heartbeatMs: 2, backoffMs: 1 });
  await until(() => said.some((t) => t.includes("8 sessions before it wait")));
  assert.equal(pcap.sessions.length, 8);
  pcap.stuck = false;
  await until(() => passive.stats().open);
  passive.close();
});

test("a session that sees packets is left alone; frames are unwrapped", async () => {
  const pcap = fake();
  const got: string[] = [];
  const passive = openPassive({
    filter: "",
    onPacket: (b, s, e, t, seen) => got.push(`${seen} ${t} ${Buffer.from(b.subarray(s, e)).toString("hex")}`),
    onState: none,
    load: pcap.load,
    heartbeatMs: 10,
    backoffMs: 10,
  });
  const frame = (type: number, ether: readonly number[]): Uint8Array =>
    Uint8Array.of(0, type, ...new Array<number>(12).fill(0), ...ether, 0x45, 1, 2);
  for (let i = 0; i < 15; i++) {
    pcap.sessions[0]?.emit(frame(0, [8, 6]));
    await sleep(5);
  }
  pcap.sessions[0]?.emit(frame(4, [8, 0]));
  pcap.sessions[0]?.emit(frame(3, [8, 0]));
  pcap.sessions[0]?.emit(frame(0, [8, 0]));
  assert.equal(pcap.sessions.length, 1);
  assert.deepEqual(
    got,
    ["out", "other", "in"].map((seen) => `${seen} 1700000000250 450102`),
  );
  assert.deepEqual(passive.stats(), { packets: 3, dropped: 7, skipped: 15, reopened: 0, open: true });
  passive.close();
});

function reasonToSkip(): string | false {
  const pcap = spawnSync(process.execPath, ["-e", "require('pcap')"], { cwd: ROOT }).status === 0;
  if (!pcap && process.env.CI === "true") throw new Error("under CI nothing installable may be missing: the package pcap is not built");
  return skip({ root: true, commands: ["unshare"] }) || (pcap ? false : "the package pcap is not built");
}

test("live, in a network namespace of its own", { skip: reasonToSkip() }, () => {
  const inside = join(dirname(fileURLToPath(import.meta.url)), "passive-inside.js");
  const run = spawnSync("unshare", ["-n", process.execPath, inside], { encoding: "utf8", timeout: 30_000 });
  assert.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  assert.equal(run.stdout, "seen and ended\n");
});
