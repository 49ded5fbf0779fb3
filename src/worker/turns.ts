/**
 * Whose packet is next, when more come than can be handled. What a batch brings is handled at once up to a bound; beyond it
 * each owner has a line of its own, and the lines are served in turn, a packet each, with a turn of the event loop in between.
 * So the queue that all share stays short, and who sends more than there is time for waits for himself.
 *
 * A line may be as long as the room that is left (after Choudhury and Hahne, "Dynamic queue length thresholds", 1998): one
 * alone may use half of it all, many leave room for one more, and there is nothing to be tuned to their number.
 */

/** Packets handled in one turn of the event loop: of a batch, and of the lines. With what each causes in the kernel, about a quarter of a millisecond. */
export const TURN_PACKETS = 8;
/** Milliseconds after which a turn ends, whatever it has handled. */
const TURN_MS = 1;
/** Packets and bytes in all lines: about 100 ms of work, which no sender takes for a loss. */
const PACKETS_MAX = 4096;
const OCTETS_MAX = 8 * 1024 * 1024;
/** What a line may have however little room is left. */
const PACKETS_ANYWAY = 4;
const OCTETS_ANYWAY = 32 * 1024;
/** What a packet costs beside its bytes. */
const PACKET_OCTETS = 256;

interface Line<Item> {
  readonly items: Item[];
  octets: number;
}

export class Turns<Owner extends object, Item extends { readonly bytes: Uint8Array }> {
  /** Who is served next comes first. */
  readonly #lines = new Map<Owner, Line<Item>>();
  readonly #handle: (item: Item) => void;
  readonly #later: (serve: () => void) => void;
  readonly #clock: () => number;
  #packets = 0;
  #octets = 0;
  #left = 0;
  #until = 0;
  #awake = false;

  /** `later`: after the next look at the queues. `clock`: milliseconds. */
  constructor(
    handle: (item: Item) => void,
    later: (serve: () => void) => void = setImmediate,
    clock: () => number = () => performance.now(),
  ) {
    this.#handle = handle;
    this.#later = later;
    this.#clock = clock;
  }

  /** Packets that wait. */
  get size(): number {
    return this.#packets;
  }

  /** A batch has come. */
  begin(): void {
    this.#left = TURN_PACKETS;
    this.#until = this.#clock() + TURN_MS;
  }

  /** May this owner's packet of the batch be handled now? Then it counts. Never before one of his that waits. */
  now(owner: Owner): boolean {
    if (this.#left === 0 || this.#lines.has(owner)) return false;
    // Only who comes behind others can be late: the clock need not be asked for the usual batch of a few.
    if (this.#left < TURN_PACKETS / 2 && this.#clock() > this.#until) {
      this.#left = 0;
      return false;
    }
    this.#left--;
    return true;
  }

  /** Has the owner's line room for one more packet? */
  hasRoom(owner: Owner): boolean {
    const line = this.#lines.get(owner);
    if (line === undefined) return true;
    const packets = Math.max(PACKETS_ANYWAY, PACKETS_MAX - this.#packets);
    const octets = Math.max(OCTETS_ANYWAY, OCTETS_MAX - this.#octets);
    return line.items.length < packets && line.octets < octets;
  }

  /** Puts it at the end of the owner's line; ask `hasRoom` before. */
  wait(owner: Owner, item: Item): void {
    let line = this.#lines.get(owner);
    if (line === undefined) {
      this.#lines.set(owner, (line = { items: [], octets: 0 }));
    }
    line.items.push(item);
    this.#count(line, item, 1);
    this.#wake();
  }

  /** Forgets what `which` says. */
  forget(which: (item: Item) => boolean): void {
    for (const [owner, line] of this.#lines) {
      const kept = line.items.filter((item) => !which(item));
      for (const item of line.items) if (which(item)) this.#count(line, item, -1);
      line.items.splice(0, Infinity, ...kept);
      if (kept.length === 0) this.#lines.delete(owner);
    }
  }

  #wake(): void {
    if (this.#awake || this.#lines.size === 0) return;
    this.#awake = true;
    this.#later(this.#serve);
  }

  readonly #serve = (): void => {
    this.#awake = false;
    const until = this.#clock() + TURN_MS;
    for (let served = 0; served < TURN_PACKETS && (served === 0 || this.#clock() < until); served++) {
      const next = this.#lines.entries().next();
      if (next.done === true) break;
      const [owner, line] = next.value;
      const item = line.items.shift() as Item;
      this.#count(line, item, -1);
      this.#lines.delete(owner);
      if (line.items.length > 0) this.#lines.set(owner, line);
      this.#handle(item);
    }
    this.#wake();
  };

  #count(line: Line<Item>, { bytes }: Item, sign: 1 | -1): void {
    const octets = sign * (bytes.length + PACKET_OCTETS);
    line.octets += octets;
    this.#octets += octets;
    this.#packets += sign;
  }
}
