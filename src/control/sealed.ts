import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../base/fault.ts";
import { replaceFile } from "../base/replace-file.ts";

/**
 * Files of the state folder that are whole or refused: mode 0600, replaced at once by a rename, a line with the SHA-256 of the rest
 * and then the rest, which is text.
 */

/** `undefined`: there is none. `refused`: why it is not believed. */
export function readSealed(file: string, bytesMax: number): { readonly body: string } | { readonly refused: string } | undefined {
  let text: string;
  try {
    const fd = openSync(file, "r");
    try {
      const { mode, uid, size } = fstatSync(fd);
      if ((mode & 0o022) !== 0 || (uid !== 0 && uid !== process.getuid?.()))
        return { refused: `${file} could be written by somebody else (owner ${uid}, mode ${(mode & 0o777).toString(8)})` };
      if (size > bytesMax) return { refused: `${file} has ${size} bytes` };
      text = readFileSync(fd, "utf8");
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? undefined : { refused: `${file} cannot be read: ${messageOf(error)}` };
  }
  const end = text.indexOf("\n");
  const body = text.slice(end + 1);
  if (end < 0 || text.slice(0, end) !== digest(body)) return { refused: `${file} is torn or was changed: its checksum is wrong` };
  return { body };
}

/** Returns why it could not be written; the file is then as it was. */
export function writeSealed(folder: string, name: string, body: string): string | undefined {
  try {
    replaceFile(folder, name, `${digest(body)}\n${body}`, true);
    return undefined;
  } catch (error) {
    return `${join(folder, name)}: ${messageOf(error)}`;
  }
}

export function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
