import { Fault } from "../base/fault.ts";
import type { Explanation } from "../control/explain.ts";
import { ask } from "../control/socket.ts";
import { parseTarget, TARGET_FORMS } from "../control/target.ts";
import { suggestRule } from "../policy/suggest.ts";
import { readEvent } from "./event-read.ts";
import { explanationText } from "./explain-text.ts";
import { linesOf, withRotated } from "./observe-file.ts";
import { painter } from "./terminal.ts";
import { format, options, type Output, SOCKET_DEFAULT, Usage } from "./usage.ts";

export const EXPLAIN_USAGE = `usage: namegate explain ID [--file PATH] [-o text|json] [--socket PATH]
       namegate explain --pod NAMESPACE/NAME --to HOST:PORT [--server-name NAME] [--application NAME]

Why a connection was allowed or denied, or would be: DNS, binding, policies, rules, first bytes, verdict, and the rule that would
allow it. It asks the running agent, whose own evaluator answers; nothing is changed by the question.

  ID                       of an event (at the end of a line of \`observe\`)
  --file PATH              the event is in this file; the agent need not run, and only the event itself is explained
  --pod NAMESPACE/NAME     a pod of this node
  --to HOST:PORT           where to: ${TARGET_FORMS};
                           of a name all addresses that the pod has resolved it to are looked at
  --server-name NAME       suppose that the client names this server (in TLS, unless --application says otherwise)
  --application NAME       suppose that this is spoken: tls, http1, postgresql, …
`;

export async function explain(argv: readonly string[], out: Output): Promise<number> {
  const string = { type: "string" } as const;
  const { values, positionals } = options(argv, EXPLAIN_USAGE, {
    pod: string,
    to: string,
    "server-name": string,
    application: string,
    file: string,
    output: { ...string, short: "o" },
    socket: string,
  });
  const wrong = (what: string): Usage => new Usage(`namegate: ${what}\n${EXPLAIN_USAGE}`);
  const json = format(values.output) === "json";
  const [id, ...more] = positionals;
  if (more.length > 0) throw wrong(`${JSON.stringify(more[0])}: one event at a time`);
  const supposes = values["server-name"] ?? values.application;
  if (id === undefined && (values.pod === undefined || values.to === undefined))
    throw wrong("explain wants an event's ID, or --pod and --to");
  if (id !== undefined && (values.pod ?? values.to ?? supposes) !== undefined) throw wrong("an event's ID, or --pod and --to, not both");
  if (values.file !== undefined && id === undefined) throw wrong("--file wants an event's ID");
  const target = values.to === undefined ? undefined : parseTarget(values.to);
  if (typeof target === "string") throw wrong(`--to ${JSON.stringify(values.to)}: ${target}; write ${TARGET_FORMS}`);
  const answer =
    values.file !== undefined && id !== undefined
      ? await fromFile(values.file, id)
      : await fromAgent(
          values.socket ?? SOCKET_DEFAULT,
          id !== undefined
            ? { id }
            : { pod: values.pod, to: values.to, serverName: values["server-name"], application: values.application },
        );
  out.stdout.write(json ? `${JSON.stringify(answer, undefined, 2)}\n` : explanationText(answer, painter(out.stdout, process.env)));
  return 0;
}

async function fromAgent(socket: string, request: Readonly<Record<string, unknown>>): Promise<Explanation> {
  const lines: unknown[] = [];
  await ask(socket, { command: "explain", ...request }, (line) => lines.push(line));
  const [answer] = lines as Explanation[];
  if (answer === undefined) throw new Fault("no-answer", "the agent did not answer", "see its log");
  return answer;
}

/** The event alone: no agent, so neither names nor policies. */
async function fromFile(path: string, id: string): Promise<Explanation> {
  for await (const line of linesOf(withRotated(path), process.stdin)) {
    if (line?.includes(JSON.stringify(id)) !== true) continue;
    let event: ReturnType<typeof readEvent>;
    try {
      event = readEvent(JSON.parse(line));
    } catch {
      continue;
    }
    if (event?.id === id) return { pod: null, to: null, event, replay: null, now: null, suggestion: suggestRule(event) };
  }
  throw new Fault(
    "no-event",
    `no event ${JSON.stringify(id)} in ${path}`,
    "is it of another node or day? `namegate observe --file` lists what is there",
  );
}
