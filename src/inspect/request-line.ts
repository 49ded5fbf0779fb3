import type { Reading, Run } from "./inspector.ts";
import { type Line, lineAt, mayStart, more, printable, sizeOf } from "./parts.ts";

/** `METHOD target VERSION`: the first line of SIP and RTSP. */
export interface RequestLine {
  readonly method: string;
  readonly target: string;
  readonly version: string;
}

const LINE_MAX = 8192;

/** The request line at the run's start, with one of `methods`; a Reading while there is none, or when it is none. */
export function readRequestLine(run: Run, at: number, methods: readonly string[], schemes: readonly string[]): RequestLine | Reading {
  const rest: Run = { ...run, start: at };
  if (
    !methods.some((method) =>
      mayStart(
        rest,
        schemes.map((scheme) => `${method} ${scheme}`),
      ),
    )
  )
    return { bad: "no request line" };
  const line: Line | "long" | undefined = lineAt(run, at, LINE_MAX);
  if (line === "long") return { bad: "a request line without end" };
  if (line === undefined) return more(run, sizeOf(run) + 1);
  const parts = line.text.split(" ");
  if (parts.length !== 3 || !printable(run.bytes, at, at + line.text.length)) return { bad: "no request line" };
  const [method = "", target = "", version = ""] = parts;
  return { method, target, version };
}
