import type { ServerResponse } from "node:http";
import type { Event } from "../model/event.ts";

/** What the stream needs of alerts/history.ts: a ring, whose events have numbers from 1 on. */
export interface Events {
  readonly total: number;
  /** How many of `total` are no longer there. */
  readonly forgotten: number;
  after(seen: number, count: number): readonly Event[];
  follow(follower: (event: Event) => boolean): boolean;
  unfollow(follower: (event: Event) => boolean): void;
}

const CLIENTS_MAX = 8;
const BATCH_EVENTS = 256;
const BATCH_CHARS = 128 * 1024;
/** Between two batches of one client: a flood of events costs the control thread no more than this. */
const PAUSE_MS = 25;
const ALIVE_MS = 15_000;
/** A client that does not take a batch for so long is cut. */
const STALL_MS = 20_000;
const RETRY_MS = 1000;

/**
 * Server-Sent Events. The history is the only backlog: a client is a number in it, and has at most one batch on its way. One that is
 * slower than the ring is told how many it missed.
 */
export class Streams {
  private readonly clients = new Set<ServerResponse>();
  private readonly events: Events;
  private readonly run: string;

  constructor(events: Events, run: string) {
    this.events = events;
    this.run = run;
  }

  get size(): number {
    return this.clients.size;
  }

  /** `lastId`: the id of the last event that the client has. False: there are too many clients. */
  open(response: ServerResponse, lastId: string | undefined): boolean {
    const { clients, events } = this;
    if (clients.size >= CLIENTS_MAX) return false;
    const last = numberOf(lastId, this.run);
    // Who begins has missed nothing.
    let seen = last > 0 && last <= events.total ? last : events.forgotten;
    let timer: NodeJS.Timeout | undefined;
    let stalled: NodeJS.Timeout | undefined;
    const pump = (): void => {
      timer = undefined;
      const missed = Math.max(0, events.forgotten - seen);
      seen += missed;
      const batch = batchOf(events.after(seen, BATCH_EVENTS));
      if (batch.count === 0) return;
      seen += batch.count;
      const gap = missed === 0 ? "" : `event: missed\ndata: ${missed}\n\n`;
      if (response.write(`${gap}id: ${batch.lastId}\ndata: ${batch.text}\n\n`)) return wake();
      stalled = setTimeout(() => response.destroy(), STALL_MS);
      response.once("drain", () => {
        clearTimeout(stalled);
        stalled = undefined;
        wake();
      });
    };
    const wake = (): void => {
      if (stalled === undefined) timer ??= setTimeout(pump, PAUSE_MS);
    };
    const follower = (): boolean => {
      wake();
      return true;
    };
    if (!events.follow(follower)) return false;
    clients.add(response);
    const alive = setInterval(() => {
      if (stalled === undefined) response.write(":\n\n");
    }, ALIVE_MS);
    response.once("close", () => {
      clients.delete(response);
      events.unfollow(follower);
      clearInterval(alive);
      clearTimeout(timer);
      clearTimeout(stalled);
    });
    response.on("error", () => response.destroy());
    response.write(`retry: ${RETRY_MS}\nevent: hello\ndata: ${JSON.stringify({ run: this.run })}\n\n`);
    wake();
    return true;
  }

  close(): void {
    for (const response of this.clients) response.destroy();
  }
}

/** As many of them as fit, one at least. JSON has no line break of its own. */
function batchOf(events: readonly Event[]): { readonly count: number; readonly lastId: string; readonly text: string } {
  const texts: string[] = [];
  let chars = 0;
  for (const event of events) {
    if (chars >= BATCH_CHARS) break;
    const text = JSON.stringify(event);
    chars += text.length;
    texts.push(text);
  }
  return { count: texts.length, lastId: events[texts.length - 1]?.id ?? "", text: `[${texts.join(",")}]` };
}

/** The number of an event by its id; 0: it is none of this run's. */
export function numberOf(id: string | undefined, run: string): number {
  const number = id?.startsWith(`${run}-`) === true ? Number(id.slice(run.length + 1)) : 0;
  return Number.isSafeInteger(number) && number > 0 ? number : 0;
}
