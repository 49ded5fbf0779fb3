import { Fault } from "../base/fault.ts";
import { type Answer, fields, plain, rows, type Scope, text } from "./kubectl-merge.ts";
import { each, type Kubectl, type Ran } from "./kubectl-run.ts";
import type { Output } from "./usage.ts";

/** Where namegate is installed unless --agent-namespace says otherwise. */
export const NAMESPACE_DEFAULT = "namegate-system";
const LABEL = "app.kubernetes.io/name=namegate";
const CONTAINER = "namegate";

export interface Agent {
  readonly node: string;
  readonly pod: string;
  /** Why it cannot be asked. */
  readonly why: string | undefined;
}

export interface Asked {
  readonly kubectl: Kubectl;
  readonly scope: Scope;
  readonly agents: readonly Agent[];
  readonly agentNamespace: string;
  readonly json: boolean;
  readonly timeoutMs: number;
  readonly parallel: number;
  readonly rest: readonly string[];
}

function parsed(what: string, { stdout, stderr, why, status }: Ran): unknown {
  if (why !== undefined || status !== 0)
    throw new Fault("kubectl", `${what}: ${plain(why ?? (stderr || `kubectl ended with ${status}`))}`, "try the same with kubectl itself");
  try {
    return JSON.parse(stdout) as unknown;
  } catch (error) {
    throw new Fault("kubectl", `${what}: kubectl's answer is not JSON`, "try the same with kubectl itself", error);
  }
}

export async function contextNamespace(kubectl: Kubectl, timeoutMs: number): Promise<string> {
  const config = fields(parsed("the context cannot be read", await kubectl.run(["config", "view", "--minify", "-o", "json"], timeoutMs)));
  const [first] = rows(config["contexts"]);
  return text(fields(first?.["context"])["namespace"]) || "default";
}

export async function nodeOf(kubectl: Kubectl, namespace: string, pod: string, timeoutMs: number): Promise<string> {
  const found = fields(parsed(`pod ${namespace}/${pod}`, await kubectl.run(["get", "pod", pod, "-n", namespace, "-o", "json"], timeoutMs)));
  const node = text(fields(found["spec"])["nodeName"]);
  if (node === "") throw new Fault("unscheduled", `pod ${namespace}/${pod} is on no node yet`, "wait until it is scheduled");
  return node;
}

export async function findAgents(kubectl: Kubectl, namespace: string, node: string | undefined, timeoutMs: number): Promise<Agent[]> {
  const field = node === undefined ? [] : ["--field-selector", `spec.nodeName=${node}`];
  const answer = parsed(
    `the agents in namespace ${namespace}`,
    await kubectl.run(["get", "pods", "-n", namespace, "-l", LABEL, ...field, "-o", "json"], timeoutMs),
  );
  const agents = rows(fields(answer)["items"]).map((item): Agent => {
    const { metadata, spec, status: state } = item;
    const phase = text(fields(state)["phase"], "unknown");
    const leaving = fields(metadata)["deletionTimestamp"] !== undefined;
    return {
      node: text(fields(spec)["nodeName"], "(none)"),
      pod: text(fields(metadata)["name"]),
      why: leaving ? "its agent is being replaced" : phase === "Running" ? undefined : `its agent is ${phase}`,
    };
  });
  // During an update a node has an old and a new agent: the one that can be asked speaks for it.
  const able = new Set(agents.flatMap((agent) => (agent.why === undefined ? [agent.node] : [])));
  const wanted = agents.filter((agent) => agent.why === undefined || !able.has(agent.node)).sort((a, b) => (a.node < b.node ? -1 : 1));
  if (wanted.length === 0)
    throw new Fault(
      "no-agents",
      `no agent found in namespace ${namespace}${node === undefined ? "" : ` on node ${node}`}`,
      "is namegate installed there (--agent-namespace), and does the node tolerate it?",
    );
  return wanted;
}

export const execArgs = ({ agentNamespace }: Asked, agent: Agent, command: readonly string[]): string[] => [
  "exec",
  "-n",
  agentNamespace,
  agent.pod,
  "-c",
  CONTAINER,
  "--",
  "namegate",
  ...command,
];

/** Asks every agent; exit code 1 of the command (status: not ready) is an answer, no answer is said on stderr and in the result. */
export async function answers(
  asked: Asked,
  command: readonly string[],
  out: Output,
): Promise<{ agent: Agent; ran: Ran; why: string | undefined }[]> {
  return each(asked.agents, asked.parallel, async (agent) => {
    if (agent.why !== undefined) return said(out, agent, { status: null, stdout: "", stderr: "", why: agent.why });
    const ran = await asked.kubectl.run(execArgs(asked, agent, command), asked.timeoutMs);
    return said(out, agent, ran);
  });
}

function said(out: Output, agent: Agent, ran: Ran): { agent: Agent; ran: Ran; why: string | undefined } {
  const failed = ran.status !== 0 && ran.stdout.trim() === "";
  const why = ran.why ?? (failed ? (ran.stderr.split("\n").find((line) => line !== "") ?? `exit ${ran.status}`) : undefined);
  if (why !== undefined) out.stderr.write(`node ${plain(agent.node)}: no answer: ${plain(why)}\n`);
  return { agent, ran, why };
}

export function parsedAnswer({ agent, ran, why }: { agent: Agent; ran: Ran; why: string | undefined }): Answer {
  if (why !== undefined) return { node: agent.node, value: undefined, why };
  try {
    return { node: agent.node, value: JSON.parse(ran.stdout), why: undefined };
  } catch {
    // An object a line.
    const values = ran.stdout.split("\n").flatMap((line): unknown[] => {
      try {
        return line.trim() === "" ? [] : [JSON.parse(line)];
      } catch {
        return [undefined];
      }
    });
    return values.includes(undefined)
      ? { node: agent.node, value: undefined, why: "its answer is not JSON" }
      : { node: agent.node, value: values, why: undefined };
  }
}
