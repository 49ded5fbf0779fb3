import { Fault, messageOf } from "../base/fault.ts";

/** What one look at the node gave. `warn`: enforcing works, but not for everything or not for long. */
export interface Finding {
  readonly check: string;
  readonly status: "ok" | "warn" | "failed";
  readonly found: string;
  readonly fix: string | null;
}

export const ok = (check: string, found: string): Finding => ({ check, status: "ok", found, fix: null });
export const warn = (check: string, found: string, fix: string): Finding => ({ check, status: "warn", found, fix });
export const failed = (check: string, found: string, fix: string): Finding => ({ check, status: "failed", found, fix });

/** A check that throws has failed; a Fault says what to do. */
export async function attempt(check: string, look: () => Finding | Promise<Finding>): Promise<Finding> {
  try {
    return await look();
  } catch (error) {
    return failed(check, messageOf(error), error instanceof Fault ? error.fix : "see the message");
  }
}
