import type { Counted } from "../base/histogram.ts";

/** Labels in the order in which they are written. */
export type Labels = Readonly<Record<string, string>>;
export type Sample = readonly [labels: Labels, value: number];

/** Text in the Prometheus format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). Names are ours, values of labels anybody's. */
export class Exposition {
  private readonly lines: string[] = [];

  /** A metric family whose name is written as it is; nothing where there is no sample. */
  family(name: string, type: "counter" | "gauge", help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    this.head(name, type, help);
    for (const [labels, value] of samples) this.sample(name, labels, value);
  }

  histogram(name: string, help: string, samples: readonly (readonly [labels: Labels, counted: Counted])[]): void {
    if (samples.length === 0) return;
    this.head(name, "histogram", help);
    for (const [labels, { buckets, sum, count }] of samples) {
      for (const [atMost, counted] of buckets) this.sample(`${name}_bucket`, { ...labels, le: number(atMost) }, counted);
      this.sample(`${name}_sum`, labels, sum);
      this.sample(`${name}_count`, labels, count);
    }
  }

  get text(): string {
    return `${this.lines.join("\n")}\n`;
  }

  private head(name: string, type: string, help: string): void {
    this.lines.push(`# HELP ${name} ${help.replace(/[\\\n]/g, (c) => (c === "\n" ? "\\n" : "\\\\"))}`, `# TYPE ${name} ${type}`);
  }

  private sample(name: string, labels: Labels, value: number): void {
    let text = "";
    for (const key in labels) text += `${text === "" ? "" : ","}${key}="${escaped(labels[key] as string)}"`;
    this.lines.push(`${name}${text === "" ? "" : `{${text}}`} ${number(value)}`);
  }
}

function number(value: number): string {
  return value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value);
}

function escaped(text: string): string {
  return text.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`));
}
