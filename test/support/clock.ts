import type { Clock } from "../../src/inputs/kubernetes/clock.ts";

/** Time that only `advance` moves. */
export class ManualClock implements Clock {
  private time = 0;
  private readonly waiting = new Set<{ at: number; run: () => void }>();

  readonly now = (): number => this.time;

  readonly after = (ms: number, run: () => void): (() => void) => {
    const entry = { at: this.time + ms, run };
    this.waiting.add(entry);
    return () => this.waiting.delete(entry);
  };

  /** Runs what is due until then, each at its time. */
  advance(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.waiting].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.waiting.delete(due);
      this.time = Math.max(this.time, due.at);
      due.run();
    }
    this.time = end;
  }
}

/** The real time, `factor` times as fast: what waits half a minute waits 60 ms at 500. */
export function fastClock(factor: number): Clock {
  return {
    now: () => performance.now() * factor,
    after: (ms, run) => {
      const timer = setTimeout(run, ms / factor);
      return () => clearTimeout(timer);
    },
  };
}
