/**
 * Durations counted in buckets by powers of two, in words that somebody else may own: the packet thread counts into shared
 * memory, and the control thread reads it. Counting allocates nothing and reads no clock.
 */

/** Bucket k counts what took at most 2^k µs: 1 µs up to 1.05 s. The last one counts the rest. */
const BOUNDS = 21;
/** Doubles that one histogram takes: its buckets, and the sum. */
export const HISTOGRAM_WORDS = BOUNDS + 2;
const SUM = BOUNDS + 1;
const US_MAX = 2 ** 31;

/** What a histogram has counted, as the Prometheus text format wants it: each bucket counts also what is in those before it. */
export interface Counted {
  /** Seconds; the last is Infinity. */
  readonly buckets: readonly (readonly [atMost: number, count: number])[];
  readonly sum: number;
  readonly count: number;
}

export class Histogram {
  private readonly words: Float64Array;

  /** `words`: HISTOGRAM_WORDS of them, zero at first, written by this object alone. */
  constructor(words: Float64Array) {
    this.words = words;
  }

  /** `count` things took `ms` milliseconds each. */
  observe(ms: number, count = 1): void {
    const us = ms <= 0.001 ? 0 : Math.ceil(Math.min(ms * 1000, US_MAX)) - 1;
    const bucket = Math.min(32 - Math.clz32(us), BOUNDS);
    const { words } = this;
    words[bucket] = (words[bucket] as number) + count;
    words[SUM] = (words[SUM] as number) + ms * count;
  }

  read(): Counted {
    let count = 0;
    const buckets: [number, number][] = [];
    for (let k = 0; k <= BOUNDS; k++) {
      count += this.words[k] as number;
      buckets.push([k === BOUNDS ? Infinity : 2 ** k / 1e6, count]);
    }
    return { buckets, sum: (this.words[SUM] as number) / 1000, count };
  }
}
