import { closeSync, fdatasync, openSync, readdirSync, readSync, renameSync, statSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { HEADER_BYTES, readRecord, RECORD_BYTES_MAX } from "./spool-record.ts";

/** One segment: a file `NAME-NUMBER.seg`, numbers rise. */
export interface Segment {
  readonly number: number;
  bytes: number;
  /** Records in it; of one from an earlier run, as far as it could be read. */
  records: number;
}

export interface Place {
  readonly segment: number;
  readonly offset: number;
}

/** Records read ahead, and where the reader stands behind each. */
export interface Entry {
  readonly payload: string;
  readonly place: Place;
}

export interface Peeked {
  readonly entries: readonly Entry[];
  /** Places in front of them, or among them, where no record could be read. */
  readonly damaged: number;
  /** Where reading ended. */
  readonly end: Place;
}

const READ_BYTES = 256 * 1024;

/**
 * A queue of records in segment files of one folder: appended at the end, read at the front, whole segments dropped. A segment of an
 * earlier run is never written again, for its end may be torn. Everything is synchronous: some microseconds into the page
 * cache. Throws what the file system throws.
 */
export class Lane {
  readonly segments: Segment[] = [];
  private fd: number | undefined;
  /** Where reading goes on. */
  private at: Place = { segment: 0, offset: 0 };
  bytes = 0;
  records = 0;
  private dirty = false;
  private readonly folder: string;
  private readonly name: string;
  private readonly segmentBytes: number;

  constructor(folder: string, name: string, segmentBytes: number) {
    this.folder = folder;
    this.name = name;
    this.segmentBytes = segmentBytes;
    const form = new RegExp(`^${name}-(\\d{1,12})\\.seg$`);
    for (const file of readdirSync(folder)) {
      const number = Number(form.exec(file)?.[1] ?? Number.NaN);
      if (Number.isNaN(number)) continue;
      const segment = { number, bytes: statSync(join(folder, file)).size, records: 0 };
      this.segments.push(segment);
      this.bytes += segment.bytes;
    }
    this.segments.sort((a, b) => a.number - b.number);
    this.at = { segment: this.segments[0]?.number ?? 1, offset: 0 };
    for (const segment of this.segments) {
      segment.records = this.count(segment);
      this.records += segment.records;
    }
  }

  get place(): Place {
    return this.at;
  }

  private path(number: number): string {
    return join(this.folder, `${this.name}-${number}.seg`);
  }

  /** Steps over lengths only: what is damaged is found when it is read. */
  private count({ number, bytes }: Segment): number {
    const fd = openSync(this.path(number), "r");
    const header = Buffer.alloc(HEADER_BYTES);
    let records = 0;
    try {
      for (let at = 0; at + HEADER_BYTES <= bytes; records++) {
        if (readSync(fd, header, 0, HEADER_BYTES, at) < HEADER_BYTES || header.toString("latin1", 0, 4) !== "NGA1") break;
        const length = header.readUInt32LE(4);
        at += HEADER_BYTES + length;
        if (length > RECORD_BYTES_MAX || at > bytes) break;
      }
    } finally {
      closeSync(fd);
    }
    return records;
  }

  /** Continues where a cursor says. One that points nowhere is no cursor: records come again. */
  resume(place: Place): void {
    while (this.segments[0] !== undefined && this.segments[0].number < place.segment) this.drop(this.segments[0]);
    const segment = this.segments[0];
    // Numbers never start again below a cursor: what is written next would count as read after a restart.
    if (segment === undefined) this.at = { segment: place.segment + 1, offset: 0 };
    else if (segment.number === place.segment && place.offset <= segment.bytes) {
      this.at = place;
      this.skipRecords(segment, place.offset);
    }
  }

  private skipRecords(segment: Segment, offset: number): void {
    if (offset === 0) return;
    const left = this.count({ ...segment, bytes: offset });
    segment.records -= Math.min(segment.records, left);
    this.records -= Math.min(this.records, left);
  }

  /** `bytes` are whole records, `records` of them. */
  append(bytes: Buffer, records: number): void {
    let last = this.segments.at(-1);
    if (this.fd === undefined || last === undefined || last.bytes >= this.segmentBytes) {
      this.seal();
      last = { number: (last?.number ?? this.at.segment - 1) + 1, bytes: 0, records: 0 };
      this.fd = openSync(this.path(last.number), "wx", 0o600);
      this.segments.push(last);
    }
    let done = 0;
    try {
      while (done < bytes.length) done += writeSync(this.fd, bytes, done);
    } catch (error) {
      // A torn record in the middle: what comes next goes into another segment.
      last.bytes += done;
      this.bytes += done;
      this.seal();
      if (last.bytes === 0) this.removeEmpty();
      throw error;
    }
    last.bytes += bytes.length;
    last.records += records;
    this.bytes += bytes.length;
    this.records += records;
    this.dirty = true;
  }

  /** The last segment: a full disk still gives out names, and would fill up with empty files. */
  private removeEmpty(): void {
    const last = this.segments.pop();
    if (last === undefined) return;
    try {
      unlinkSync(this.path(last.number));
    } catch {
      this.segments.push(last);
    }
  }

  /** Asks the disk to have it; not waited for. */
  sync(): void {
    if (!this.dirty || this.fd === undefined) return;
    this.dirty = false;
    fdatasync(this.fd, () => undefined);
  }

  private seal(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  /** Up to `count` records of up to `bytes` octets in all (but one at least) from the front on, which stays where it is. */
  peek(count: number, bytes: number): Peeked {
    const entries: Entry[] = [];
    let damaged = 0;
    let total = 0;
    let { segment: number, offset } = this.at;
    for (const segment of this.segments) {
      if (segment.number < number) continue;
      if (segment.number > number) {
        number = segment.number;
        offset = 0;
      }
      const fd = openSync(this.path(number), "r");
      try {
        while (offset < segment.bytes) {
          const rest = segment.bytes - offset;
          let chunk = this.chunk(fd, offset, Math.min(READ_BYTES, rest));
          let at = 0;
          for (;;) {
            let found = readRecord(chunk, at, chunk.length >= rest);
            if (found.kind === "short") {
              if (at > 0 || chunk.length >= rest) break;
              chunk = this.chunk(fd, offset, Math.min(RECORD_BYTES_MAX + HEADER_BYTES, rest));
              found = readRecord(chunk, 0, true); // a record has no more bytes than these
              if (found.kind === "short") break;
            }
            if (found.kind === "damaged") damaged++;
            at = found.next;
            if (found.kind === "record") {
              total += found.payload.length;
              if (entries.length > 0 && total > bytes) return { entries, damaged, end: (entries.at(-1) as Entry).place };
              const place = { segment: number, offset: offset + at };
              entries.push({ payload: found.payload, place });
              if (entries.length >= count) return { entries, damaged, end: place };
            }
          }
          if (at === 0) at = rest; // the file is shorter than it was
          offset += at;
        }
      } finally {
        closeSync(fd);
      }
    }
    return { entries, damaged, end: { segment: number, offset } };
  }

  private chunk(fd: number, offset: number, bytes: number): Buffer {
    const chunk = Buffer.allocUnsafe(bytes);
    return chunk.subarray(0, readSync(fd, chunk, 0, bytes, offset));
  }

  /** The front moves to `place`, over `records` of them; segments before it go. */
  advance(place: Place, records: number): void {
    // Dropped for want of room while they were on their way.
    if (place.segment < this.at.segment) return;
    while (this.segments[0] !== undefined && this.segments[0].number < place.segment) this.drop(this.segments[0]);
    const segment = this.segments[0];
    this.at = place;
    if (segment?.number !== place.segment) return;
    const here = Math.min(segment.records, records);
    segment.records -= here;
    this.records -= here;
    // Read to its end: what comes next begins another one.
    if (place.offset >= segment.bytes) this.drop(segment);
  }

  /** Gives up the oldest segment. */
  dropOldest(): Segment | undefined {
    const oldest = this.segments[0];
    if (oldest !== undefined) this.drop(oldest);
    return oldest;
  }

  private drop(segment: Segment): void {
    if (segment === this.segments.at(-1)) this.seal();
    const index = this.segments.indexOf(segment);
    if (index >= 0) this.segments.splice(index, 1);
    this.bytes -= segment.bytes;
    this.records = Math.max(0, this.records - segment.records);
    if (this.at.segment <= segment.number) this.at = { segment: segment.number + 1, offset: 0 };
    try {
      unlinkSync(this.path(segment.number));
    } catch {
      // Gone already, or it comes again after a restart.
    }
  }

  close(): void {
    this.seal();
  }
}

/** Replaces `file` at once, or not at all. */
export function replaceFile(file: string, text: string): void {
  const temporary = `${file}.new`;
  const fd = openSync(temporary, "w", 0o600);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, file);
}
