import { closeSync, constants, openSync, opendirSync, readlinkSync, readSync, statSync } from "node:fs";

/** Never through a link, and never waiting for whoever holds the other end of a pipe. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The first `max` bytes of a file; undefined where it is not, is no file, or has gone while it was read. */
export function readBytes(path: string, max: number): Buffer | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, FLAGS);
    const bytes = Buffer.allocUnsafe(max);
    let length = 0;
    for (let got = -1; got !== 0 && length < max; length += got) got = readSync(fd, bytes, length, max - length, null);
    return bytes.subarray(0, length);
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** The beginning of a small file, in one read: proc and cgroup files give what they have at once, up to a page. */
export function readText(path: string, max: number): string | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, FLAGS);
    return small.toString("utf8", 0, readSync(fd, small, 0, Math.min(max, small.length), null));
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

const small = Buffer.allocUnsafe(16 * 1024);

/** Two links of a folder are its name and its own `.`; each folder in it is one more (`..`). File systems that do not count say 1. */
export function hasFolders(path: string): boolean {
  try {
    return statSync(path).nlink !== 2;
  } catch {
    return false;
  }
}

/** What a symbolic link says. */
export function readLinkText(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Names in a folder, at most `max`; `folders`: only folders, and no links to some. Empty where there is no such folder. */
export function list(path: string, max: number, kind: "all" | "folders"): string[] {
  const names: string[] = [];
  try {
    const folder = opendirSync(path, { bufferSize: 256 });
    try {
      for (let entry = folder.readSync(); entry !== null && names.length < max; entry = folder.readSync())
        if (kind === "all" || entry.isDirectory()) names.push(entry.name);
    } finally {
      folder.closeSync();
    }
  } catch {
    // what has been read counts
  }
  return names;
}
