import { setTimeout as sleep } from "node:timers/promises";
import { outage } from "./support/outage.ts";
import { report } from "./support/report.ts";

const WORKLOAD =
  "an agent in a cluster is stopped for 60 s and started again, while 100 established connections of its pod send a byte twice a second and wait for the answer, and 100 new ones a second to 1000 learned names " +
  "connect, send and wait for the answer; the same load before that on the same node while the agent runs. Lost: no answer within 5 s, a reset or a refusal. Once stopped as a DaemonSet does (SIGTERM), once killed";
const OUTAGE_MS = Number(process.env.OUTAGE_MS ?? 60_000);
const BEFORE_MS = 3000;
const AFTER_MS = 5000;

const result = await outage({ names: 1000, held: 100, perSecond: 100 }, async (it) => {
  const running = await it.load(() => sleep(BEFORE_MS + AFTER_MS));
  const away = (how: "stop" | "kill") =>
    it.load(async () => {
      await sleep(BEFORE_MS);
      await it.agent()[how]();
      await sleep(OUTAGE_MS);
      await it.start();
      await sleep(AFTER_MS);
    });
  return { running, stopped: await away("stop"), killed: await away("kill") };
});

const { running, stopped, killed } = result;
const lost = (one: typeof running): number => (one["heldLost"] as number) + (one["refused"] as number) + (one["lost"] as number);
const ms = (one: typeof running, field: string): number => (one[field] as number) / 1000;
report("outage", WORKLOAD, [
  { what: "seconds without an agent, each time", value: OUTAGE_MS / 1000, unit: "s" },
  { what: "established connections", value: stopped["held"] as number, unit: "" },
  { what: "answers to them, stopped", value: stopped["exchanges"] as number, unit: "" },
  { what: "established connections lost, stopped", value: stopped["heldLost"] as number, unit: "", target: { most: 0 } },
  { what: "new connections, stopped", value: stopped["opened"] as number, unit: "", target: { least: (OUTAGE_MS / 1000) * 99 } },
  { what: "new connections lost, stopped", value: lost(stopped) - (stopped["heldLost"] as number), unit: "", target: { most: 0 } },
  { what: "established connections lost, killed", value: killed["heldLost"] as number, unit: "", target: { most: 0 } },
  { what: "new connections, killed", value: killed["opened"] as number, unit: "", target: { least: (OUTAGE_MS / 1000) * 99 } },
  { what: "new connections lost, killed", value: lost(killed) - (killed["heldLost"] as number), unit: "", target: { most: 0 } },
  { what: "lost while the agent runs", value: lost(running), unit: "", target: { most: 0 } },
  { what: "a byte's way there and back, p50, agent running", value: ms(running, "p50"), unit: "ms" },
  { what: "the same, stopped", value: ms(stopped, "p50"), unit: "ms" },
  { what: "the same, p99, stopped / running", value: ms(stopped, "p99") / ms(running, "p99"), unit: "" },
  { what: "longest of all, running", value: ms(running, "max"), unit: "ms" },
  { what: "longest of all, stopped", value: ms(stopped, "max"), unit: "ms" },
  { what: "longest of all, killed", value: ms(killed, "max"), unit: "ms" },
]);
