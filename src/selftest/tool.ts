import { execFile } from "node:child_process";
import { messageOf } from "../base/fault.ts";

export interface ToolResult {
  /** undefined: it could not be started, or took too long. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** iproute2 answers in milliseconds; a node with a thousand interfaces prints some megabytes. */
const TOOL_MS = 10_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** Runs `ip` or `tc` with arguments as they are, and text for its standard input. Never throws. */
export function runTool(command: string, args: readonly string[], input = ""): Promise<ToolResult> {
  return new Promise((resolve) => {
    const child = execFile(command, args, { timeout: TOOL_MS, maxBuffer: OUTPUT_BYTES_MAX }, (error, stdout, stderr) => {
      if (error === null) resolve({ status: 0, stdout, stderr });
      else if (typeof error.code === "number") resolve({ status: error.code, stdout, stderr });
      else resolve({ status: undefined, stdout, stderr: messageOf(error) });
    });
    child.stdin?.on("error", () => undefined); // a program that ends before it has read everything says so by its status
    child.stdin?.end(input);
  });
}
