/** Time, as an argument: tests have one that they move. */
export interface Clock {
  /** Milliseconds; only differences matter. */
  readonly now: () => number;
  /** Calls `run` once after `ms`, unless what is returned is called first. */
  readonly after: (ms: number, run: () => void) => () => void;
}

export function systemClock(now: () => number): Clock {
  return {
    now,
    after: (ms, run) => {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
  };
}

/** Resolves after `ms`, or when the signal comes. */
export function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const cancel = clock.after(ms, done);
    signal.addEventListener("abort", done);
  });
}
