import assert from "node:assert/strict";
import { test } from "node:test";
import { QueueWatch, refuseTakenQueues } from "../../src/control/queues.ts";
import type { EventDraft } from "../../src/model/event.ts";

/** As the kernel prints it; 4040 is admission, 4042 the replies. */
const list = (admission: number, replies: number, socket = 0): string =>
  ` 4042 3604203323     0 2 65531     ${replies}     0        0  1\n 4040 2906177248     7 2   256 ${admission} ${socket}    30000  1\n 9999 1 0 2 0 55 55 0 1\n`;

test("what the kernel dropped is counted, and said at once and then now and then", () => {
  const events: EventDraft[] = [];
  const watch = new QueueWatch(4040, (draft) => events.push(draft));
  watch.tick("", 0);
  watch.tick(list(0, 0), 0);
  assert.equal(events.length, 0);
  watch.tick(list(10, 0, 2), 1000);
  assert.deepEqual(
    [events.length, events[0]?.why, events[0]?.count, watch.dropped["admission"], watch.dropped["reply"]],
    [1, "queue-full", 12, 12, 0],
  );
  watch.tick(list(15, 3, 2), 2000);
  watch.tick(list(15, 3, 2), 3000);
  assert.equal(events.length, 1, "not every second");
  watch.tick(list(15, 3, 2), 11_000);
  assert.deepEqual([events.length, events[1]?.count], [2, 8]);
  assert.match(String(events[1]?.message), /admission 17, reply 3/);
  watch.tick(list(15, 3, 2), 60_000);
  assert.equal(events.length, 2, "nothing new");
});

test("a queue that was bound again counts from zero", () => {
  const watch = new QueueWatch(4040, () => undefined);
  watch.tick(list(10, 0), 0);
  watch.tick(list(4, 0), 1);
  assert.equal(watch.dropped["admission"], 14);
});

test("queues that somebody else has are not taken; one that is about to leave is waited for", async () => {
  const taken = " 4040      7     0 2   256     0     0        1  1\n 4043      7     0 2 65531     0     0        0  1\n";
  await refuseTakenQueues(4040, () => "");
  await refuseTakenQueues(4050, () => taken);
  await assert.rejects(
    refuseTakenQueues(4041, () => taken),
    /NFQUEUE 4043/,
  );
  let looks = 0;
  await refuseTakenQueues(4040, () => (++looks < 4 ? taken : ""));
});
