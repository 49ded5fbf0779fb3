import { eventText } from "./observe.ts";
import { eventInScope, mergeStatus, mergeUnused, plain, statusText, text } from "./kubectl-merge.ts";
import { answers, type Asked, contextNamespace, execArgs, findAgents, NAMESPACE_DEFAULT, nodeOf, parsedAnswer } from "./kubectl-agents.ts";
import { each, kubectlWith, type Ran } from "./kubectl-run.ts";
import type { Event } from "../model/event.ts";
import { table } from "./status.ts";
import { format, options, type Output, Usage } from "./usage.ts";

const TIMEOUT_SECONDS = 20;
const PARALLEL = 8;
/** Each stream is a kubectl process of some 40 MB, and a connection to the API server. */
const STREAMS_MAX = 50;
const COMMANDS = ["status", "observe", "explain", "unused"] as const;

const USAGE = `usage: kubectl namegate COMMAND [POD] [options]

  status  [POD]           what is enforced, pod by pod
  observe [POD]           events as they happen: [--last N] [--no-follow]
  explain POD [ARG…]      what the agent of the pod's node says: namegate explain NAMESPACE/POD ARG…
  unused                  rules that no node needed

  -n, --namespace NAME    pods of this namespace (default: that of the context)
  -A, --all-namespaces    pods of all namespaces, and what is said of nodes
  -o text|json            json: one object; of observe, one a line
      --node NAME         only this node
      --last N, --no-follow   of observe: the last N events of each node; and end then
      --agent-namespace NAME  where namegate is installed (default ${NAMESPACE_DEFAULT})
      --timeout SEC       for each node (default ${TIMEOUT_SECONDS}); observe follows without one
      --parallel N        nodes asked at once (default ${PARALLEL})
      --context, --kubeconfig, --as   as of kubectl

It runs \`kubectl exec\` in the agents' pods, so it needs get and list of pods and create of pods/exec in ${NAMESPACE_DEFAULT}.
Behind \`--\` everything goes to the agent's command. Exit codes: 0 done, 1 an agent is not ready or did not answer, 2 cannot run.
`;

export async function kubectlCommand(argv: readonly string[], out: Output): Promise<number> {
  const string = { type: "string" } as const;
  const boolean = { type: "boolean" } as const;
  const { values, positionals } = options(argv, USAGE, {
    namespace: { ...string, short: "n" },
    "all-namespaces": { ...boolean, short: "A" },
    output: { ...string, short: "o" },
    node: string,
    last: string,
    follow: { ...boolean, short: "f" },
    "no-follow": boolean,
    "agent-namespace": string,
    timeout: string,
    parallel: string,
    context: string,
    kubeconfig: string,
    as: string,
  });
  const [name, pod, ...rest] = positionals;
  const command = COMMANDS.find((one) => one === name);
  if (command === undefined)
    throw new Usage(name === undefined ? USAGE : `kubectl namegate: there is no command ${JSON.stringify(name)}\n${USAGE}`);
  if (command === "explain" && pod === undefined) throw new Usage(`kubectl namegate: explain needs a pod\n${USAGE}`);
  if (values["all-namespaces"] === true && (pod !== undefined || values.namespace !== undefined))
    throw new Usage(`kubectl namegate: -A goes with neither a pod nor -n\n${USAGE}`);
  for (const one of [pod, values.namespace, values.node, values["agent-namespace"]]) if (one !== undefined) checkName(one);
  const json = format(values.output) === "json";
  const number = (flag: "timeout" | "parallel" | "last", otherwise: number, most: number): number => {
    const value = Number(values[flag] ?? otherwise);
    if (!Number.isInteger(value) || value < (flag === "last" ? 0 : 1) || value > most)
      throw new Usage(`kubectl namegate: --${flag} ${values[flag]}: a whole number up to ${most} is wanted\n${USAGE}`);
    return value;
  };
  const timeoutMs = number("timeout", TIMEOUT_SECONDS, 3600) * 1000;
  const global = (["context", "kubeconfig", "as"] as const).flatMap((flag) =>
    values[flag] === undefined ? [] : [`--${flag}=${values[flag]}`],
  );
  const kubectl = kubectlWith(global);
  const agentNamespace = values["agent-namespace"] ?? NAMESPACE_DEFAULT;
  const namespace = values["all-namespaces"] === true ? undefined : (values.namespace ?? (await contextNamespace(kubectl, timeoutMs)));
  const node = values.node ?? (pod === undefined ? undefined : await nodeOf(kubectl, namespace ?? "default", pod, timeoutMs));
  const agents = await findAgents(kubectl, agentNamespace, node, timeoutMs);
  const asked: Asked = {
    kubectl,
    scope: { namespace, pod },
    agents,
    agentNamespace,
    json,
    timeoutMs,
    parallel: number("parallel", PARALLEL, STREAMS_MAX),
    rest,
  };
  switch (command) {
    case "status":
      return status(asked, out);
    case "observe":
      return observe(
        asked,
        { last: number("last", values["no-follow"] === true ? 100 : 0, 100_000), follow: values["no-follow"] !== true },
        out,
      );
    case "explain":
      return explain(asked, out);
    case "unused":
      return unused(asked, out);
    default:
      return command satisfies never;
  }
}

/** Names go into kubectl's arguments: only what a name of Kubernetes may be (RFC 1123 subdomain), so never an option. */
function checkName(name: string): void {
  if (!/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(name))
    throw new Usage(`kubectl namegate: ${JSON.stringify(name)} is not a name of Kubernetes\n${USAGE}`);
}

async function status(asked: Asked, out: Output): Promise<number> {
  const merged = mergeStatus((await answers(asked, ["status", "-o", "json", ...asked.rest], out)).map(parsedAnswer), asked.scope);
  out.stdout.write(asked.json ? `${JSON.stringify(merged, undefined, 2)}\n` : statusText(merged));
  return merged.ready ? 0 : 1;
}

async function observe(asked: Asked, { last, follow }: { last: number; follow: boolean }, out: Output): Promise<number> {
  if (asked.agents.length > STREAMS_MAX)
    throw new Usage(
      `kubectl namegate: ${asked.agents.length} nodes are too many to follow at once (${STREAMS_MAX}): name a pod or a --node\n`,
    );
  const command = ["observe", "-o", "json", "--last", String(last), ...(follow ? [] : ["--no-follow"]), ...asked.rest];
  const several = asked.agents.length > 1;
  const show = (node: string, event: Event): void => {
    if (asked.json) out.stdout.write(`${JSON.stringify({ node, ...event })}\n`);
    else out.stdout.write(`${several ? `${plain(node)} ` : ""}${plain(eventText(event))}\n`);
  };
  const kept: { node: string; event: Event }[] = [];
  const take = (node: string, line: string): void => {
    try {
      const event = JSON.parse(line) as Event;
      if (typeof event?.time !== "string" || !eventInScope(event, asked.scope)) return;
      if (follow) show(node, event);
      else kept.push({ node, event });
    } catch {
      out.stderr.write(`node ${plain(node)}: a line that is no event: ${plain(line.slice(0, 200))}\n`);
    }
  };
  const stop = new AbortController();
  const interrupted = (): void => stop.abort("interrupted");
  process.once("SIGINT", interrupted);
  process.once("SIGTERM", interrupted);
  const timer = follow ? undefined : setTimeout(() => stop.abort(`no answer in ${asked.timeoutMs / 1000} s`), asked.timeoutMs);
  let silent = 0;
  await each(asked.agents, STREAMS_MAX, async (agent) => {
    const ran: Ran =
      agent.why !== undefined
        ? { status: null, stdout: "", stderr: "", why: agent.why }
        : await asked.kubectl.stream(execArgs(asked, agent, command), (line) => take(agent.node, line), stop.signal);
    if (follow && stop.signal.aborted) return;
    // A stream that ends while it should go on has lost its agent.
    const why = ran.why ?? (ran.status === 0 && !follow ? undefined : ran.stderr.split("\n")[0] || `the stream ended (exit ${ran.status})`);
    if (why === undefined) return;
    silent++;
    out.stderr.write(`node ${plain(agent.node)}: no answer: ${plain(why)}\n`);
  });
  clearTimeout(timer);
  for (const { node, event } of kept.sort((a, b) => (a.event.time < b.event.time ? -1 : 1))) show(node, event);
  return silent > 0 ? 1 : 0;
}

async function explain(asked: Asked, out: Output): Promise<number> {
  const { namespace = "default", pod = "" } = asked.scope;
  const got = await answers(asked, ["explain", `${namespace}/${pod}`, ...asked.rest, ...(asked.json ? ["-o", "json"] : [])], out);
  for (const { ran } of got) out.stdout.write(asked.json ? ran.stdout : `${ran.stdout.split("\n").map(plain).join("\n")}`);
  return got.some(({ why, ran }) => why !== undefined || ran.status !== 0) ? 1 : 0;
}

async function unused(asked: Asked, out: Output): Promise<number> {
  const got = (await answers(asked, ["unused", "-o", "json", ...asked.rest], out)).map(parsedAnswer);
  const { namespace } = asked.scope;
  const merged = mergeUnused(got).filter((row) => namespace === undefined || text(row["policy"]).startsWith(`${namespace}/`));
  const silent = got.filter(({ why }) => why !== undefined).map(({ node }) => node);
  if (asked.json) out.stdout.write(`${JSON.stringify({ unused: merged, notAsked: silent }, undefined, 2)}\n`);
  else {
    const lines = merged.map((row) =>
      [
        text(row["policy"]),
        text(row["rule"]),
        text(row["hits"], "0"),
        text(row["lastHit"], "never"),
        `${text(row["observedSince"], "-")}${row["conclusive"] === false ? "  <-- observed for less" : ""}`,
      ].map(plain),
    );
    out.stdout.write(`${table([["POLICY", "RULE", "HITS", "LAST HIT", "OBSERVED SINCE"], ...lines]).join("\n")}\n`);
    if (silent.length > 0) out.stdout.write(`not asked, so they may need some of these: ${silent.map(plain).join(", ")}\n`);
  }
  return silent.length > 0 ? 1 : 0;
}
