import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Histogram, HISTOGRAM_WORDS } from "../../src/base/histogram.ts";

test("what is counted lies in the first bucket that is not below it", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.double({ min: 0, max: 5000, noNaN: true }), fc.integer({ min: 1, max: 64 }))), (observed) => {
      const histogram = new Histogram(new Float64Array(HISTOGRAM_WORDS));
      for (const [ms, count] of observed) histogram.observe(ms, count);
      const { buckets, sum, count } = histogram.read();
      for (const [atMost, counted] of buckets) {
        const wanted = observed.filter(([ms]) => ms <= atMost * 1000).reduce((all, [, n]) => all + n, 0);
        // A nanosecond is rounded to either side of a bound.
        const near = observed.filter(([ms]) => Math.abs(ms - atMost * 1000) < 1e-6).reduce((all, [, n]) => all + n, 0);
        assert.ok(Math.abs(counted - wanted) <= near, `${atMost}: ${counted}, not ${wanted}`);
      }
      assert.equal(
        count,
        observed.reduce((all, [, n]) => all + n, 0),
      );
      const total = observed.reduce((all, [ms, n]) => all + ms * n, 0) / 1000;
      assert.ok(Math.abs(sum - total) <= 1e-9 + total * 1e-9);
    }),
  );
});

test("bounds, exactly, and beyond the last", () => {
  const histogram = new Histogram(new Float64Array(HISTOGRAM_WORDS));
  for (const ms of [0, 0.001, 0.002, 0.0021, 1.024, 1048.576, 1e12, Infinity]) histogram.observe(ms);
  const counted = new Map(histogram.read().buckets);
  assert.equal(counted.get(1e-6), 2);
  assert.equal(counted.get(2e-6), 3);
  assert.equal(counted.get(4e-6), 4);
  assert.equal(counted.get(1.048576), 6);
  assert.equal(counted.get(Infinity), 8);
});
