import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Fault } from "../src/base/fault.ts";
import type { Lab } from "../src/cli/lab-types.ts";
import { until } from "../test/support/lab.ts";
import { load } from "./support/load.ts";
import { RESPONDER, withPair } from "./support/node.ts";
import { median, report } from "./support/report.ts";

const WORKLOAD =
  "both CPUs of the node are burnt by four endless loops, in a cgroup with the CPU share of pods that request 1.9 cores; a pod asks for names, " +
  "100 a second, each reply held. The agent is in a cgroup with the share of what it requests. Beside it the same lookups on a node without namegate. Medians of the rounds";
const ROUNDS = 3;
const RATE = 100;
const LOOKUPS = 400;
const NAMES = 400;
/** What may be requested, in thousandths of a core; the first is the chart's (values.yaml). */
const REQUESTS = [250, 50, 1000];

/** cgroup v2, or the cpu controller of v1. */
const UNIFIED = existsSync("/sys/fs/cgroup/cgroup.controllers");
const TOP = join("/sys/fs/cgroup", UNIFIED ? "" : "cpu");

/** A cgroup with the CPU share that the kubelet gives to a request, thousandths of a core. */
class CpuGroup {
  private readonly path: string;
  private readonly share: string;

  constructor(name: string) {
    this.path = join(TOP, name);
    this.share = join(this.path, UNIFIED ? "cpu.weight" : "cpu.shares");
    if (existsSync(TOP)) mkdirSync(this.path, { recursive: true });
    if (!existsSync(this.share))
      throw new Fault("bench-cgroup", `there is no cgroup with a CPU share in ${TOP}`, "mount the cpu controller (v1), or enable it (v2)");
  }

  request(milli: number): void {
    const shares = Math.max(2, Math.floor((milli * 1024) / 1000));
    writeFileSync(this.share, String(UNIFIED ? 1 + Math.floor(((shares - 2) * 9999) / 262_142) : shares));
  }

  add(pid: number): void {
    writeFileSync(join(this.path, "cgroup.procs"), String(pid));
  }

  /** When its last process has ended. */
  async remove(): Promise<void> {
    await until(`${this.path} is empty`, () => {
      rmdirSync(this.path);
      return true;
    });
  }
}

type Lookups = Readonly<Record<"p50" | "p99" | "lost", number>>;
const ask = async (lab: Lab): Promise<Lookups> => (await load(lab, "other", "ask", RESPONDER, LOOKUPS, 0, NAMES, RATE)) as Lookups;

await withPair(async ({ plain, guarded, agent }) => {
  const own = new CpuGroup("namegate-bench-agent");
  const pods = new CpuGroup("namegate-bench-pods");
  const burners = Array.from({ length: 4 }, () => plain.script("node", "const end = Date.now() + 180_000; while (Date.now() < end);"));
  try {
    pods.request(1900);
    for (const { pid } of burners) pods.add(pid as number);
    await sleep(200);
    own.add(agent.child.pid as number);
    const without: Lookups[] = [];
    const held = new Map<number, Lookups[]>(REQUESTS.map((request) => [request, []]));
    for (let i = 0; i < ROUNDS; i++) {
      without.push(await ask(plain));
      for (const [request, list] of held) {
        own.request(request);
        list.push(await ask(guarded));
      }
    }
    const of = (list: readonly Lookups[], field: keyof Lookups): number => median(list.map((one) => one[field]));
    report("busy", WORKLOAD, [
      { what: "DNS p50 without namegate", value: of(without, "p50"), unit: "µs" },
      { what: "DNS p99 without namegate", value: of(without, "p99"), unit: "µs" },
      ...[...held].flatMap(([request, list]) => [
        { what: `DNS p50, the agent requests ${request}m`, value: of(list, "p50"), unit: "µs" },
        { what: `DNS p99, the agent requests ${request}m`, value: of(list, "p99"), unit: "µs" },
        { what: `lookups lost, the agent requests ${request}m`, value: of(list, "lost"), unit: "" },
      ]),
    ]);
  } finally {
    for (const burner of burners) burner.kill("SIGKILL");
    await pods.remove();
    writeFileSync(join(TOP, "cgroup.procs"), String(agent.child.pid)); // still there: back to where it was
    await own.remove();
  }
});
