import { release } from "node:os";
import { MARK_MASK_DEFAULT, marks } from "../firewall/marks.ts";
import { QUEUE_BASE_DEFAULT } from "../firewall/rules.ts";
import { examine } from "./doctor-checks.ts";
import type { Finding } from "./doctor-finding.ts";
import { Fault } from "../base/fault.ts";
import { format, options, type Output, SOCKET_DEFAULT, Usage, version } from "./usage.ts";

const USAGE = `usage: namegate doctor [-o text|json] [--iptables nft|legacy|auto] [--mark-mask MASK] [--queue-base N] [--socket PATH]

Is this node able to enforce? Looks at what the agent needs, and tries its rules, sets and queues in a network namespace
that is thrown away. Changes nothing on the host (the kernel may load modules).

exit code: 0 able, 1 something is wrong, 2 wrong usage or cannot run
`;

const QUEUE_BASE_MAX = 65_529;

/** `namegate doctor`. Returns the exit code. */
export async function doctor(argv: readonly string[], out: Output): Promise<number> {
  const text = { type: "string" } as const;
  const { values, positionals } = options(argv, USAGE, {
    output: { ...text, short: "o" },
    iptables: text,
    "mark-mask": text,
    "queue-base": text,
    socket: text,
  });
  const kind = format(values.output);
  if (positionals.length > 0) throw new Usage(`namegate doctor: ${positionals[0]} is not an option\n${USAGE}`);
  const iptables = values.iptables ?? "auto";
  if (iptables !== "auto" && iptables !== "nft" && iptables !== "legacy")
    throw new Usage(`namegate doctor: --iptables ${iptables}: nft, legacy or auto\n${USAGE}`);
  const queueBase = Number(values["queue-base"] ?? QUEUE_BASE_DEFAULT);
  if (!Number.isInteger(queueBase) || queueBase < 0 || queueBase > QUEUE_BASE_MAX)
    throw new Usage(`namegate doctor: --queue-base ${values["queue-base"]}: a number from 0 to ${QUEUE_BASE_MAX} is wanted\n${USAGE}`);
  if (process.platform !== "linux")
    throw new Fault("platform", `namegate enforces with netfilter, and this is ${process.platform}`, "run it on a Linux node");
  const markMask = marks(Number(values["mark-mask"] ?? MARK_MASK_DEFAULT)).mask;
  const findings = await examine({ iptables, markMask, queueBase, socket: values.socket ?? SOCKET_DEFAULT });
  const able = findings.every(({ status }) => status !== "failed");
  const where = { namegate: version(), node: process.versions.node, kernel: release(), arch: process.arch };
  out.stdout.write(
    kind === "json" ? `${JSON.stringify({ able, ...where, checks: findings }, undefined, 2)}\n` : asText(able, where, findings),
  );
  return able ? 0 : 1;
}

function asText(
  able: boolean,
  { namegate, node, kernel, arch }: Readonly<Record<"namegate" | "node" | "kernel" | "arch", string>>,
  findings: readonly Finding[],
): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = [`namegate ${namegate}, Node.js ${node}, Linux ${kernel} ${arch}`, ""];
  for (const { check, status, found, fix } of findings) {
    const label = status === "failed" ? "FAILED" : status;
    const [first, ...rest] = found.trimEnd().split("\n");
    lines.push(`${label.padEnd(6)}  ${check.padEnd(width)}  ${first}`, ...rest.map((line) => `${" ".repeat(width + 10)}${line}`));
    if (fix !== null) lines.push(`${" ".repeat(width + 10)}fix: ${fix}`);
  }
  const count = (status: Finding["status"]): number => findings.filter((finding) => finding.status === status).length;
  const warnings = count("warn") === 0 ? "" : `, ${count("warn")} warning${count("warn") === 1 ? "" : "s"}`;
  lines.push("", able ? `this node can enforce${warnings}` : `this node can NOT enforce: ${count("failed")} failed${warnings}`);
  return `${lines.join("\n")}\n`;
}
