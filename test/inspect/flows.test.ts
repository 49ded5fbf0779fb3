import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeIp, newPacket } from "../../src/capture/decode.ts";
import type { Flow, Judge, Ruling, Waiting } from "../../src/inspect/flow.ts";
import type { Desk, Fate, Opened, Reason } from "../../src/inspect/flow-desk.ts";
import { FLOW_LIMITS, type FlowLimits } from "../../src/inspect/flow-store.ts";
import { Flows } from "../../src/inspect/flows.ts";
import { TcpFlag } from "../../src/model/packet.ts";
import type { Evidence } from "../../src/model/verdict.ts";
import { ip4, tcp, text, udp } from "../capture/build.ts";
import { HELLOS } from "./hellos.ts";

const HELLO = new Uint8Array(Buffer.from(HELLOS.openssl13.hex, "hex"));
const NAME = "api.example.com";
const POD = { name: "pod" };
const CLIENT = "10.0.0.1";
const SERVER = "192.0.2.1";
const BEGIN = 0xfffffff0; // sequence numbers wrap
const SERVER_BEGIN = 5000;

/** Everything around an engine: a rule that wants TLS for NAME, a clock, and what became of each packet. */
class World implements Desk<object> {
  readonly flows: Flows<object>;
  readonly application: string;
  readonly serverName: string;
  now = 0;
  next = 1;
  /** By id: every fate, in order. `hold` is not one. */
  readonly fates = new Map<number, Fate[]>();
  readonly verdicts: string[] = [];
  readonly resets: string[] = [];
  readonly counted: string[] = [];
  readonly order: number[] = [];

  constructor(limits: Partial<FlowLimits> = {}, application = "tls", serverName: string = NAME) {
    this.flows = new Flows(this, { ...FLOW_LIMITS, ...limits });
    this.application = application;
    this.serverName = serverName;
  }

  judge(): Judge {
    return {
      rule: ({ application, serverName, evasion }: Evidence): Ruling => {
        const named = this.serverName === "" || serverName === this.serverName;
        const allow = application === this.application && named && evasion === undefined;
        return { allow, detail: allow ? "allow" : `${application}/${serverName}${evasion === undefined ? "" : "/evasion"}` };
      },
      applications: () => [this.application],
      proxied: () => false,
    };
  }
  /** Where the kernel has seen the stream begin. */
  begins: number | undefined;
  opened(): Opened | undefined {
    return this.begins === undefined ? undefined : { begins: this.begins, replaced: false };
  }
  settle(_flow: Flow<object>, { id }: Waiting, fate: Fate): void {
    this.fate(id, fate);
  }
  ruled(_flow: Flow<object>, { detail }: Ruling): void {
    this.verdicts.push(detail as string);
  }
  refused(_flow: Flow<object>, why: Reason): void {
    this.verdicts.push(why);
  }
  reset(_flow: Flow<object>, end: string, sequence: number): void {
    this.resets.push(`${end} ${(sequence - (end === "server" ? BEGIN : 0)) >>> 0}`);
  }
  count(what: string): void {
    this.counted.push(what);
  }
  fate(id: number, fate: Fate): void {
    if (fate === "hold") return;
    this.fates.set(id, [...(this.fates.get(id) ?? []), fate]);
    this.order.push(id);
  }

  client(
    at: number,
    bytes: Uint8Array,
    { flags = 16 as number, port = 40_000, watch = false, to = SERVER, owner = POD as object } = {},
  ): Fate {
    const raw = ip4(
      { protocol: 6, source: CLIENT, destination: to },
      tcp({ from: port, to: 443, seq: (BEGIN + at) >>> 0, ack: SERVER_BEGIN, flags }, bytes),
    );
    return this.give(raw, watch, owner);
  }
  datagram(bytes: Uint8Array, port = 40_000): Fate {
    return this.give(ip4({ protocol: 17, source: CLIENT, destination: SERVER }, udp(port, 443, bytes)), false, POD);
  }
  private give(raw: Uint8Array, watch: boolean, owner: object): Fate {
    const packet = newPacket();
    assert.ok(decodeIp(raw, 0, raw.length, packet));
    const id = this.next++;
    const fate = this.flows.fromClient(owner, packet, id, 0, watch, this.now);
    this.fate(id, fate);
    return fate;
  }
  server(
    acknowledged: number,
    bytes: Uint8Array = new Uint8Array(0),
    { at = 0, flags = 16 as number, port = 40_000, watch = false } = {},
  ): Fate {
    const raw = ip4(
      { protocol: 6, source: SERVER, destination: CLIENT },
      tcp({ from: 443, to: port, seq: SERVER_BEGIN + at, ack: (BEGIN + acknowledged) >>> 0, flags }, bytes),
    );
    const packet = newPacket();
    assert.ok(decodeIp(raw, 0, raw.length, packet));
    return this.flows.fromServer(POD, packet, watch, this.now);
  }
  later(ms: number): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.now = Math.min(end, this.now + 20);
      this.flows.sweep(this.now);
    }
  }
  /** Every packet that came was settled once. */
  check(): void {
    assert.equal(this.flows.load.held, 0);
    for (let id = 1; id < this.next; id++) assert.equal(this.fates.get(id)?.length, 1, `packet ${id}`);
  }
}

const evil = (bytes: Uint8Array): Uint8Array =>
  new Uint8Array(Buffer.from(Buffer.from(bytes).toString("latin1").replace(NAME, "api.exbmple.com"), "latin1"));

test("a hello in one segment goes on at once, and passes when the server has it", () => {
  const it = new World();
  assert.equal(it.client(0, HELLO), "confirm");
  assert.deepEqual(it.verdicts, ["allow"]);
  assert.equal(it.server(HELLO.length - 1), "go", "not all of it");
  assert.equal(it.client(HELLO.length, text("more")), "reopen", "the server's acknowledgement is late, or came with an answer");
  assert.equal(it.server(HELLO.length), "pass");
  assert.equal(it.client(HELLO.length + 4, text("queued")), "ask");
  assert.equal(it.client(HELLO.length + 4, text("queued")), "hold", "the kernel does not know it: another connection");
  it.later(10_000);
  assert.deepEqual(it.verdicts, ["allow", "undefined/undefined"]);
  assert.equal(it.flows.load.size, 0);
});

test("every split of a hello, forwards and backwards: held, then released in order", () => {
  for (let cut = 1; cut < HELLO.length; cut++) {
    for (const reversed of [false, true]) {
      const it = new World();
      const parts = [
        [0, HELLO.subarray(0, cut)],
        [cut, HELLO.subarray(cut)],
      ] as const;
      const [one, two] = reversed ? [parts[1], parts[0]] : parts;
      const where = `${cut} ${reversed}`;
      assert.equal(it.client(one[0], one[1]), "hold", where);
      assert.equal(it.client(two[0], two[1]), "confirm", where);
      assert.deepEqual(it.verdicts, ["allow"], where);
      assert.equal(it.server(HELLO.length), "pass", where);
      it.check();
    }
  }
});

test("byte by byte: what is legal so far goes on when the window would be full, and the pass comes all the same", () => {
  const it = new World();
  for (let i = 0; i < HELLO.length; i++) it.client(i, HELLO.subarray(i, i + 1));
  assert.deepEqual(it.verdicts, ["allow"]);
  assert.equal(it.server(HELLO.length), "pass");
  it.check();
});

test("a client that waits for the server gets what it has said through after a moment", () => {
  const it = new World();
  assert.equal(it.client(0, HELLO.subarray(0, 100)), "hold");
  it.later(20);
  assert.equal(it.fates.size, 0);
  it.later(40);
  assert.deepEqual(it.fates.get(1), ["go"]);
  assert.equal(it.client(100, HELLO.subarray(100)), "confirm");
  assert.equal(it.server(HELLO.length), "pass");
  it.check();
});

test("the wrong name: the segment in hand is answered, what was held is dropped, the server is reset where it stands", () => {
  const it = new World();
  const bytes = evil(HELLO);
  assert.equal(it.client(0, bytes.subarray(0, 100)), "hold");
  it.later(60);
  assert.equal(it.client(100, bytes.subarray(100, 200)), "hold");
  assert.equal(it.client(200, bytes.subarray(200)), "deny");
  assert.deepEqual(it.fates.get(2), ["drop"]);
  assert.deepEqual(it.resets, ["server 100"]);
  assert.equal(it.client(bytes.length, text("rest")), "drop");
  assert.equal(it.server(100, text("late")), "drop");
  assert.deepEqual(it.verdicts, ["tls/api.exbmple.com"]);
  it.check();
});

test("a decoy that the server never acknowledges, and then the real bytes: evasion", () => {
  const it = new World();
  assert.equal(it.client(0, HELLO), "confirm");
  assert.equal(it.server(0), "go");
  assert.equal(it.client(0, evil(HELLO)), "deny");
  assert.deepEqual([it.verdicts, it.resets], [["allow", "evasion"], ["server 0"]]);
  assert.equal(it.server(HELLO.length), "drop");
});

test("a decoy beyond a gap, read as the beginning: what comes before it is evasion, and no acknowledgement is enough", () => {
  const it = new World();
  assert.equal(it.client(500, HELLO), "confirm");
  assert.equal(it.server(0), "go");
  assert.equal(it.client(0, evil(HELLO)), "deny");
  assert.deepEqual(it.verdicts, ["allow", "evasion"]);
});

test("where the stream begins is known: bytes from before are no hello, and what comes first may come last", () => {
  const it = new World();
  it.begins = BEGIN;
  assert.equal(it.client(-HELLO.length, HELLO), "drop", "the server would acknowledge where it ends");
  assert.equal(it.server(0), "go");
  assert.equal(it.client(0, evil(HELLO)), "deny");
  assert.equal(it.client(100, HELLO.subarray(100), { port: 40_001 }), "hold");
  it.later(60);
  assert.equal(it.client(0, HELLO.subarray(0, 100), { port: 40_001 }), "confirm");
  assert.equal(it.client(0, new Uint8Array(24).fill(0xee), { port: 40_003 }), "hold", "the next segment may tell");
  it.begins = undefined;
  assert.equal(it.client(-HELLO.length, HELLO, { port: 40_002 }), "confirm", "nobody can tell");
  assert.equal(it.verdicts.length, 3);
});

test("retransmissions: the same bytes are fine, others are not", () => {
  const it = new World();
  it.client(0, HELLO.subarray(0, 100));
  assert.equal(it.client(0, HELLO.subarray(0, 100)), "drop", "the first one is still held");
  it.later(60);
  assert.equal(it.client(0, HELLO.subarray(0, 100)), "go");
  assert.equal(it.client(50, evil(HELLO).subarray(50, 150)), "hold", "the same so far");
  assert.equal(it.client(40, text("x".repeat(20))), "deny");
  assert.deepEqual(it.verdicts, ["evasion"]);
  it.check();
});

test("what nobody knows waits a moment for what could come before it, then it is denied", () => {
  const it = new World();
  assert.equal(it.client(0, new Uint8Array(50).fill(0xee)), "hold");
  it.later(60);
  assert.deepEqual(it.fates.get(1), ["deny"]);
  assert.deepEqual([it.verdicts, it.resets], [["undefined/undefined"], ["server 0"]]);
  it.check();
});

test("urgent data is evasion; data in a SYN is taken off", () => {
  const it = new World();
  assert.equal(it.client(-1, HELLO, { flags: TcpFlag.SYN }), "strip");
  assert.equal(it.client(0, HELLO, { flags: TcpFlag.ACK | TcpFlag.URG }), "deny");
  assert.deepEqual(it.verdicts, ["evasion"]);
});

test("a drip: denied when its time is over, held or not, and both ends are told", () => {
  const it = new World();
  for (let i = 0; i < 8; i++) {
    it.client(i, HELLO.subarray(i, i + 1));
    it.later(700);
  }
  assert.deepEqual(it.verdicts, ["incomplete"]);
  assert.deepEqual(it.resets, [`client ${SERVER_BEGIN}`, "server 8"]);
  assert.equal(it.client(8, HELLO.subarray(8, 9)), "deny", "the first packet after it tells the kernel");
  assert.equal(it.client(9, HELLO.subarray(9, 10)), "drop");
  it.check();
});

test("thousands of connections whose time is over at once: refused a few a sweep, the oldest first, until none is left", () => {
  const it = new World({ held: 100_000, heldPerOwner: 100_000 });
  const COUNT = 1000;
  for (let i = 0; i < COUNT; i++) {
    it.now = i / COUNT;
    it.client(0, HELLO.subarray(0, 9), { port: 1000 + i });
  }
  const untold = (): number => COUNT - it.verdicts.length;
  it.now = 6000;
  let sweeps = 0;
  for (let more = true; more; sweeps++) {
    const before = untold();
    more = it.flows.sweep(it.now);
    const refused = before - untold();
    assert.ok(refused <= 16 && (refused > 0 || !more), `${refused} in one sweep`);
    if (sweeps === 3)
      assert.deepEqual(
        it.order,
        [...it.order].sort((a, b) => a - b),
      );
  }
  assert.ok(sweeps >= COUNT / 16 && sweeps < COUNT, `${sweeps}`);
  assert.deepEqual([untold(), it.flows.load.octets], [0, 0]);
  it.check();
  it.now += 3000;
  while (it.flows.sweep(it.now));
  assert.equal(it.flows.load.size, 0);
});

test("what waits without end in one lane does not make another late", () => {
  const it = new World({ stallMs: 0, held: 100_000, heldPerOwner: 100_000, overMs: 0 });
  for (let i = 0; i < 500; i++) it.client(0, HELLO.subarray(0, 9), { port: 1000 + i });
  it.now = 5000;
  assert.ok(it.flows.sweep(it.now));
  assert.ok(it.counted.includes("stalls"));
  assert.equal(it.verdicts.length, 16, "both had their share of one sweep");
});

test("64 KiB of hello and no end", () => {
  const it = new World();
  const record = new Uint8Array(16_389).fill(0);
  record.set([0x16, 3, 1, 0x40, 0, 1, 1, 0xff, 0xff, 3, 3]);
  it.client(0, record.subarray(0, 5000));
  for (let at = 5000; it.verdicts.length === 0; at += 1400) it.client(at, record.subarray(at % 4000, (at % 4000) + 1400));
  assert.ok(it.verdicts[0] !== "allow");
  it.check();
});

test("server first: an SSH dialogue passes when both have spoken", () => {
  const it = new World({}, "ssh", "");
  assert.equal(it.server(0, text("SSH-2.0-OpenSSH_9.2\r\n")), "go");
  const fate = it.client(0, text("SSH-2.0-OpenSSH_9.2p1\r\n"));
  assert.equal(fate, "confirm");
  assert.equal(it.server(23, text("x"), { at: 21 }), "pass");
  assert.deepEqual(it.verdicts, ["allow"]);
  it.check();
});

test("the server's reset ends it", () => {
  const it = new World();
  it.client(0, HELLO.subarray(0, 10));
  assert.equal(it.server(0, new Uint8Array(0), { flags: TcpFlag.RST }), "go");
  assert.equal(it.flows.load.size, 0);
  it.check();
});

test("Monitor holds nothing and says what it would have denied, once", () => {
  const it = new World();
  const bytes = evil(HELLO);
  assert.equal(it.client(0, bytes.subarray(0, 100), { watch: true }), "go");
  assert.equal(it.client(100, bytes.subarray(100), { watch: true }), "pass");
  assert.equal(it.client(0, HELLO.subarray(0, 9), { watch: true, port: 41_000 }), "go");
  it.later(6000);
  assert.deepEqual(it.verdicts, ["tls/api.exbmple.com", "incomplete"]);
  assert.equal(it.client(9, HELLO.subarray(9), { watch: true, port: 41_000 }), "pass");
  assert.deepEqual(it.resets, []);
});

test("one port, two servers at once: the second waits its turn", () => {
  const it = new World();
  it.client(0, HELLO.subarray(0, 100));
  assert.equal(it.client(0, HELLO, { to: "192.0.2.2" }), "drop");
  it.client(100, HELLO.subarray(100));
  it.server(HELLO.length);
  assert.equal(it.client(0, HELLO, { to: "192.0.2.2" }), "confirm");
});

test("bounds: connections and bytes of one pod, packets held, bytes of all", () => {
  const few = new World({ flowsPerOwner: 3 });
  for (let i = 0; i < 3; i++) assert.equal(few.client(0, HELLO.subarray(0, 9), { port: 1000 + i }), "hold");
  assert.equal(few.client(0, HELLO.subarray(0, 9), { port: 2000 }), "drop");
  assert.deepEqual(few.counted, ["limited"]);
  few.later(8000);
  assert.equal(few.flows.load.octets, 0);
  assert.equal(few.client(0, HELLO, { port: 2000 }), "confirm", "there is room again");

  const held = new World({ heldPerOwner: 2 });
  for (let i = 0; i < 3; i++) held.client(0, HELLO.subarray(0, 9), { port: 1000 + i });
  assert.equal(held.flows.load.held, 2);
  assert.deepEqual(held.fates.get(3), ["go"], "legal so far");

  const shared = new World({ octets: 5000 });
  for (let i = 0; i < 3; i++) shared.client(0, HELLO.subarray(0, 9), { port: 1000 + i });
  assert.equal(shared.client(0, HELLO, { port: 3000, owner: {} }), "confirm", "another pod's connection takes the room of the largest");
  assert.deepEqual(shared.verdicts, ["incomplete", "allow"]);
  shared.later(70_000);
  shared.check();
  assert.deepEqual([shared.flows.load.size, shared.flows.load.octets], [0, 0]);
});

test("a pod that is gone takes all of its connections along, those that are over too", () => {
  const it = new World();
  const other = {};
  assert.equal(it.client(0, HELLO, { port: 1000 }), "confirm");
  assert.equal(it.server(HELLO.length, undefined, { port: 1000 }), "pass");
  assert.equal(it.client(0, HELLO, { port: 2000, owner: other }), "confirm");
  assert.equal(it.flows.load.size, 2);
  it.flows.forget(POD);
  assert.equal(it.flows.load.size, 1);
  assert.equal(it.client(0, HELLO, { port: 1000 }), "confirm", "judged anew, and not passed for what was before");
  it.flows.forget(POD);
  it.flows.forget(other);
  assert.deepEqual([it.flows.load.size, it.flows.load.octets], [0, 0]);
});

test("a queue that was bound again: what it gave us is forgotten, and comes again", () => {
  const it = new World();
  it.client(0, HELLO.subarray(0, 100));
  it.flows.lost();
  assert.equal(it.flows.load.held, 0);
  assert.equal(it.client(0, HELLO.subarray(0, 100)), "hold");
  assert.equal(it.client(100, HELLO.subarray(100)), "confirm");
  assert.deepEqual([it.fates.get(1), it.fates.get(2)], [undefined, ["go"]]);
});

test("whatever comes, in whatever order: each packet is settled once, nothing stays, and the wrong name never passes", () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let round = 0; round < 400; round++) {
    const it = new World({ heldPerOwner: 1 + random(20), flowsPerOwner: 1 + random(4), octets: 2000 + random(20_000) });
    const wrong = evil(HELLO);
    let passes = 0;
    for (let step = 0; step < 60; step++) {
      const at = random(HELLO.length);
      const length = 1 + random(300);
      const port = 40_000 + random(3);
      switch (random(8)) {
        case 0:
          it.later(random(400));
          break;
        case 1:
          if (it.server(0, text("hello"), { at: random(50), port }) === "pass") passes++;
          break;
        case 2:
          if (it.server(random(20), text(""), { port, flags: random(20) === 0 ? TcpFlag.RST : TcpFlag.ACK }) === "pass") passes++;
          break;
        case 3:
          it.datagram(HELLO.subarray(at, at + length), port);
          break;
        default:
          if (
            it.client(random(3) === 0 ? 0 : at, wrong.subarray(random(2) === 0 ? 0 : at, at + length), {
              port,
              flags: random(40) === 0 ? 48 : 16,
            }) === "pass"
          )
            passes++;
      }
    }
    it.later(70_000);
    it.check();
    assert.deepEqual([passes, it.flows.load.size, it.flows.load.octets], [0, 0, 0]);
  }
});

test("another server's acknowledgement, on a connection from the same port of the pod, confirms nothing", () => {
  const it = new World();
  assert.equal(it.client(0, HELLO), "confirm");
  assert.equal(it.server(HELLO.length, undefined, { at: 1_000_000 }), "go");
  assert.equal(it.server(HELLO.length, text("data"), { at: -1_000_000 + 5000 }), "go");
  assert.equal(it.server(HELLO.length, undefined, { at: 1_000_000, flags: TcpFlag.RST }), "go");
  assert.equal(it.client(0, evil(HELLO)), "deny", "it is still under inspection");
});
