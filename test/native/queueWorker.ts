import { parentPort, workerData } from "node:worker_threads";
import { addon, HOLD, NfVerdict, type PacketQueueOptions } from "../../src/base/addon.ts";

/** What a worker of addon.test.ts does with the packets of its queue. */
export interface QueueWork {
  readonly options: PacketQueueOptions;
  readonly behave: "accept" | "hold" | "block";
  readonly blockMs: number;
}

const work = workerData as QueueWork;
const queue = new (addon().PacketQueue)(work.options);
const events: string[] = [];
queue.start(
  (count) => {
    if (work.behave === "block") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, work.blockMs);
    for (let i = 0; i < count; i++) queue.verdicts[2 * i] = work.behave === "hold" ? HOLD : NfVerdict.accept;
    parentPort?.postMessage({ batch: count });
  },
  (what, detail) => events.push(`${what}: ${detail}`),
);
parentPort?.on("message", () => parentPort?.postMessage({ stats: queue.stats(), events }));
parentPort?.postMessage("ready");
