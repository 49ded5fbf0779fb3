import assert from "node:assert/strict";
import { test } from "node:test";
import { SelfTest } from "../../src/control/self-test.ts";

test("rounds that are asked for during a round are one, so that slow ones do not pile up", async () => {
  const it = new SelfTest({ emit: () => undefined, log: () => undefined, sender: { frame: () => undefined }, nowMs: () => 0 });
  let rounds = 0;
  let end = (): void => undefined;
  Object.assign(it, {
    round: () => {
      rounds++;
      return new Promise<void>((resolve) => (end = resolve));
    },
  });
  const asked = [it.run()];
  await new Promise(setImmediate);
  for (let i = 0; i < 10; i++) asked.push(it.run());
  end();
  await new Promise(setImmediate);
  assert.equal(rounds, 2, "one more, which knows what the first may not have known");
  end();
  await Promise.all(asked);
  assert.equal(rounds, 2);
  const closed = it.run();
  await new Promise(setImmediate);
  end();
  await closed;
  assert.equal(rounds, 3);
});

test("what was found stays found while it cannot be tried again", () => {
  const events: string[] = [];
  const it = new SelfTest({
    emit: ({ why }) => events.push(String(why)),
    log: () => undefined,
    sender: { frame: () => undefined },
    nowMs: () => 0,
  });
  const enter = (state: string, why?: string): void =>
    (it as unknown as { enter: (state: string, why?: string) => void }).enter(state, why);
  enter("untested", "ip cannot be run");
  assert.deepEqual([it.status.state, it.failure], ["untested", undefined]);
  enter("failed", "IPv6 packets do not come");
  enter("untested", "ip cannot be run");
  assert.deepEqual([it.status.state, it.failure, events], ["failed", "IPv6 packets do not come", ["not-enforcing"]]);
  enter("ok");
  assert.deepEqual([it.failure, events.at(-1)], [undefined, "enforcing-again"]);
});
