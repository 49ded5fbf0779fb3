/** Never less: a server that ends every request at once gets a handful of them, not hundreds. */
const WAIT_MS_MIN = 100;
/** The first wait is between the two: a thousand agents that were cut at once come back over a second. */
const FIRST_MS_MAX = 1000;
const WAIT_MS_MAX = 30_000;
const RETRY_AFTER_MS_MAX = 120_000;

/** How long to wait before the next try: exponential, with full jitter. */
export class Backoff {
  private ceilingMs = FIRST_MS_MAX;
  private readonly random: () => number;
  private readonly maxMs: number;

  constructor(random: () => number, maxMs = WAIT_MS_MAX) {
    this.random = random;
    this.maxMs = maxMs;
  }

  /** `retryAfterMs`: what the server asked for comes first, and the jitter on top. */
  next(retryAfterMs = 0): number {
    const wait = WAIT_MS_MIN + this.random() * (this.ceilingMs - WAIT_MS_MIN);
    this.ceilingMs = Math.min(this.maxMs, this.ceilingMs * 2);
    return Math.min(retryAfterMs, RETRY_AFTER_MS_MAX) + wait;
  }

  reset(): void {
    this.ceilingMs = FIRST_MS_MAX;
  }
}
