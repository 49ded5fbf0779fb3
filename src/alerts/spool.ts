import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../base/fault.ts";
import { SEVERITIES, type Severity } from "../model/alerts.ts";
import { type Entry, Lane, type Place, type Peeked, replaceFile } from "./spool-lane.ts";
import { crc32, encodeRecord, RECORD_BYTES_MAX } from "./spool-record.ts";

/** A spool has about so many segments when it is full: what goes at a time when there is no room. */
const SEGMENTS = 32;
const SEGMENT_BYTES_MAX = 1024 * 1024;
const CURSOR_BYTES_MAX = 4096;

export interface SpoolItem {
  readonly severity: Severity;
  /** The event in JSON. */
  readonly payload: string;
}

export interface SpoolBatch {
  readonly items: readonly SpoolItem[];
  /** What ack() needs. */
  readonly ends: readonly { readonly severity: Severity; readonly place: Place; readonly peeked: Peeked }[];
}

export interface SpoolStatus {
  readonly bytes: number;
  /** The most that `bytes` may be. */
  readonly maxBytes: number;
  readonly events: number;
  /** Given up for want of room or because the disk refused them. */
  readonly lost: Readonly<Record<Severity, number>>;
  /** Places of segments where no event could be read. */
  readonly damaged: number;
  /** Why the disk refused the last write; undefined: it did not. */
  readonly failure: string | undefined;
}

/**
 * Events that wait for one collector, on disk: a lane of segments for each severity, the most severe delivered first and the
 * least severe given up first, and a cursor.
 *
 * What flush() has written survives the end of the process (kill -9): it is in the page cache. What sync() was asked for, once
 * a second, survives the end of the machine. Delivery is at least once: the cursor is written behind the acknowledgement, and an old
 * or broken cursor brings events again, with the same ids. A damaged record costs itself.
 */
export class Spool {
  private readonly lanes: Readonly<Record<Severity, Lane>>;
  private readonly waiting = new Map<Severity, Buffer[]>();
  private readonly lost: Record<Severity, number> = { info: 0, low: 0, medium: 0, high: 0, critical: 0 };
  private damaged = 0;
  private failure: string | undefined;
  private taken: SpoolBatch | undefined;
  private readonly cursor: string;
  private readonly maxBytes: number;

  constructor(folder: string, maxBytes: number) {
    this.maxBytes = maxBytes;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.cursor = join(folder, "cursor");
    const size = Math.min(SEGMENT_BYTES_MAX, Math.ceil(maxBytes / SEGMENTS));
    this.lanes = Object.fromEntries(SEVERITIES.map((severity) => [severity, new Lane(folder, severity, size)])) as Record<Severity, Lane>;
    const places = readCursor(this.cursor);
    for (const severity of SEVERITIES) {
      const place = places[severity];
      if (place !== undefined) this.lanes[severity].resume(place);
    }
  }

  get bytes(): number {
    return SEVERITIES.reduce((sum, severity) => sum + this.lanes[severity].bytes, 0);
  }

  get empty(): boolean {
    return SEVERITIES.every((severity) => this.lanes[severity].segments.length === 0);
  }

  status(): SpoolStatus {
    return {
      bytes: this.bytes,
      maxBytes: this.maxBytes,
      events: SEVERITIES.reduce((sum, severity) => sum + this.lanes[severity].records, 0),
      lost: { ...this.lost },
      damaged: this.damaged,
      failure: this.failure,
    };
  }

  /** Kept once flush() has run. */
  add(severity: Severity, payload: string): void {
    const record = encodeRecord(payload);
    if (record.length > RECORD_BYTES_MAX) {
      this.lost[severity]++;
      return;
    }
    const list = this.waiting.get(severity);
    if (list === undefined) this.waiting.set(severity, [record]);
    else list.push(record);
  }

  /** One write a lane. Never throws: what cannot be written is counted. */
  flush(): void {
    for (const [severity, records] of this.waiting) this.write(severity, records);
    this.waiting.clear();
  }

  private write(severity: Severity, records: readonly Buffer[]): void {
    // A burst may be larger than the spool: as much at a time as has room.
    const most = Math.max(1, Math.floor(this.maxBytes / SEGMENTS));
    for (let from = 0; from < records.length; ) {
      let to = from;
      let bytes = 0;
      do bytes += (records[to++] as Buffer).length;
      while (to < records.length && bytes + (records[to] as Buffer).length <= most);
      if (!this.room(severity, bytes)) this.lost[severity] += to - from;
      else {
        try {
          this.lanes[severity].append(Buffer.concat(records.slice(from, to)), to - from);
          this.failure = undefined;
        } catch (error) {
          this.failure = messageOf(error);
          this.lost[severity] += to - from;
        }
      }
      from = to;
    }
  }

  /** Makes room by giving up what is less severe, and then what is older; false: everything there is more severe. */
  private room(severity: Severity, bytes: number): boolean {
    while (this.bytes + bytes > this.maxBytes) {
      const least = SEVERITIES.find((one) => this.lanes[one].segments.length > 0);
      if (least === undefined || SEVERITIES.indexOf(least) > SEVERITIES.indexOf(severity)) return false;
      const segment = this.lanes[least].dropOldest();
      if (segment !== undefined) this.lost[least] += Math.max(0, segment.records - this.onTheWay(least, segment.number));
    }
    return true;
  }

  private onTheWay(severity: Severity, segment: number): number {
    const found = this.taken?.ends.find((one) => one.severity === severity);
    return found?.peeked.entries.filter(({ place }) => place.segment === segment).length ?? 0;
  }

  /** The next events, most severe first; the same again until they are acknowledged. undefined: there are none. */
  take(count: number, bytes: number): SpoolBatch | undefined {
    for (;;) {
      const items: SpoolItem[] = [];
      const ends: { severity: Severity; place: Place; peeked: Peeked }[] = [];
      let left = bytes;
      for (const severity of [...SEVERITIES].reverse()) {
        const lane = this.lanes[severity];
        if (lane.segments.length === 0 || items.length >= count || (items.length > 0 && left <= 0)) continue;
        const peeked = this.peek(lane, count - items.length, left);
        ends.push({ severity, place: peeked.end, peeked });
        for (const { payload } of peeked.entries) {
          items.push({ severity, payload });
          left -= payload.length;
        }
      }
      if (ends.length === 0) return undefined;
      this.taken = { items, ends };
      if (items.length > 0) return this.taken;
      this.ack(this.taken); // nothing in them could be read
    }
  }

  /** A segment that cannot be opened or read is given up. */
  private peek(lane: Lane, count: number, bytes: number): Peeked {
    try {
      return lane.peek(count, bytes);
    } catch (error) {
      this.failure = messageOf(error);
      lane.dropOldest();
      return { entries: [] as Entry[], damaged: 1, end: lane.place };
    }
  }

  ack({ ends }: SpoolBatch): void {
    this.taken = undefined;
    for (const { severity, place, peeked } of ends) {
      this.damaged += peeked.damaged;
      this.lanes[severity].advance(place, peeked.entries.length);
    }
    try {
      replaceFile(this.cursor, cursorText(Object.fromEntries(SEVERITIES.map((one) => [one, this.lanes[one].place]))));
    } catch (error) {
      this.failure = messageOf(error); // they come again after a restart
    }
  }

  /** Asks the disk to have what was written. */
  sync(): void {
    for (const severity of SEVERITIES) this.lanes[severity].sync();
  }

  close(): void {
    this.flush();
    for (const severity of SEVERITIES) this.lanes[severity].close();
  }
}

type Places = Readonly<Partial<Record<Severity, Place>>>;

function cursorText(places: Places): string {
  const body = JSON.stringify(places);
  return `${crc32(Buffer.from(body)).toString(16)} ${body}\n`;
}

/** Without a whole cursor everything is read from the start. */
function readCursor(file: string): Places {
  try {
    const text = readFileSync(file);
    if (text.length > CURSOR_BYTES_MAX) return {};
    const [crc = "", ...rest] = text.toString().trimEnd().split(" ");
    const body = rest.join(" ");
    return crc === crc32(Buffer.from(body)).toString(16) ? (JSON.parse(body) as Places) : {};
  } catch {
    return {};
  }
}
