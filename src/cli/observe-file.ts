import { closeSync, createReadStream, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pipeline, type Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { Fault, messageOf } from "../base/fault.ts";

/** A longer line is no event. */
const LINE_CHARS_MAX = 1024 * 1024;

/** `path` with what was rotated away from it (`path.1`, `path.2.gz`, …), the oldest first. `-` is the standard input. */
export function withRotated(path: string): string[] {
  if (path === "-") return [path];
  const [folder, name] = [dirname(path), basename(path)];
  if (!existsSync(path))
    throw new Fault("no-file", `there is no file ${path}`, "name a file of JSON events, one a line, or - for the standard input");
  const older = readdirSync(folder).flatMap((other): [number, string][] => {
    const found = other.startsWith(`${name}.`) ? /^(\d{1,4})(\.gz)?$/.exec(other.slice(name.length + 1)) : null;
    return found === null ? [] : [[Number(found[1]), join(folder, other)]];
  });
  return [...older.sort(([a], [b]) => b - a).map(([, file]) => file), path];
}

/** The lines of files, plain or gzip; undefined for one that is too long. */
export async function* linesOf(paths: readonly string[], stdin: Readable): AsyncGenerator<string | undefined> {
  for (const path of paths) {
    const source = path === "-" ? stdin : createReadStream(path);
    const packed = path !== "-" && isGzip(path);
    const text: Readable = packed ? pipeline(source, createGunzip(), () => undefined) : source;
    try {
      yield* split(text);
    } catch (error) {
      throw new Fault(
        "file",
        `${path} cannot be read: ${messageOf(error)}`,
        packed ? "is the gzip file whole?" : "may you read it?",
        error,
      );
    }
  }
}

async function* split(source: Readable): AsyncGenerator<string | undefined> {
  let rest = "";
  let tooLong = false;
  source.setEncoding("utf8");
  for await (const chunk of source as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      yield tooLong ? undefined : line;
      tooLong = false;
    }
    if (rest.length > LINE_CHARS_MAX) {
      tooLong = true;
      rest = "";
    }
  }
  if (tooLong) yield undefined;
  else if (rest !== "") yield rest;
}

/** Of a file; what is read from a pipe cannot be read again. */
function isGzip(path: string): boolean {
  if (!statSync(path).isFile()) return false;
  const file = openSync(path, "r");
  try {
    const head = Buffer.alloc(2);
    return readSync(file, head, 0, 2, 0) === 2 && head[0] === 0x1f && head[1] === 0x8b; // RFC 1952 §2.3.1
  } finally {
    closeSync(file);
  }
}
