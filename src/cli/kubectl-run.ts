import { spawn } from "node:child_process";
import { Fault } from "../base/fault.ts";

/** kubectl, run with the options that say which cluster; it has the credentials, we never see them. */
export interface Kubectl {
  /** Runs to its end. `stdout` is cut at OUTPUT_BYTES_MAX (`why` says so). */
  run(args: readonly string[], timeoutMs: number): Promise<Ran>;
  /** Calls `onLine` for each line of stdout until it ends or `signal` says stop. */
  stream(args: readonly string[], onLine: (line: string) => void, signal: AbortSignal): Promise<Ran>;
}

export interface Ran {
  /** Exit code of kubectl, which is that of the command in the pod; null when it was ended or never ran. */
  readonly status: number | null;
  readonly stdout: string;
  /** Why there is no (whole) answer; undefined when it ran to its end. The exit code is another matter. */
  readonly why: string | undefined;
  readonly stderr: string;
}

/** The status of a node with 250 pods is about 100 KB. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
const STDERR_BYTES_MAX = 16 * 1024;
/** An event is some 2 KB; a line without end is no event. */
const LINE_BYTES_MAX = 1024 * 1024;

export function kubectlWith(global: readonly string[], program = "kubectl"): Kubectl {
  const start = (args: readonly string[], signal: AbortSignal, onText: (text: string) => string | undefined): Promise<Ran> =>
    new Promise((resolve, reject) => {
      const child = spawn(program, [...global, ...args], { stdio: ["ignore", "pipe", "pipe"], signal });
      let why: string | undefined;
      let stderr = "";
      child.stdout.setEncoding("utf8");
      child.stderr.setEncoding("utf8");
      child.stdout.on("data", (text: string) => {
        if (why !== undefined) return;
        why = onText(text);
        if (why !== undefined) child.kill();
      });
      child.stderr.on("data", (text: string) => {
        stderr = (stderr + text).slice(-STDERR_BYTES_MAX);
      });
      child.once("error", (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") reject(new Fault("no-kubectl", `${program} is not on the PATH`, "install kubectl", error));
        else why ??= error.name === "AbortError" ? String(signal.reason) : error.message;
      });
      child.once("close", (status) =>
        resolve({ status, stdout: "", why: why ?? (status === null ? "it was ended" : undefined), stderr: stderr.trim() }),
      );
    });
  return {
    run: async (args, timeoutMs) => {
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(`no answer in ${timeoutMs / 1000} s`), timeoutMs);
      const parts: string[] = [];
      let length = 0;
      try {
        const ran = await start(args, stop.signal, (text) => {
          parts.push(text);
          length += text.length;
          return length > OUTPUT_BYTES_MAX ? `its answer is longer than ${OUTPUT_BYTES_MAX / 1024 / 1024} MiB` : undefined;
        });
        return { ...ran, stdout: parts.join("") };
      } finally {
        clearTimeout(timer);
      }
    },
    stream: (args, onLine, signal) => {
      let rest = "";
      return start(args, signal, (text) => {
        rest += text;
        const lines = rest.split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) onLine(line);
        return rest.length > LINE_BYTES_MAX ? `a line longer than ${LINE_BYTES_MAX / 1024 / 1024} MiB` : undefined;
      });
    },
  };
}

/** Runs `work` for each item, at most `limit` at once; the results in the order of the items. */
export async function each<T, R>(items: readonly T[], limit: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i] as T);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return results;
}
