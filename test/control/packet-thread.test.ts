import assert from "node:assert/strict";
import { test } from "node:test";
import { PacketThread } from "../../src/control/packet-thread.ts";

/** The control thread's side, with a worker that is only what it posts. */
function thread(t: { readonly mock: typeof import("node:test").mock }) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const posted: string[] = [];
  const state = { deaths: 0, events: [] as string[] };
  const it = Object.create(PacketThread.prototype) as PacketThread;
  Object.assign(it, {
    alive: true,
    stopping: false,
    unanswered: -10,
    waiting: new Map(),
    reader: { tick: () => undefined },
    worker: { postMessage: ({ kind }: { kind: string }) => posted.push(kind) },
    log: { fatal: () => undefined },
    emit: ({ why }: { why: string }) => state.events.push(why),
    onDeath: () => state.deaths++,
  });
  const pong = (): void => (it as unknown as { answered: () => void }).answered();
  return { it, posted, state, pong };
}

test("a packet thread that answers lives, however slowly; one that is blocked ends the process", (t) => {
  const { it, posted, state, pong } = thread(t);
  for (let s = 0; s < 300; s++) {
    it.tick(s * 1000);
    if (s % 20 === 19) pong();
  }
  t.mock.timers.tick(10_000);
  assert.deepEqual([it.alive, state.deaths, posted.length], [true, 0, 15], "one question at a time");
  for (let s = 300; s < 400; s++) it.tick(s * 1000);
  t.mock.timers.tick(10_000);
  assert.deepEqual([it.alive, state.deaths, state.events], [false, 1, ["degraded"]]);
  assert.match(it.failure?.message ?? "", /has not answered/);
});
