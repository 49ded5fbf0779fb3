import { writeSync } from "node:fs";
import { Spool } from "../../src/alerts/spool.ts";
import { SEVERITIES, type Severity } from "../../src/model/alerts.ts";

/**
 * Adds events to the spool of argv[2] from number argv[3] on, and takes and acknowledges at the same time: a line `+N` on stdout once
 * event N is kept, `-N` before it is acknowledged. Goes on until it is killed.
 */
const [folder = "", first = "0"] = process.argv.slice(2);
const spool = new Spool(folder, 64 * 1024 * 1024);
let next = Number(first);
for (;;) {
  const added: number[] = [];
  for (let i = 0; i < 1 + (next % 7); i++) {
    added.push(next);
    spool.add(SEVERITIES[next % 5] as Severity, JSON.stringify({ id: next, pad: "x".repeat(next % 900) }));
    next++;
  }
  spool.flush();
  writeSync(1, added.map((n) => `+${n}\n`).join(""));
  if (next % 3 === 0) continue;
  const batch = spool.take(10, 1e6);
  if (batch === undefined) continue;
  writeSync(1, batch.items.map(({ payload }) => `-${(JSON.parse(payload) as { id: number }).id}\n`).join(""));
  spool.ack(batch);
}
