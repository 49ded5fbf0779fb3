import assert from "node:assert/strict";

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ParsedFamily {
  readonly type: string;
  readonly help: string;
  readonly samples: readonly ParsedSample[];
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)/y;
const SUFFIXES = ["_bucket", "_sum", "_count"];

/**
 * The Prometheus text format 0.0.4, read strictly: HELP and TYPE before a family's samples, each family once and in one piece, no
 * series twice, counters with `_total`, histograms whole and in rising order. Throws an AssertionError.
 */
export function parseExposition(text: string): ReadonlyMap<string, ParsedFamily> {
  assert.ok(text.endsWith("\n"), "the last line ends");
  const families = new Map<string, ParsedFamily & { samples: ParsedSample[] }>();
  const series = new Set<string>();
  let open = "";
  let help: readonly [string, string] | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const described = new RegExp(`^# HELP (${NAME}) (.+)$`).exec(line);
    if (described !== null) {
      help = [described[1] as string, described[2] as string];
      continue;
    }
    const typed = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram)$`).exec(line);
    if (typed !== null) {
      open = typed[1] as string;
      assert.equal(help?.[0], open, `${line}: HELP comes first`);
      assert.ok(!families.has(open), `${open} comes twice`);
      families.set(open, { type: typed[2] as string, help: help?.[1] as string, samples: [] });
      continue;
    }
    const sample = new RegExp(`^(${NAME})(?:\\{(.+)\\})? ([-+]?[0-9.e+-]+|[+-]Inf|NaN)$`).exec(line);
    assert.ok(sample !== null, `not a sample: ${line}`);
    const [, name = "", labelText = "", value = ""] = sample;
    const family = families.get(open);
    const plain = family?.type === "histogram" ? SUFFIXES.map((suffix) => open + suffix) : [open];
    assert.ok(plain.includes(name), `${line}: not of the family ${open}`);
    const labels = readLabels(labelText, line);
    const key = `${name} ${JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))}`;
    assert.ok(!series.has(key), `${key} comes twice`);
    series.add(key);
    family?.samples.push({ name, labels, value: Number(value.replace("Inf", "Infinity")) });
  }
  for (const [name, { type, samples }] of families) {
    assert.ok(samples.length > 0, `${name} has no sample`);
    assert.ok(type !== "counter" || name.endsWith("_total"), `${name} is a counter`);
    assert.ok(type === "counter" || !name.endsWith("_total"), `${name} is none`);
    if (type === "histogram") checkHistogram(name, samples);
  }
  return families;
}

function readLabels(text: string, line: string): Record<string, string> {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const found = LABEL.exec(text);
    assert.ok(found !== null, `labels: ${line}`);
    const [, name = "", value = ""] = found;
    assert.ok(!(name in labels), `${name} comes twice: ${line}`);
    labels[name] = value.replace(/\\([\\"n])/g, (_, c: string) => (c === "n" ? "\n" : c));
  }
  return labels;
}

function checkHistogram(name: string, samples: readonly ParsedSample[]): void {
  const groups = new Map<string, ParsedSample[]>();
  for (const sample of samples) {
    const { le: _, ...rest } = sample.labels;
    const key = JSON.stringify(rest);
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const group of groups.values()) {
    const buckets = group.filter((one) => one.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => Number((labels["le"] ?? "").replace("Inf", "Infinity")));
    assert.equal(bounds.at(-1), Infinity, `${name}: the last bucket`);
    for (const [i, { value }] of buckets.entries()) {
      if (i === 0) continue;
      assert.ok((bounds[i] as number) > (bounds[i - 1] as number), `${name}: bounds rise`);
      assert.ok(value >= (buckets[i - 1] as ParsedSample).value, `${name}: counts rise`);
    }
    assert.equal(group.find((one) => one.name === `${name}_count`)?.value, buckets.at(-1)?.value, `${name}: count`);
    assert.ok(
      group.some((one) => one.name === `${name}_sum`),
      `${name}: sum`,
    );
  }
}
