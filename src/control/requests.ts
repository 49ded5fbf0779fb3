import type { History } from "../alerts/history.ts";
import { Fault } from "../base/fault.ts";
import type { Handler } from "./socket.ts";

/** What clients of the socket may ask. */
export function requests(status: () => Promise<unknown>, history: History): Handler {
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
