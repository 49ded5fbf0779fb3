import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readCapture } from "../src/capture/file.ts";
import { replayCapture } from "../src/cli/replay-judge.ts";
import { tlsCapture } from "./support/hellos.ts";
import { interleave, median, report } from "./support/report.ts";

const FLOWS = 100_000;
const WORKLOAD =
  `a capture of ${FLOWS} TLS connections, 7 or 8 packets each: handshake, ClientHello (40 % of a library, 30 % of a browser with GREASE and shuffled extensions, ` +
  "30 % with a post-quantum key share in two segments), a server's first segment, FIN from both; 64 connections at a time take turns. " +
  "`namegate replay` without its output (connections put together, server name, ALPN and JA4 of each), from memory, on one core; ndpiReader's own figure for the same file on the same core";
const ROUNDS = 5;
const WARM = 3; // runs before those that count: then the code is compiled
const RUNS = 5; // in one process; their median counts
const CORE = "0";
const EMPTY = { policies: [], pods: [], resolvers: [], namespaces: {}, interfacePrefixes: [] };

interface Measured {
  readonly flowsPerSecond: number;
  readonly heapBytesPerFlow: number;
}

/** In a process of its own, pinned to a core. */
function measure(file: string): Measured {
  const bytes = readFileSync(file);
  const collect = globalThis.gc as () => void;
  const took: number[] = [];
  for (let i = 0; i < WARM + RUNS; i++) {
    const from = performance.now();
    replayCapture(readCapture(bytes), EMPTY);
    if (i >= WARM) took.push(performance.now() - from);
  }
  collect();
  const before = heap();
  const found = replayCapture(readCapture(bytes), EMPTY).connections;
  collect();
  const heapBytesPerFlow = (heap() - before) / found.length;
  const right = found.filter(({ line }) => line.application === "tls" && line.serverName !== null && line.ja4 !== null).length;
  if (right !== FLOWS) throw new Error(`${right} of ${FLOWS} connections were read`);
  return { flowsPerSecond: (FLOWS / median(took)) * 1000, heapBytesPerFlow };
}

function heap(): number {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

function pinned(command: string, args: readonly string[]): string {
  const { stdout, stderr, status, error } = spawnSync("taskset", ["-c", CORE, command, ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? stderr}`);
  return stdout;
}

async function ours(file: string): Promise<Measured> {
  return JSON.parse(pinned(process.execPath, ["--expose-gc", fileURLToPath(import.meta.url), file])) as Measured;
}

/** NaN where it is not installed (apt-get install libndpi-bin). */
async function theirs(file: string): Promise<Measured> {
  try {
    const found = /Packet Processing Time:\s+(\d+) msec/.exec(pinned("ndpiReader", ["-i", file]));
    return { flowsPerSecond: (FLOWS / Number(found?.[1])) * 1000, heapBytesPerFlow: Number.NaN };
  } catch {
    return { flowsPerSecond: Number.NaN, heapBytesPerFlow: Number.NaN };
  }
}

const [file] = process.argv.slice(2);
if (file !== undefined) console.log(JSON.stringify(measure(file)));
else {
  const folder = mkdtempSync(join(tmpdir(), "namegate-bench-"));
  try {
    const capture = join(folder, "tls.pcap");
    const { bytes, packets } = tlsCapture(FLOWS);
    writeFileSync(capture, bytes);
    const rounds = await interleave(ROUNDS, { namegate: () => ours(capture), ndpi: () => theirs(capture) });
    const perSecond = median(rounds.namegate.map(({ flowsPerSecond }) => flowsPerSecond));
    const ndpi = median(rounds.ndpi.map(({ flowsPerSecond }) => flowsPerSecond));
    report("replay", WORKLOAD, [
      { what: "packets in the capture", value: packets, unit: "" },
      { what: "namegate replay", value: perSecond, unit: "flow/s", target: { least: 150_000 } },
      { what: "its best round", value: Math.max(...rounds.namegate.map(({ flowsPerSecond }) => flowsPerSecond)), unit: "flow/s" },
      ...(Number.isNaN(ndpi)
        ? []
        : [
            { what: "ndpiReader", value: ndpi, unit: "flow/s" },
            { what: "namegate / ndpiReader", value: perSecond / ndpi, unit: "" },
          ]),
      {
        what: "memory kept per connection (heap and buffers)",
        value: median(rounds.namegate.map(({ heapBytesPerFlow }) => heapBytesPerFlow)),
        unit: "bytes",
      },
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
