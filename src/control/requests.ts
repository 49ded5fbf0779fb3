import { Fault } from "../base/fault.ts";
import type { Handler, Request } from "./socket.ts";

/** The events so far, and those to come (alerts/history.ts). */
interface Events {
  last(count: number): readonly unknown[];
  follow(write: (value: unknown) => boolean): boolean;
  unfollow(write: (value: unknown) => boolean): void;
}

/** What `namegate unused` asks (control/usage.ts). */
interface Usage {
  readonly sinceMs: number;
  readonly uncounted: number;
  has(policy: string): boolean;
  unused(cutMs: number, policy: string | undefined): readonly unknown[];
}

/** What clients of the socket may ask. */
export function requests(status: () => Promise<unknown>, history: Events, usage: Usage): Handler {
  return async (request, write) => {
    switch (request.command) {
      case "status":
        write(await status());
        return undefined;
      case "observe": {
        const count = typeof request["last"] === "number" ? request["last"] : 0;
        for (const event of history.last(count)) write(event);
        if (request["follow"] !== true) return undefined;
        if (!history.follow(write)) throw new Fault("too-many", "too many observers", "close one of them");
        return () => history.unfollow(write);
      }
      case "unused":
        unused(request, usage, write);
        return undefined;
      default:
        throw new Fault("request", `unknown command ${String(request.command)}`, "known: status, observe, unused");
    }
  };
}

/** A line about the records, then a line for each rule that was not used after `cutMs` (milliseconds since the epoch). */
function unused({ cutMs, policy }: Request, usage: Usage, write: (value: unknown) => void): void {
  if (typeof cutMs !== "number" || !Number.isFinite(cutMs) || (policy !== undefined && typeof policy !== "string"))
    throw new Fault("request", "cutMs is a time, policy a name", "see `namegate unused --help`");
  if (policy !== undefined && !usage.has(policy))
    throw new Fault("no-policy", `policy ${JSON.stringify(policy)} is not in force on this node`, "see `namegate status`");
  write({ observedSince: new Date(usage.sinceMs).toISOString(), uncounted: usage.uncounted });
  for (const rule of usage.unused(cutMs, policy)) write(rule);
}
