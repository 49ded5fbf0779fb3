import { loadavg } from "node:os";

/** One line of the table, and of the JSON. `target`: what issue and DESIGN want; without one it is only shown. */
export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  readonly target?: { readonly most: number } | { readonly least: number };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

function reached({ value, target }: Figure): boolean | undefined {
  if (target === undefined) return undefined;
  return "most" in target ? value <= target.most : value >= target.least;
}

const digits = (value: number): string => (Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 10 ? 3 : 1));

/** Prints the table, then one line of JSON. The exit status is 1 when a target is missed. */
export function report(bench: string, workload: string, figures: readonly Figure[]): void {
  const load = loadavg().map((value) => Number(value.toFixed(2)));
  console.log(`\n${bench}: ${workload}\nload average at the end: ${load.join(" ")}`);
  const width = Math.max(...figures.map(({ what }) => what.length));
  for (const figure of figures) {
    const { what, value, unit, target } = figure;
    const wanted =
      target === undefined
        ? ""
        : `  ${"most" in target ? `<= ${target.most}` : `>= ${target.least}`}  ${reached(figure) === true ? "reached" : "MISSED"}`;
    console.log(`  ${what.padEnd(width)}  ${digits(value).padStart(10)} ${unit.padEnd(6)}${wanted}`);
  }
  console.log(
    JSON.stringify({
      bench,
      load,
      node: process.version,
      figures: figures.map((figure) => ({ ...figure, reached: reached(figure) ?? null })),
    }),
  );
  if (figures.some((figure) => reached(figure) === false)) process.exitCode = 1;
}

/**
 * Measures every subject once a round, in an order that turns round with each round, so that whatever else the machine
 * does falls on all of them alike. Returns what each subject gave, a value a round.
 */
export async function interleave<T, K extends string>(
  rounds: number,
  subjects: Readonly<Record<K, (round: number) => Promise<T>>>,
): Promise<Record<K, T[]>> {
  const names = Object.keys(subjects) as K[];
  const results = Object.fromEntries(names.map((name) => [name, [] as T[]])) as Record<K, T[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : [...names].reverse()) results[name].push(await subjects[name](round));
  }
  return results;
}
