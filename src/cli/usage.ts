import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ParseArgsConfig, parseArgs } from "node:util";
import { messageOf } from "../base/fault.ts";

/** Wrong usage (exit 2), or help that was asked for (exit 0). */
export class Usage extends Error {
  readonly asked: boolean;
  constructor(message: string, asked = false) {
    super(message);
    this.asked = asked;
  }
}

export interface Writer {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  /** Of a terminal. */
  readonly rows?: number;
}
export interface Output {
  readonly stdout: Writer;
  readonly stderr: Writer;
}

/** Parses options strictly; `--help` prints `usage`. An unknown option says so together with the usage. */
export function options<T extends NonNullable<ParseArgsConfig["options"]>>(argv: readonly string[], usage: string, known: T) {
  let parsed;
  try {
    parsed = parseArgs({
      args: [...argv],
      options: { ...known, help: { type: "boolean", short: "h" } },
      allowPositionals: true,
      strict: true,
      tokens: true,
    });
  } catch (error) {
    throw new Usage(`namegate: ${messageOf(error).split("\n")[0]}\n${usage}`);
  }
  if ((parsed.values as { help?: boolean }).help === true) throw new Usage(usage, true);
  return parsed;
}

export const SOCKET_DEFAULT = "/run/namegate/agent.sock";

/** The version in our package.json, which lies above dist/. */
export function version(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)), i = 0; i < 5; i++, folder = dirname(folder)) {
    const file = join(folder, "package.json");
    if (existsSync(file)) return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
  }
  return "unknown";
}

/** `-o` of every command that prints things. */
export function format(value: string | undefined): "text" | "json" {
  if (value === undefined || value === "text" || value === "compact") return "text";
  if (value === "json") return "json";
  throw new Usage(`namegate: -o ${value}: known formats are text and json`);
}
