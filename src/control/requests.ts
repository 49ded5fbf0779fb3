import { Fault } from "../base/fault.ts";
import type { Event } from "../model/event.ts";
import { readTerms } from "./event-filter.ts";
import { explain, type ExplainDeps } from "./explain.ts";
import type { Handler, Request } from "./socket.ts";

/** The events so far, and those to come (alerts/history.ts). */
interface Events {
  last(count: number): readonly Event[];
  follow(write: (event: Event) => boolean): boolean;
  unfollow(write: (event: Event) => boolean): void;
}

/** What `namegate unused` asks (control/usage.ts). */
interface Usage {
  readonly sinceMs: number;
  readonly uncounted: number;
  has(policy: string): boolean;
  unused(cutMs: number, policy: string | undefined): readonly unknown[];
}

/** What clients of the socket may ask. */
export function requests(status: () => Promise<unknown>, history: Events, whatIf: ExplainDeps, usage: Usage): Handler {
  return async (request, write) => {
    switch (request.command) {
      case "status":
        write(await status());
        return undefined;
      case "observe": {
        const count = typeof request["last"] === "number" ? request["last"] : 0;
        const passes = readTerms(request["filter"]);
        const matching = passes === undefined ? history.last(count) : history.last(Infinity).filter(passes);
        for (const event of matching.slice(Math.max(0, matching.length - count))) write(event);
        if (request["follow"] !== true) return undefined;
        const follower = (event: Event): boolean => passes?.(event) === false || write(event);
        if (!history.follow(follower)) throw new Fault("too-many", "too many observers", "close one of them");
        return () => history.unfollow(follower);
      }
      case "explain":
        write(await explain(request, whatIf));
        return undefined;
      case "unused":
        unused(request, usage, write);
        return undefined;
      default:
        throw new Fault("request", `unknown command ${String(request.command)}`, "known: status, observe, explain, unused");
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
