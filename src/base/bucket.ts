/** A clock that goes back so far was set: what it said before is no measure any more. */
const SET_BACK_MS = 10_000;

/** A token bucket: `perSecond` on average, `burst` at once. Times are milliseconds. */
export class TokenBucket {
  private tokens: number;
  private at = 0;
  private readonly perMs: number;
  private readonly burst: number;

  constructor(perSecond: number, burst: number) {
    this.perMs = perSecond / 1000;
    this.burst = burst;
    this.tokens = burst;
  }

  /** Takes one token; false when there is none. */
  take(nowMs: number): boolean {
    this.has(nowMs);
    if (this.tokens < 1) return false;
    this.tokens--;
    return true;
  }

  /** Is there anything left, or less than `debt` owed? For costs that are known only afterwards: `spend` may run up a debt. */
  has(nowMs: number, debt = 0): boolean {
    if (nowMs > this.at) {
      this.tokens = Math.min(this.burst, this.tokens + (nowMs - this.at) * this.perMs);
      this.at = nowMs;
    } else if (this.at - nowMs > SET_BACK_MS) this.at = nowMs;
    return this.tokens > -debt;
  }

  spend(tokens: number): void {
    this.tokens -= tokens;
  }
}
