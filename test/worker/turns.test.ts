import assert from "node:assert/strict";
import { test } from "node:test";
import { TURN_PACKETS, Turns } from "../../src/worker/turns.ts";

/** Turns whose event loop is `turn`, and whose packets take `costMs` each. */
function room(costMs = 0) {
  const handled: string[] = [];
  const later: (() => void)[] = [];
  let nowMs = 0;
  const work = (text: string): void => {
    handled.push(text);
    nowMs += costMs;
  };
  const turns = new Turns<object, { readonly text: string; readonly bytes: Uint8Array }>(
    ({ text }) => work(text),
    (serve) => void later.push(serve),
    () => nowMs,
  );
  return {
    turns,
    handled,
    /** A batch; each packet is handled at once, waits, or is refused. */
    batch: (packets: readonly (readonly [owner: object, text: string])[], octets = 100) =>
      packets.map(([owner, text]) => {
        if (turns.now(owner)) {
          work(text);
          return "now";
        }
        if (!turns.hasRoom(owner)) return "refused";
        turns.wait(owner, { text, bytes: new Uint8Array(octets) });
        return "waits";
      }),
    /** What one turn of the loop handles of the lines; undefined: nothing is due. */
    turn: () => {
      const before = handled.length;
      const serve = later.shift();
      assert.equal(later.length, 0, "one turn at a time");
      serve?.();
      return serve === undefined ? undefined : handled.slice(before);
    },
  };
}

const many = (owner: object, name: string, count: number): (readonly [object, string])[] =>
  Array.from({ length: count }, (_, i) => [owner, `${name}${i}`] as const);
const count = (all: readonly string[], what: string): number => all.filter((one) => one === what).length;

test("a small batch is handled at once, and nothing waits", () => {
  const it = room();
  it.turns.begin();
  assert.deepEqual(it.batch(many({}, "a", TURN_PACKETS)), Array(TURN_PACKETS).fill("now"));
  assert.deepEqual([it.turns.size, it.turn()], [0, undefined]);
});

test("who sends one packet waits for no more than one of each other's, however many those have", () => {
  const it = room();
  const hogs = Array.from({ length: 6 }, () => ({}));
  it.turns.begin();
  it.batch(hogs.flatMap((hog, i) => many(hog, `hog${i}-`, 100)));
  it.batch([[{}, "victim"]]);
  const first = it.turn() as string[];
  assert.equal(first.length, TURN_PACKETS);
  assert.ok(first.slice(0, 7).includes("victim"), first.join());
});

test("whose line is empty is handled at once, also when all others wait", () => {
  const it = room();
  const hog = {};
  it.turns.begin();
  it.batch(many(hog, "hog", 100));
  it.turns.begin();
  assert.deepEqual(it.batch([...many(hog, "more", 20), [{}, "victim"]]).slice(-2), ["waits", "now"]);
});

test("an owner's packets keep their order, and each is handled once", () => {
  const it = room();
  const [a, b] = [{}, {}];
  for (let round = 0; round < 10; round++) {
    it.turns.begin();
    it.batch([...many(a, `a${round}-`, 20), ...many(b, `b${round}-`, 3)]);
    it.turn();
  }
  while (it.turn() !== undefined);
  const wanted = (name: string, each: number): string[] =>
    Array.from({ length: 10 }, (_, round) => Array.from({ length: each }, (__, i) => `${name}${round}-${i}`)).flat();
  assert.deepEqual(
    it.handled.filter((text) => text.startsWith("a")),
    wanted("a", 20),
  );
  assert.deepEqual(
    it.handled.filter((text) => text.startsWith("b")),
    wanted("b", 3),
  );
  assert.equal(it.turns.size, 0);
});

test("a turn ends with its time, in a batch and in the lines, and always gets somewhere", () => {
  const it = room(0.3);
  it.turns.begin();
  const fates = it.batch(many({}, "a", 2 * TURN_PACKETS));
  assert.ok(count(fates, "now") < TURN_PACKETS && count(fates, "now") > 1, fates.join());
  assert.equal(it.turn()?.length, 4);
  const slow = room(50);
  slow.turns.begin();
  slow.batch(many({}, "a", 64));
  assert.equal(slow.turn()?.length, 1);
});

test("bounds: one alone does not take all the room, many leave some, and everybody may have a packet", () => {
  const it = room();
  const hog = {};
  it.turns.begin();
  const alone = count(it.batch(many(hog, "hog", 5000)), "waits");
  assert.ok(alone > 1000 && alone <= 2048, `${alone}`);
  const hogs = Array.from({ length: 250 }, () => ({}));
  for (const one of hogs) it.batch(many(one, "more", 500));
  assert.ok(it.turns.size <= 4096 + 251 * 4, `${it.turns.size}`);
  assert.deepEqual(it.batch([[{}, "victim"]]), ["waits"]);
  while (it.turn() !== undefined);
  it.turns.begin();
  assert.deepEqual([it.turns.size, it.batch([[hog, "again"]])], [0, ["now"]]);

  const large = room();
  const waiting = Array.from({ length: 250 }, () => {
    const fates = large.batch(many({}, "large", 500), 65_000);
    return count(fates, "waits");
  });
  assert.ok(waiting.every((one) => one >= 1));
  assert.ok(large.turns.size * 65_000 < 40 * 1024 * 1024, `${large.turns.size}`);
});

test("a pod's burst of a thousand connections loses nothing", () => {
  const it = room();
  it.turns.begin();
  assert.equal(count(it.batch(many({}, "a", 1000)), "refused"), 0);
});

test("what is forgotten is not handled, and its room is free again", () => {
  const it = room();
  const [a, b] = [{}, {}];
  it.batch([...many(a, "a", 10), ...many(b, "b", 2)]);
  it.turns.forget(({ text }) => text.startsWith("a") || text === "b0");
  assert.equal(it.turns.size, 1);
  while (it.turn() !== undefined);
  assert.deepEqual(it.handled, ["b1"]);
  it.batch([...many(b, "b", 100)]);
  it.turns.forget(() => true);
  it.batch([[a, "c"]]);
  assert.deepEqual(it.turn(), ["c"], "served again, and by one turn at a time");
  assert.equal(it.turn(), undefined);
});
