import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * Writes a file of the state folder (made where it is not there), mode 0600, in place of the one before, as a whole. `durable`: it is on
 * the disk before it takes that one's place. Throws what the file system says; the file is then as it was.
 */
export function replaceFile(folder: string, name: string, text: string, durable = false): void {
  const file = join(folder, name);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const fd = openSync(`${file}.new`, "w", 0o600);
  try {
    writeFileSync(fd, text);
    if (durable) fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(`${file}.new`, file);
}
