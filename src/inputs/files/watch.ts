import { closeSync, constants, type FSWatcher, fstatSync, openSync, readdirSync, readFileSync, statSync, watch } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../../base/fault.ts";

/**
 * Watches one file or one folder and calls `changed` soon after something in it changed: at once by inotify, and by a slow
 * poll where inotify says nothing (a mounted ConfigMap swaps a link; some file systems have no events). Before that
 * `touched` is told the name in the folder that an event was about, or undefined: anything may have changed; it says whether
 * that matters.
 */
export interface Watched {
  close(): void;
}

const POLL_MS = 2000;
/** Where inotify works the poll only makes sure. */
const SURE_MS = 10_000;
/** Of one input file; a ConfigMap has at most 1 MiB. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;
const SETTLE_MS = 1; // several events of one save become one

export function watchPath(path: string, changed: () => void, touched: (name: string | undefined) => boolean = () => true): Watched {
  let watcher: FSWatcher | undefined;
  let timer: NodeJS.Timeout | undefined;
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      changed();
    }, SETTLE_MS);
  };
  const open = (): void => {
    const old = watcher;
    try {
      watcher = watch(path, { persistent: false }, (event, name) => {
        // An editor or an atomic write replaces the file: the watch is on the old one. (A folder merely gets a new watch.)
        if (event === "rename") open();
        if (touched(name ?? undefined)) soon();
      });
      watcher.on("error", () => {
        watcher?.close();
        watcher = undefined;
        pollSoon();
      });
    } catch {
      watcher = undefined; // not there (yet): the poll will see it
      if (old !== undefined) pollSoon();
    }
    old?.close();
  };
  let last = fingerprint(path);
  let poll: NodeJS.Timeout | undefined;
  const pollSoon = (): void => {
    clearTimeout(poll);
    poll = setTimeout(look, watcher === undefined ? POLL_MS : SURE_MS).unref();
  };
  const look = (): void => {
    if (watcher === undefined) open();
    pollSoon();
    // What an event announced is read here once more, a little later: that costs less than telling them apart.
    const now = fingerprint(path);
    if (now === last) return;
    last = now;
    touched(undefined);
    soon();
  };
  open();
  pollSoon();
  return {
    close: () => {
      clearTimeout(poll);
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

function isManifest(name: string): boolean {
  return /\.ya?ml$/.test(name) && !name.startsWith(".");
}

function manifestNames(folder: string): string[] {
  return readdirSync(folder).filter(isManifest).sort();
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

/** A manifest as it was read; the same object as long as nobody touched the file. */
export interface Manifest {
  readonly file: string;
  readonly text: string;
}

/** All manifests of a folder, sorted by name; those that cannot be read are named. */
export interface Manifests {
  readonly files: readonly Manifest[];
  readonly failed: readonly { readonly file: string; readonly why: string }[];
}

/** The manifests in a folder, read again and again; only what was touched since is opened. */
export class ManifestFolder {
  private readonly folder: string;
  private kept = new Map<string, Manifest>();
  private readonly again = new Set<string>();
  /** undefined: anything may have changed. */
  private last: Manifests | undefined;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** As `watchPath` says. `..data`, the link of a mounted ConfigMap, stands for all of them. */
  touched(name: string | undefined): boolean {
    if (name === undefined || name.startsWith("..")) {
      this.kept.clear();
      this.last = undefined;
      return true;
    }
    if (!isManifest(name)) return false;
    this.again.add(name);
    return true;
  }

  /** The same object as long as nothing was touched. */
  read(): Manifests {
    this.last = this.readSome(this.last) ?? this.readAll();
    this.again.clear();
    return this.last;
  }

  /** Where every file that was touched can be read, the folder need not be listed: no other has come or gone. */
  private readSome(last: Manifests | undefined): Manifests | undefined {
    if (last === undefined || last.failed.length > 0) return undefined;
    if (this.again.size === 0) return last;
    try {
      for (const name of this.again) this.kept.set(name, this.open(name));
    } catch {
      return undefined;
    }
    const files = [...this.kept].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, manifest]) => manifest);
    return { files, failed: [] };
  }

  private readAll(): Manifests {
    const files: Manifest[] = [];
    const failed: { file: string; why: string }[] = [];
    const next = new Map<string, Manifest>();
    for (const name of manifestNames(this.folder)) {
      try {
        const manifest = (this.again.has(name) ? undefined : this.kept.get(name)) ?? this.open(name);
        next.set(name, manifest);
        files.push(manifest);
      } catch (error) {
        failed.push({ file: join(this.folder, name), why: messageOf(error) });
      }
    }
    this.kept = next;
    return { files, failed };
  }

  private open(name: string): Manifest {
    const file = join(this.folder, name);
    return { file, text: textOf(file) };
  }
}

/** Who owns the file, and when it was last written; empty where it is gone. */
export function ownerOf(file: string): { readonly uid?: number; readonly mtimeMs?: number } {
  try {
    const { uid, mtimeMs } = statSync(file);
    return { uid, mtimeMs };
  } catch {
    return {};
  }
}

/** The text of one file, or why it cannot be read. */
export function readText(
  file: string,
): { readonly text: string; readonly why?: undefined } | { readonly text?: undefined; readonly why: string } {
  try {
    return { text: textOf(file) };
  } catch (error) {
    return { why: messageOf(error) };
  }
}
