import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs, { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { crc32, encodeRecord, HEADER_BYTES, readRecord } from "../../src/alerts/spool-record.ts";
import { Spool } from "../../src/alerts/spool.ts";
import { SEVERITIES, type Severity } from "../../src/model/alerts.ts";

const MB = 1024 * 1024;

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "namegate-spool-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** All that is left in a spool, acknowledged as it is read. */
function drain(spool: Spool, size = 7): string[] {
  const found: string[] = [];
  for (let batch = spool.take(size, MB); batch !== undefined; batch = spool.take(size, MB)) {
    found.push(...batch.items.map(({ payload }) => payload));
    spool.ack(batch);
  }
  return found;
}

const segments = (path: string): string[] => readdirSync(path).filter((name) => name.endsWith(".seg"));

test("the checksum is the one of zlib and PNG", () => {
  assert.equal(crc32(Buffer.from("123456789")), 0xcbf43926);
  assert.equal(crc32(Buffer.alloc(0)), 0);
});

test("records are read back, at every split and with any damage, or not at all", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: "binary" }), { minLength: 1, maxLength: 6 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (texts, where, flip) => {
        const whole = Buffer.concat(texts.map(encodeRecord));
        const plain = texts.map((text) => Buffer.from(text).toString());
        for (let end = 0; end <= whole.length; end += 1 + (end % 5)) {
          const read = readAll(whole.subarray(0, end));
          assert.deepEqual(read, plain.slice(0, read.length));
        }
        assert.deepEqual(readAll(whole), plain);
        const at = where % whole.length;
        whole[at] = (whole[at] as number) ^ flip;
        const read = readAll(whole);
        assert.ok(read.length >= texts.length - 1, `${read.length} of ${texts.length}`);
        // Nothing that was not written, and in order.
        let from = 0;
        for (const one of read) {
          const found = plain.indexOf(one, from);
          assert.ok(found >= 0, JSON.stringify(one));
          from = found + 1;
        }
      },
    ),
    { numRuns: 100 },
  );
});

function readAll(bytes: Buffer): string[] {
  const found: string[] = [];
  for (let at = 0; ; ) {
    const one = readRecord(bytes, at, true);
    if (one.kind === "short") return found;
    if (one.kind === "record") found.push(one.payload);
    assert.ok(one.next > at);
    at = one.next;
  }
}

test("what is added comes out once, the most severe first and each severity in order, over restarts", (t) => {
  const path = folder(t);
  let spool = new Spool(path, 4 * MB);
  for (let i = 0; i < 500; i++) spool.add(SEVERITIES[i % 5] as Severity, `${i % 5}:${i}`);
  spool.flush();
  const first = spool.take(30, MB);
  assert.ok(first !== undefined);
  assert.deepEqual(
    first.items.map(({ severity }) => severity),
    Array(30).fill("critical"),
  );
  spool.ack(first);
  const second = spool.take(50, MB); // not acknowledged: it comes again
  spool.close();
  spool = new Spool(path, 4 * MB);
  assert.equal(spool.status().events, 470);
  const rest = drain(spool);
  assert.deepEqual(
    rest.slice(0, 50),
    second?.items.map(({ payload }) => payload),
  );
  const all = [...first.items.map(({ payload }) => payload), ...rest];
  assert.equal(new Set(all).size, 500);
  for (const lane of ["0", "1", "2", "3", "4"]) {
    const own = all.filter((text) => text.startsWith(lane)).map((text) => Number(text.slice(2)));
    assert.deepEqual(
      own,
      [...own].sort((a, b) => a - b),
    );
  }
  assert.ok(spool.empty);
  assert.deepEqual(segments(path), []);
  assert.deepEqual(spool.status(), {
    bytes: 0,
    maxBytes: 4 * MB,
    events: 0,
    lost: { info: 0, low: 0, medium: 0, high: 0, critical: 0 },
    damaged: 0,
    failure: undefined,
  });
});

test("numbers never start again below the cursor: what is written after everything was read is not taken for read", (t) => {
  const path = folder(t);
  for (let round = 0; round < 4; round++) {
    const spool = new Spool(path, MB);
    spool.add("high", `round ${round}`);
    spool.flush();
    spool.close();
    const again = new Spool(path, MB);
    assert.deepEqual(drain(again), [`round ${round}`]);
    again.close();
  }
});

test("walk: any order of add, flush, take, ack and restart delivers everything at least once, and doubles only what was not acknowledged", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("add" as const), severity: fc.constantFrom(...SEVERITIES), size: fc.nat({ max: 3000 }) }),
    fc.constantFrom({ do: "flush" as const }, { do: "take" as const }, { do: "ack" as const }, { do: "restart" as const }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const path = mkdtempSync(join(tmpdir(), "namegate-spool-"));
      try {
        let spool = new Spool(path, 64 * MB);
        const kept = new Set<number>();
        const acked = new Map<number, number>();
        let waiting: number[] = [];
        let batch: ReturnType<Spool["take"]>;
        let next = 0;
        const done = (): void => {
          for (const { payload } of batch?.items ?? []) {
            const id = Number(payload.split(" ")[0]);
            acked.set(id, (acked.get(id) ?? 0) + 1);
          }
          if (batch !== undefined) spool.ack(batch);
          batch = undefined;
        };
        for (const one of steps) {
          if (one.do === "add") {
            waiting.push(next);
            spool.add(one.severity, `${next++} ${"y".repeat(one.size)}`);
          } else if (one.do === "flush") {
            spool.flush();
            for (const id of waiting) kept.add(id);
            waiting = [];
          } else if (one.do === "take") batch ??= spool.take(3, 4000);
          else if (one.do === "ack") done();
          else {
            // As a kill: nothing is closed, what was not flushed is gone.
            waiting = [];
            batch = undefined;
            spool = new Spool(path, 64 * MB);
          }
        }
        for (batch = spool.take(50, MB); batch !== undefined; batch = spool.take(50, MB)) done();
        for (const id of kept) assert.equal(acked.get(id), 1, `event ${id}`);
        for (const id of acked.keys()) assert.ok(kept.has(id) || waiting.includes(id));
      } finally {
        rmSync(path, { recursive: true, force: true });
      }
    }),
    { numRuns: 60 },
  );
});

test("torn, flipped, emptied and foreign segments cost what is in the damage, and are counted", (t) => {
  const path = folder(t);
  const spool = new Spool(path, 4 * MB);
  for (let i = 0; i < 20; i++) spool.add("high", `event ${i} ${"z".repeat(100)}`);
  spool.flush();
  spool.close();
  const [file = ""] = segments(path);
  const bytes = readFileSync(join(path, file));
  const size = bytes.length / 20;
  bytes[Math.floor(5 * size) + HEADER_BYTES + 3] = 0; // payload of 5
  bytes.writeUInt32LE(0xffffffff, Math.floor(9 * size) + 4); // length of 9
  writeFileSync(join(path, file), bytes.subarray(0, bytes.length - 10)); // 19 torn
  writeFileSync(join(path, "high-900.seg"), Buffer.alloc(5000)); // nothing in it
  writeFileSync(join(path, "high-901.seg"), "");
  writeFileSync(join(path, "info-1.seg"), "NGA1");
  writeFileSync(join(path, "somebody-1.seg"), "not ours");
  const again = new Spool(path, 4 * MB);
  const ids = drain(again, 4).map((text) => Number(text.split(" ")[1]));
  assert.deepEqual(
    ids,
    [...Array(20).keys()].filter((i) => ![5, 9, 19].includes(i)),
  );
  assert.ok(again.status().damaged >= 4, String(again.status().damaged));
  assert.ok(again.empty);
  again.add("low", "goes on");
  again.flush();
  assert.deepEqual(drain(again), ["goes on"]);
});

test("a broken, missing or overtaken cursor brings events again and loses none", (t) => {
  for (const breakIt of [
    (file: string) => rmSync(file),
    (file: string) => writeFileSync(file, "0 {}"),
    (file: string) => writeFileSync(file, Buffer.alloc(100_000)),
    (file: string) => truncateSync(file, 20),
  ]) {
    const path = folder(t);
    const spool = new Spool(path, 4 * MB);
    for (let i = 0; i < 10; i++) spool.add("medium", String(i));
    spool.flush();
    spool.ack(spool.take(4, MB) as never);
    spool.close();
    breakIt(join(path, "cursor"));
    assert.deepEqual(drain(new Spool(path, 4 * MB)), [..."0123456789"]);
  }
});

test("when the bound is reached the least severe go first, then the oldest; the loss is counted to the event", (t) => {
  const path = folder(t);
  const spool = new Spool(path, MB);
  const pad = "p".repeat(1000);
  const add = (severity: Severity, count: number): void => {
    for (let i = 0; i < count; i++) {
      spool.add(severity, `${severity} ${i} ${pad}`);
      spool.flush();
      assert.ok(spool.bytes <= MB);
    }
  };
  add("info", 300);
  add("critical", 300);
  add("medium", 2000);
  const { lost } = spool.status();
  assert.equal(lost.info, 300); // medium came, and info was all that could go
  assert.equal(lost.critical, 0);
  assert.ok(lost.medium > 1000);
  spool.add("low", `low ${pad}`);
  spool.flush();
  const left = drain(spool, 100).map((text) => text.split(" ").slice(0, 2).join(" "));
  assert.equal(left.filter((text) => text.startsWith("critical")).length, 300);
  const medium = left.filter((text) => text.startsWith("medium"));
  assert.equal(medium.length, 2000 - lost.medium);
  assert.equal(medium.at(-1), "medium 1999"); // the newest stay
  assert.equal(spool.status().lost.low + left.filter((text) => text.startsWith("low")).length, 1);
  assert.ok(statSync(path).mode & 0o700 && (statSync(path).mode & 0o077) === 0);
});

test("a segment given up while its events are on their way is not counted as lost, and its acknowledgement moves nothing back", (t) => {
  const spool = new Spool(folder(t), MB);
  const pad = "p".repeat(10_000);
  for (let i = 0; i < 50; i++) spool.add("low", `first ${i} ${pad}`);
  spool.flush();
  const batch = spool.take(4, MB);
  for (let i = 0; i < 200; i++) spool.add("low", `then ${i} ${pad}`);
  spool.flush();
  const { lost } = spool.status();
  spool.ack(batch as never);
  const left = drain(spool, 20);
  assert.equal(lost.low + left.length + 4, 250);
  assert.equal(left.at(-1)?.startsWith("then 199 "), true);
});

test("a disk that refuses is said, and nothing is thrown", (t) => {
  const path = folder(t);
  const spool = new Spool(path, MB);
  rmSync(path, { recursive: true });
  spool.add("high", "x");
  spool.flush();
  assert.match(spool.status().failure ?? "", /ENOENT/);
  assert.equal(spool.status().lost.high, 1);
});

test("a full disk leaves no empty segments behind, and what comes after it is kept", (t) => {
  const path = folder(t);
  const spool = new Spool(path, MB);
  spool.add("low", "before");
  spool.flush();
  const full = t.mock.method(fs, "writeSync", () => {
    throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
  });
  syncBuiltinESMExports();
  for (let i = 0; i < 100; i++) {
    spool.add("low", `lost ${i}`);
    spool.add("high", `lost ${i}`);
    spool.flush();
  }
  full.mock.restore();
  syncBuiltinESMExports();
  assert.deepEqual([segments(path).length, spool.status().lost.high, spool.status().lost.low], [1, 100, 100]);
  assert.match(spool.status().failure ?? "", /ENOSPC/);
  spool.add("low", "after");
  spool.flush();
  assert.deepEqual(drain(spool), ["before", "after"]);
});

test("kill -9 at random moments, 20 times: what was said to be kept comes out, in the end, unless it was handed over", {
  timeout: 20_000,
}, async (t) => {
  const path = folder(t);
  const kept = new Set<number>();
  const handed = new Set<number>();
  const child = fileURLToPath(new URL("./spool-child.js", import.meta.url));
  for (let round = 0; round < 20; round++) {
    const running = spawn(process.execPath, [child, path, String(round * 1_000_000)], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    let timer: NodeJS.Timeout | undefined;
    running.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      timer ??= setTimeout(() => running.kill("SIGKILL"), (round * 37) % 60);
    });
    await new Promise((resolve) => running.on("close", resolve));
    for (const line of text.split("\n").slice(0, -1)) (line.startsWith("+") ? kept : handed).add(Number(line.slice(1)));
  }
  const spool = new Spool(path, 64 * MB);
  const left = new Set(drain(spool, 500).map((payload) => (JSON.parse(payload) as { id: number }).id));
  const missing = [...kept].filter((id) => !left.has(id) && !handed.has(id));
  assert.deepEqual(missing, []);
  assert.ok(kept.size > 200, `${kept.size} events`);
  t.diagnostic(`${kept.size} kept, ${handed.size} handed over, ${left.size} left, ${spool.status().damaged} torn`);
});
