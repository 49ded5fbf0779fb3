import { closeSync, constants, fchmodSync, fstatSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf } from "../../base/fault.ts";

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;

/** A file of lines, for its owner only, that begins anew when it is full: `FILE`, `FILE.1` (the last before it) … `FILE.<keep>`. */
export class RotatedFile {
  private readonly path: string;
  private readonly maxBytes: number;
  private readonly keep: number;
  private fd: number | undefined;
  private size = 0;
  written = 0;
  lost = 0;
  failure: string | undefined;

  constructor(path: string, maxBytes: number, keep: number) {
    this.path = path;
    this.maxBytes = maxBytes;
    this.keep = keep;
  }

  /** Appends whole lines, in one write. Never throws: what the disk refuses is counted. */
  write(lines: readonly string[]): void {
    if (lines.length === 0) return;
    const bytes = Buffer.from(`${lines.join("\n")}\n`);
    try {
      if (this.fd !== undefined && this.size + bytes.length > this.maxBytes && this.size > 0) this.rotate();
      const fd = this.open();
      let done = 0;
      while (done < bytes.length) done += writeSync(fd, bytes, done);
      this.size += bytes.length;
      this.written += lines.length;
      this.failure = undefined;
    } catch (error) {
      this.failure = messageOf(error);
      this.lost += lines.length;
      this.close(); // tried again with the next lines
    }
  }

  private open(): number {
    if (this.fd !== undefined) return this.fd;
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    this.fd = openSync(this.path, O_APPEND | O_CREAT | O_NOFOLLOW | O_WRONLY, 0o600);
    fchmodSync(this.fd, 0o600);
    this.size = fstatSync(this.fd).size;
    return this.fd;
  }

  private rotate(): void {
    this.close();
    const name = (n: number): string => (n === 0 ? this.path : `${this.path}.${n}`);
    rmSync(name(this.keep), { force: true });
    for (let n = this.keep - 1; n >= 0; n--) {
      try {
        renameSync(name(n), name(n + 1));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }
}
