import { Fault } from "../base/fault.ts";
import type { Handler } from "./socket.ts";

/** The events so far, and those to come (alerts/history.ts). */
interface Events {
  last(count: number): readonly unknown[];
  follow(write: (value: unknown) => boolean): boolean;
  unfollow(write: (value: unknown) => boolean): void;
}

/** What clients of the socket may ask. */
export function requests(status: () => Promise<unknown>, history: Events): Handler {
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
      default:
        throw new Fault("request", `unknown command ${String(request.command)}`, "known: status, observe");
    }
  };
}
