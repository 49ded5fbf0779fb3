import { closeSync, constants, type FSWatcher, fstatSync, openSync, readdirSync, readFileSync, statSync, watch } from "node:fs";
import { join } from "node:path";

/**
 * Watches one file or one folder and calls `changed` soon after something in it changed: at once by inotify, and by a slow
 * poll where inotify says nothing (a mounted ConfigMap swaps a link; some file systems have no events).
 */
export interface Watched {
  close(): void;
}

const POLL_MS = 2000;
/** Of one input file; a ConfigMap has at most 1 MiB. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;
const SETTLE_MS = 1; // several events of one save become one

export function watchPath(path: string, changed: () => void): Watched {
  let watcher: FSWatcher | undefined;
  let timer: NodeJS.Timeout | undefined;
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      last = fingerprint(path);
      changed();
    }, SETTLE_MS);
  };
  const open = (): void => {
    const old = watcher;
    try {
      watcher = watch(path, { persistent: false }, (event) => {
        // An editor or an atomic write replaces the file: the watch is on the old one. (A folder merely gets a new watch.)
        if (event === "rename") open();
        soon();
      });
      watcher.on("error", () => {
        watcher?.close();
        watcher = undefined;
      });
    } catch {
      watcher = undefined; // not there (yet): the poll will see it
    }
    old?.close();
  };
  let last = fingerprint(path);
  open();
  const poll = setInterval(() => {
    if (watcher === undefined) open();
    const now = fingerprint(path);
    if (now !== last) soon();
  }, POLL_MS);
  poll.unref();
  return {
    close: () => {
      clearInterval(poll);
      clearTimeout(timer);
      watcher?.close();
    },
  };
}

function stamp(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs}/${size}/${ino}`;
  } catch {
    return "gone";
  }
}

function fingerprint(path: string): string {
  try {
    if (!statSync(path).isDirectory()) return stamp(path);
    return manifestNames(path)
      .map((name) => `${name}:${stamp(join(path, name))}`)
      .join("|");
  } catch {
    return "gone";
  }
}

function manifestNames(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /\.ya?ml$/.test(name) && !name.startsWith("."))
    .sort();
}

/** What is not a plain file of sensible size is refused: a pipe would never answer, a device never end. */
function textOf(file: string): string {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error("it is not a file");
    if (stat.size > FILE_BYTES_MAX) throw new Error(`it has ${stat.size} bytes; the limit is ${FILE_BYTES_MAX}`);
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

/** The manifests in a folder, sorted by name; those that cannot be read are named. */
export function readFolder(folder: string): {
  readonly files: readonly { file: string; text: string }[];
  readonly failed: readonly { file: string; why: string }[];
} {
  const files: { file: string; text: string }[] = [];
  const failed: { file: string; why: string }[] = [];
  for (const name of manifestNames(folder)) {
    const file = join(folder, name);
    try {
      files.push({ file, text: textOf(file) });
    } catch (error) {
      failed.push({ file, why: error instanceof Error ? error.message : String(error) });
    }
  }
  return { files, failed };
}

/** The text of one file, or why it cannot be read. */
export function readText(
  file: string,
): { readonly text: string; readonly why?: undefined } | { readonly text?: undefined; readonly why: string } {
  try {
    return { text: textOf(file) };
  } catch (error) {
    return { why: error instanceof Error ? error.message : String(error) };
  }
}
