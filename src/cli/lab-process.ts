import { type ChildProcess, spawn } from "node:child_process";
import { Fault } from "../base/fault.ts";

/** Bytes kept of each output stream; what comes after is dropped (exec) or pushes out the oldest (Child). */
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;

export interface ExecOptions {
  readonly input?: string | Uint8Array;
  /** Default 10 000. At the deadline the whole process group is killed. */
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface ExecResult {
  /** The exit code; null when ended by a signal. */
  readonly status: number | null;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Never throws: a program that cannot be started has status 127 and the reason in stderr. */
export function execute(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const child = start(argv, options);
  let stdout = "";
  let stderr = "";
  let timedOut = false;
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child, "SIGKILL");
    }, options.timeoutMs ?? 10_000);
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      if (stdout.length < OUTPUT_BYTES_MAX) stdout += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      if (stderr.length < OUTPUT_BYTES_MAX) stderr += text;
    });
    const done = (status: number | null): void => {
      clearTimeout(timer);
      resolve({ status, timedOut, stdout, stderr });
    };
    child.on("error", (error) => {
      stderr += String(error);
      done(127);
    });
    child.on("close", (status) => done(status));
    child.stdin?.on("error", () => {}); // EPIPE: it ended without reading
    child.stdin?.end(options.input ?? "");
  });
}

/** A running program. Its lines of stdout and stderr are kept (bounded) and can be waited for. */
export class Child {
  readonly argv: readonly string[];
  readonly exited: Promise<number | null>;
  /** Whole lines so far. */
  readonly out: string[] = [];
  readonly err: string[] = [];
  status: number | null | undefined;
  private readonly process: ChildProcess;
  private readonly listeners = new Set<() => void>();

  constructor(argv: readonly string[], options: ExecOptions = {}) {
    this.argv = argv;
    this.process = start(argv, options);
    this.exited = new Promise((resolve) => {
      const done = (status: number | null): void => {
        this.status = status;
        resolve(status);
        this.wake();
      };
      this.process.on("error", (error) => {
        this.err.push(String(error));
        done(127);
      });
      this.process.on("close", done);
    });
    this.collect(this.process.stdout, this.out);
    this.collect(this.process.stderr, this.err);
    this.process.stdin?.on("error", () => {}); // EPIPE: it ended first, and `exited` says so
    if (options.input !== undefined) this.process.stdin?.write(options.input);
  }

  /** undefined when it could not be started. */
  get pid(): number | undefined {
    return this.process.pid;
  }

  write(text: string): void {
    this.process.stdin?.write(text);
  }

  endInput(): void {
    this.process.stdin?.end();
  }

  /** Sends a signal to the program and to whatever it started in its process group. */
  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    if (this.status === undefined) killGroup(this.process, signal);
  }

  /** SIGTERM, then SIGKILL after `graceMs`. */
  async stop(graceMs = 2000): Promise<void> {
    this.kill("SIGTERM");
    const timer = setTimeout(() => this.kill("SIGKILL"), graceMs);
    await this.exited;
    clearTimeout(timer);
  }

  /**
   * The first line of stdout (or stderr) for which `match` answers something, those already there and not yet behind
   * `from` included. Throws when the program ends first or after `timeoutMs`.
   */
  async line<T>(
    match: (line: string) => T | undefined | false,
    { timeoutMs = 5000, from = 0, stream = "out" }: { timeoutMs?: number; from?: number; stream?: "out" | "err" } = {},
  ): Promise<T> {
    const lines = this[stream];
    let at = from;
    const find = (): T | undefined => {
      for (; at < lines.length; at++) {
        const found = match(lines[at] as string);
        if (found !== undefined && found !== false) return found;
      }
      return undefined;
    };
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      if (this.status !== undefined) throw this.fault(`ended with status ${this.status} before the awaited line`);
      const left = deadline - Date.now();
      if (left <= 0) throw this.fault(`no awaited line within ${timeoutMs} ms`);
      await this.changed(left);
    }
  }

  private fault(what: string): Fault {
    const tail = [...this.out.slice(-5), ...this.err.slice(-15)].join("\n");
    return new Fault("lab-process", `${this.argv.join(" ").slice(0, 200)}: ${what}\n${tail}`, "read its last lines above");
  }

  private changed(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.listeners.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      this.listeners.add(wake);
    });
  }

  private wake(): void {
    for (const listener of Array.from(this.listeners)) listener(); // a copy: they remove themselves
  }

  private collect(stream: NodeJS.ReadableStream | null, lines: string[]): void {
    let rest = "";
    let kept = 0;
    stream?.setEncoding("utf8");
    stream?.on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop() as string;
      for (const line of parts) {
        kept += line.length;
        if (kept <= OUTPUT_BYTES_MAX) lines.push(line);
      }
      this.wake();
    });
    stream?.on("end", () => {
      if (rest !== "") lines.push(rest);
      rest = "";
      this.wake();
    });
  }
}

/** Asks `probe` again and again until it answers something; throws, with its last answer or error, at the deadline. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 5000,
  everyMs = 10,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined && found !== false) return found;
      last = found;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline) {
      throw new Fault("lab-timeout", `not within ${timeoutMs} ms: ${what} (last: ${String(last)})`, "see what holds it up", last);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** A process group of its own, so that what a program starts ends with it. */
function start(argv: readonly string[], options: ExecOptions): ChildProcess {
  const [program, ...args] = argv;
  return spawn(program ?? "", args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: "pipe",
    detached: true,
  });
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // ESRCH: gone already
  }
}
