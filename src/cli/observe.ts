import { ask } from "../control/socket.ts";
import type { Event } from "../model/event.ts";
import { format, options, type Output, SOCKET_DEFAULT, Usage } from "./usage.ts";

const USAGE = "usage: namegate observe [-o text|json] [--last N] [--no-follow] [--socket PATH]\n";

export async function observe(argv: readonly string[], out: Output): Promise<number> {
  const { values } = options(argv, USAGE, {
    output: { type: "string", short: "o" },
    last: { type: "string" },
    "no-follow": { type: "boolean" },
    follow: { type: "boolean", short: "f" },
    socket: { type: "string" },
  });
  const kind = format(values.output);
  const last = Number(values.last ?? (values["no-follow"] === true ? 100 : 0));
  if (!Number.isInteger(last) || last < 0) throw new Usage(`namegate: --last ${values.last}: a whole number is wanted\n${USAGE}`);
  await ask(values.socket ?? SOCKET_DEFAULT, { command: "observe", last, follow: values["no-follow"] !== true }, (line) => {
    out.stdout.write(kind === "json" ? `${JSON.stringify(line)}\n` : `${eventText(line as Event)}\n`);
  });
  return 0;
}

/** One event on one line for a person. */
export function eventText(event: Event): string {
  const time = event.time.slice(11, 23);
  const pod = event.pod === null ? "-" : `${event.pod.namespace}/${event.pod.name}`;
  const to =
    event.destination === null
      ? ""
      : ` → ${event.destination.names[0] ?? ""}${event.destination.names.length > 0 ? " " : ""}${place(event.destination)}`;
  const rule = event.rule === null ? "" : ` by ${event.policy}/${event.rule}`;
  const why = event.why === null ? "" : ` ${event.why}`;
  const nearest =
    event.nearest === null ? "" : ` (nearest: ${event.nearest.policy}/${event.nearest.rule}, its ${event.nearest.clause} does not match)`;
  const seen = event.evidence?.serverName === null || event.evidence === null ? "" : ` [server name ${event.evidence.serverName}]`;
  const said = event.destination === null && event.message !== null ? ` ${event.message}` : "";
  return `${time} ${event.verdict.toUpperCase().padEnd(10)} ${pod}${to}${seen}${why}${rule}${nearest}${said}`;
}

function place({ address, port, protocol }: NonNullable<Event["destination"]>): string {
  if (address === null) return "";
  return `${address.includes(":") ? `[${address}]` : address}:${port ?? 0}/${protocol ?? "?"}`;
}
