import assert from "node:assert/strict";
import { test } from "node:test";
import type { NetlinkSocket } from "../../src/base/addon.ts";
import { ConnectionReader } from "../../src/control/connections.ts";
import type { Connections } from "../../src/worker/protocol.ts";

test("a conntrack that cannot be read is said, once, and asked again", async () => {
  const said: string[] = [];
  const parts: Connections["part"][] = [];
  const socket = {
    send: () => {
      throw Object.assign(new Error("Protocol not supported"), { code: "EPROTONOSUPPORT" });
    },
  } as unknown as NetlinkSocket;
  const reader = new ConnectionReader(
    socket,
    () => true,
    ({ part }) => parts.push(part),
    (why) => said.push(why),
  );
  for (let i = 0; i < 3; i++) {
    reader.ask(undefined);
    await new Promise(setImmediate);
  }
  assert.deepEqual(parts, ["failed", "failed", "failed"]);
  assert.equal(said.length, 1);
  assert.match(said[0] as string, /EPROTONOSUPPORT/);
});
