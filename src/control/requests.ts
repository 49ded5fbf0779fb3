import { Fault } from "../base/fault.ts";
import type { Event } from "../model/event.ts";
import { readTerms } from "./event-filter.ts";
import { explain, type ExplainDeps } from "./explain.ts";
import type { Handler } from "./socket.ts";

/** The events so far, and those to come (alerts/history.ts). */
interface Events {
  last(count: number): readonly Event[];
  follow(write: (event: Event) => boolean): boolean;
  unfollow(write: (event: Event) => boolean): void;
}

/** What clients of the socket may ask. */
export function requests(status: () => Promise<unknown>, history: Events, whatIf: ExplainDeps): Handler {
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
      default:
        throw new Fault("request", `unknown command ${String(request.command)}`, "known: status, observe, explain");
    }
  };
}
