import type { Writer } from "./usage.ts";

/** SGR numbers (ECMA-48 §8.3.117). */
export const BOLD = 1;
export const DIM = 2;
export const RED = 31;
export const GREEN = 32;
export const YELLOW = 33;

export type Paint = (code: number, text: string) => string;

export const isTerminal = (writer: Writer): boolean => writer.isTTY === true;

/** Colours on a terminal, unless NO_COLOR is set (no-color.org). */
export function painter(writer: Writer, environment: Readonly<Record<string, string | undefined>>): Paint {
  const coloured = isTerminal(writer) && (environment["NO_COLOR"] ?? "") === "" && environment["TERM"] !== "dumb";
  return coloured ? (code, text) => (text === "" ? "" : `\u001b[${code}m${text}\u001b[0m`) : unpainted;
}
export const unpainted: Paint = (_code, text) => text;
