import { mergeStatus, mergeUnused, plain, statusText, text } from "./kubectl-merge.ts";
import { answers, type Asked, contextNamespace, execArgs, findAgents, NAMESPACE_DEFAULT, nodeOf, parsedAnswer } from "./kubectl-agents.ts";
import { observe, STREAMS_MAX } from "./kubectl-observe.ts";
import { each, kubectlWith } from "./kubectl-run.ts";
import { FILTER_OPTIONS, FILTER_USAGE, planOf, readFilter } from "./observe-options.ts";
import { VIEW_OPTIONS, VIEW_USAGE, viewKind } from "./observe-view.ts";
import { table } from "./status.ts";
import { isTerminal } from "./terminal.ts";
import { format, options, type Output, Usage } from "./usage.ts";

const TIMEOUT_SECONDS = 20;
const PARALLEL = 8;
const LAST_MAX = 100_000;
const COMMANDS = ["status", "observe", "explain", "unused"] as const;

const USAGE = `usage: kubectl namegate COMMAND [POD] [options]

  status  [POD]           what is enforced, pod by pod
  observe [POD]           events as they happen: [--last N] [--no-follow] [filters] [--top KEYS]
  explain POD --to HOST:PORT   why it may go there or not: [--server-name NAME] [--application NAME]
  explain ID              why the event with this id was: every node is asked
  unused                  rules that no node needed

  -n, --namespace NAME    pods of this namespace (default: that of the context)
  -A, --all-namespaces    pods of all namespaces, and what is said of nodes
  -o text|json            json: one object; of observe, one a line, and table is known too
      --node NAME         only this node
      --last N, --no-follow   of observe: the last N events of each node; and end then
      --agent-namespace NAME  where namegate is installed (default ${NAMESPACE_DEFAULT})
      --timeout SEC       for each node (default ${TIMEOUT_SECONDS}); observe follows without one
      --parallel N        nodes asked at once (default ${PARALLEL})
      --context, --kubeconfig, --as   as of kubectl

It runs \`kubectl exec\` in the agents' pods, so it needs get and list of pods and create of pods/exec in ${NAMESPACE_DEFAULT}.
${VIEW_USAGE}
Filters of observe:
${FILTER_USAGE}
Behind \`--\` everything goes to the agent's command. Exit codes: 0 done, 1 an agent is not ready or did not answer, 2 cannot run.
`;

export async function kubectlCommand(argv: readonly string[], out: Output): Promise<number> {
  const string = { type: "string" } as const;
  const boolean = { type: "boolean" } as const;
  const { namespace: _, ...filters } = FILTER_OPTIONS;
  const { values, positionals, tokens } = options(argv, USAGE, {
    ...VIEW_OPTIONS,
    ...filters,
    "server-name": string,
    application: string,
    namespace: { ...string, short: "n" },
    "all-namespaces": { ...boolean, short: "A" },
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
  const [name, which, ...rest] = positionals;
  const command = COMMANDS.find((one) => one === name);
  if (command === undefined)
    throw new Usage(name === undefined ? USAGE : `kubectl namegate: there is no command ${JSON.stringify(name)}\n${USAGE}`);
  const explains = explainOf(command, which, values);
  const pod = explains?.id === undefined ? which : undefined;
  if (values["all-namespaces"] === true && (pod !== undefined || values.namespace !== undefined))
    throw new Usage(`kubectl namegate: -A goes with neither a pod nor -n\n${USAGE}`);
  for (const one of [pod, values.namespace, values.node, values["agent-namespace"]]) if (one !== undefined) checkName(one);
  const json = (command === "observe" ? viewKind(values.output, USAGE) : format(values.output)) === "json";
  const nowMs = Date.now();
  // Of `namespace` there is one, and of explain `to` is no filter.
  const filterTokens = tokens.filter(
    (token) => token.kind === "option" && token.name !== "namespace" && !(explains !== undefined && token.name === "to"),
  );
  const filter = readFilter(filterTokens, USAGE, nowMs);
  if (command !== "observe" && (filter.terms.length > 0 || values.top !== undefined))
    throw new Usage(`kubectl namegate: filters and --top go with observe\n${USAGE}`);
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
    case "observe": {
      const { follow, last } = planOf(values, filter.terms, nowMs, isTerminal(out.stdout));
      return observe(asked, { last: number("last", Math.min(last, LAST_MAX), LAST_MAX), follow, filter, view: values }, out);
    }
    case "explain":
      return explain(asked, explains ?? { id: undefined, args: [] }, out);
    case "unused":
      return unused(asked, out);
    default:
      return command satisfies never;
  }
}

interface ExplainWhat {
  /** An event's; undefined: it is about a pod. */
  readonly id: string | undefined;
  readonly args: readonly string[];
}

function explainOf(
  command: (typeof COMMANDS)[number],
  which: string | undefined,
  values: {
    readonly to?: readonly string[] | undefined;
    readonly "server-name"?: string | undefined;
    readonly application?: string | undefined;
  },
): ExplainWhat | undefined {
  const { to, "server-name": serverName, application } = values;
  if (command !== "explain") {
    if (serverName === undefined && application === undefined) return undefined;
    throw new Usage(`kubectl namegate: --server-name and --application go with explain\n${USAGE}`);
  }
  if (which === undefined) throw new Usage(`kubectl namegate: explain needs a pod and --to, or an event's id\n${USAGE}`);
  if (to !== undefined && to.length > 1) throw new Usage(`kubectl namegate: explain: one --to at a time\n${USAGE}`);
  const args = Object.entries({ to: to?.[0], "server-name": serverName, application }).flatMap(([flag, value]) =>
    value === undefined ? [] : [`--${flag}=${value}`],
  );
  if (to === undefined && args.length > 0)
    throw new Usage(`kubectl namegate: --server-name and --application go with a pod and --to\n${USAGE}`);
  if (to === undefined && !/^[a-z0-9]{1,40}-[0-9]{1,16}$/.test(which))
    throw new Usage(`kubectl namegate: ${JSON.stringify(which)} is no event's id; of a pod, --to HOST:PORT is wanted\n${USAGE}`);
  return { id: to === undefined ? which : undefined, args };
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

/** Of a pod and a place the agent of the pod's node is asked; of an event all are, for its id does not say whose it is. */
async function explain(asked: Asked, { id, args }: ExplainWhat, out: Output): Promise<number> {
  const { scope } = asked;
  const what = id === undefined ? ["--pod", `${scope.namespace ?? "default"}/${scope.pod}`] : [id];
  const command = ["explain", ...what, ...args, ...asked.rest, ...(asked.json ? ["-o", "json"] : [])];
  const show = (text: string): unknown => out.stdout.write(asked.json ? text : text.split("\n").map(plain).join("\n"));
  if (id === undefined) {
    const got = await answers(asked, command, out);
    for (const { ran } of got) show(ran.stdout);
    return got.some(({ why, ran }) => why !== undefined || ran.status !== 0) ? 1 : 0;
  }
  const silent: string[] = [];
  const got = await each(asked.agents, asked.parallel, async (agent) => {
    const ran = agent.why === undefined ? await asked.kubectl.run(execArgs(asked, agent, command), asked.timeoutMs) : undefined;
    if (ran?.status === 0) return ran.stdout;
    silent.push(`node ${agent.node}: ${agent.why ?? ran?.why ?? ran?.stderr.split("\n").find((line) => line !== "") ?? "no answer"}\n`);
    return "";
  });
  const found = got.filter((text) => text !== "");
  for (const text of found) show(text);
  if (found.length > 0) return 0;
  for (const line of silent.sort()) out.stderr.write(`${plain(line.trimEnd())}\n`);
  return 1;
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
