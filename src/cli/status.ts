import { ask } from "../control/socket.ts";
import { format, options, type Output, SOCKET_DEFAULT } from "./usage.ts";

const USAGE = "usage: namegate status [-o text|json] [--socket PATH]\n";

interface Status {
  readonly ready: boolean;
  readonly mode: string;
  readonly effectiveMode: string;
  readonly iptables: string;
  readonly since: string;
  readonly pods: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly guarded: boolean;
    readonly enforced: boolean;
    readonly why?: string;
    readonly mode: string | null;
    readonly policies: readonly string[];
    readonly attachment: { readonly kind: string; readonly interface: string };
    readonly bindings?: number;
  }[];
  readonly policies: readonly {
    readonly name: string;
    readonly valid: boolean;
    readonly mode: string | null;
    readonly inForce: boolean;
    readonly errors: readonly string[];
  }[];
  readonly problems: readonly string[];
  readonly selfTest?: { readonly state: string; readonly why: string | null; readonly warnings: readonly string[] };
  readonly sets: Readonly<Record<string, number>>;
  readonly knownHellos?: { readonly inKernel: boolean; readonly why: string | null };
}

/** Asks for one answer. */
export async function askOnce(path: string, command: string): Promise<unknown> {
  let answer: unknown;
  await ask(path, { command }, (line) => {
    answer ??= line;
  });
  return answer;
}

export async function status(argv: readonly string[], out: Output): Promise<number> {
  const { values } = options(argv, USAGE, { output: { type: "string", short: "o" }, socket: { type: "string" } });
  const kind = format(values.output);
  const answer = (await askOnce(values.socket ?? SOCKET_DEFAULT, "status")) as Status;
  if (kind === "json") out.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`);
  else out.stdout.write(text(answer));
  return answer.ready ? 0 : 1;
}

function text(s: Status): string {
  const lines = [
    `${s.ready ? "ready" : "NOT READY"}; mode ${s.mode}, in effect ${s.effectiveMode}${s.mode === s.effectiveMode ? "" : "  <-- NOT WHAT THE POLICIES ASK FOR"}; iptables-${s.iptables}; since ${s.since}`,
    ...selfTestLines(s.selfTest),
    "",
    ...table([
      ["POD", "MODE", "ENFORCED", "ATTACHMENT", "NAMES", "POLICIES"],
      ...s.pods.map((pod) => [
        `${pod.namespace}/${pod.name}`,
        pod.mode ?? "-",
        pod.guarded ? (pod.enforced ? "yes" : `NO: ${pod.why ?? "the agent is not ready"}`) : "-",
        `${pod.attachment.kind} ${pod.attachment.interface}`,
        String(pod.bindings ?? 0),
        pod.policies.join(" ") || "-",
      ]),
    ]),
    "",
    ...table([
      ["POLICY", "MODE", "VALID", "IN FORCE"],
      ...s.policies.map((policy) => [
        policy.name,
        policy.mode ?? "-",
        policy.valid ? "yes" : "NO",
        policy.inForce ? (policy.valid ? "yes" : "last good version") : "no",
      ]),
    ]),
    ...s.policies.flatMap(({ errors }) => errors.map((error) => `  ${error}`)),
    ...s.problems.map((problem) => `  ${problem}`),
    "",
    `kernel sets: ${
      Object.entries(s.sets)
        .map(([name, count]) => `${name} ${count}`)
        .join(", ") || "none"
    }`,
    ...(s.knownHellos === undefined
      ? []
      : [
          `known ClientHellos: ${s.knownHellos.inKernel ? "by the kernel" : `read by userspace each time (${s.knownHellos.why ?? "no reason given"})`}`,
        ]),
  ];
  return `${lines.join("\n")}\n`;
}

function selfTestLines(test: Status["selfTest"]): string[] {
  if (test === undefined) return [];
  const state =
    test.state === "failed" ? [`NOT ENFORCING: ${test.why}`] : test.state === "untested" ? [`self-test: cannot be tried: ${test.why}`] : [];
  return [...state, ...test.warnings.map((warning) => `warning: ${warning}`)];
}

export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
