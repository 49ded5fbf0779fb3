import type { Passes, Term } from "../control/event-filter.ts";
import type { Event } from "../model/event.ts";
import { readEvent } from "./event-read.ts";
import { type Asked, execArgs } from "./kubectl-agents.ts";
import { eventInScope, plain } from "./kubectl-merge.ts";
import { each, type Ran } from "./kubectl-run.ts";
import { filterArgs } from "./observe-options.ts";
import { openView } from "./observe-view.ts";
import { type Output, Usage } from "./usage.ts";

/** Each stream is a kubectl process of some 40 MB, and a connection to the API server. */
export const STREAMS_MAX = 50;

export interface Wanted {
  readonly last: number;
  readonly follow: boolean;
  readonly filter: { readonly terms: readonly Term[]; readonly passes: Passes };
  /** As of openView. */
  readonly view: Parameters<typeof openView>[0];
}

/** The events of all agents: as they come, or by time. Each agent is given the filters, so that only what passes crosses the network. */
export async function observe(asked: Asked, { last, follow, filter, view: look }: Wanted, out: Output): Promise<number> {
  if (asked.agents.length > STREAMS_MAX)
    throw new Usage(
      `kubectl namegate: ${asked.agents.length} nodes are too many to follow at once (${STREAMS_MAX}): name a pod or a --node\n`,
    );
  const view = openView(look, "", out, { live: follow, several: asked.agents.length > 1 });
  const command = [
    "observe",
    "-o",
    "json",
    "--last",
    String(last),
    ...(follow ? [] : ["--no-follow"]),
    ...filterArgs(filter.terms),
    ...asked.rest,
  ];
  const kept: { node: string; event: Event; raw: unknown }[] = [];
  const take = (node: string, line: string): void => {
    const raw = parsed(line);
    const event = readEvent(raw);
    if (event === undefined) out.stderr.write(`node ${plain(node)}: a line that is no event: ${plain(line.slice(0, 200))}\n`);
    else if (!eventInScope(event, asked.scope) || !filter.passes(event)) return;
    else if (follow) view.take(event, raw, node);
    else kept.push({ node, event, raw });
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
  for (const { node, event, raw } of kept.sort((a, b) => (a.event.time < b.event.time ? -1 : 1))) view.take(event, raw, node);
  view.end();
  return silent > 0 ? 1 : 0;
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
