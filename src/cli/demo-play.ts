import { setTimeout } from "node:timers/promises";
import type { Event } from "../model/event.ts";
import type { Reach, Reached } from "./demo-client.ts";
import { HELLO, PORT } from "./demo-servers.ts";
import { OUTSIDE, POLICIES, type PodName, type World } from "./demo-world.ts";

/** How a scene is played: most are one connection (or query) and one event. */

export interface Part {
  readonly title: string;
  readonly scenes: readonly Scene[];
}

export interface Scene {
  readonly title: string;
  play(world: World): Promise<Outcome>;
}

export interface Outcome {
  readonly ok: boolean;
  /** What was measured, for a person. */
  readonly said: readonly string[];
  readonly events: readonly Event[];
  /** For the summary. */
  readonly figure?: readonly [kind: Figure, ms: number];
}

export type Figure = keyof typeof FIGURES;
export const FIGURES = {
  connected: "connected, right behind the DNS reply",
  refused: "refused (a connection or a query)",
  restart: "the agent ready again after kill -9",
  revoked: "from an edited policy to the reset of an open connection",
} as const;

/** What the event must say besides the pod. */
type Expected = Partial<Pick<Event, "verdict" | "why" | "rule">>;

export interface Attempt extends Reach {
  readonly title: string;
  readonly pod: PodName;
  /** How it must end: with an answer, or with this error. */
  readonly ends: "answered" | "ECONNREFUSED" | "ECONNRESET" | "EREFUSED";
  readonly event?: Expected;
}

/** How long a connection is watched that must wait. */
const WAIT_MS = 300;
/** A SYN without an answer is sent again after 1 and 3 seconds (RFC 6298). */
const RETRY_MS = 8000;
const REVOKE_MS = 5000;

const ORDERS = { address: OUTSIDE.orders, port: PORT.postgresql, send: HELLO.postgresql } as const;

export function attempt({ title, pod, ends, event: expected, ...reach }: Attempt): Scene {
  return {
    title,
    async play(world) {
      const from = world.events().length;
      const reached = await world.clients[pod].reach(reach);
      const event = expected === undefined ? undefined : await world.event(from, (e) => e.pod?.name === pod && matches(e, expected));
      const silent = expected !== undefined && event === undefined;
      const good = (reached.code ?? "answered") === ends;
      const said = [`${story(reached)}${good ? "" : `; it should have been: ${ends}`}`];
      if (silent) said.push(`no event came that says ${Object.values(expected).join(", ")}`);
      const figure = good ? figureOf(reached) : undefined;
      return { ok: good && !silent, said, events: event === undefined ? [] : [event], ...(figure === undefined ? {} : { figure }) };
    },
  };
}

/** kill -9, and the start afterwards: what waits in between is decided then. */
export function crash(): readonly Scene[] {
  let waiting: Promise<Reached> | undefined;
  return [
    {
      title: "kill -9 of the agent",
      async play(world) {
        const { checkout } = world.clients;
        await world.killAgent();
        const open = await checkout.talk(HELLO.query);
        const known = await checkout.reach(ORDERS);
        waiting = checkout.reach({ address: OUTSIDE.evil, port: PORT.https, timeoutMs: RETRY_MS });
        const early = await Promise.race([waiting, setTimeout(WAIT_MS)]);
        const held = early === undefined ? `waits (no answer for ${WAIT_MS} ms)` : story(early);
        return {
          ok: open.code === undefined && known.code === undefined && early === undefined,
          said: [
            `the open PostgreSQL connection goes on: ${story(open)}`,
            `a new one, to the name learned before: ${story(known)}`,
            `a new one, to an address that no reply named: ${held}`,
          ],
          events: [],
        };
      },
    },
    {
      title: "the agent starts again",
      async play(world) {
        const { checkout } = world.clients;
        const from = world.events().length;
        const readyMs = await world.startAgent();
        const known = await checkout.reach({ address: OUTSIDE.stripe, port: PORT.https, serverName: "api.stripe.com", send: HELLO.http });
        const waited = await waiting;
        const open = await checkout.talk(HELLO.query);
        const started = await world.event(from, ({ why }) => why === "started");
        const denial = await world.event(from, denied(OUTSIDE.evil));
        return {
          ok:
            [known, open].every(({ code }) => code === undefined) &&
            waited?.code === "ECONNREFUSED" &&
            started !== undefined &&
            denial !== undefined,
          said: [
            `ready after ${ms(readyMs)}, with the names that the kernel had kept`,
            `api.stripe.com, without asking DNS again: ${story(known)}`,
            `the connection that waited: ${waited === undefined ? "unknown" : story(waited)} (TCP had asked again)`,
            `the open PostgreSQL connection never noticed: ${story(open)}`,
          ],
          events: [denial, started].filter((event) => event !== undefined).sort((a, b) => a.seq - b.seq),
          figure: ["restart", readyMs],
        };
      },
    },
  ];
}

export async function revoked(world: World): Promise<Outcome> {
  const { checkout } = world.clients;
  const from = world.events().length;
  const ended = checkout.ended(REVOKE_MS);
  const start = performance.now();
  world.put({ ...POLICIES.checkout, rules: ["stripe"] });
  const { code } = await ended;
  const took = performance.now() - start;
  const again = await checkout.reach(ORDERS);
  const denial = await world.event(from, denied(OUTSIDE.orders));
  const reset = code === "ECONNRESET";
  return {
    ok: reset && again.code === "ECONNREFUSED" && denial !== undefined,
    said: [
      `the open connection: ${reset ? `reset ${ms(took)} after the file was written` : (code ?? "goes on")}`,
      `a new one: ${story(again)}`,
    ],
    events: denial === undefined ? [] : [denial],
    ...(reset ? { figure: ["revoked", took] } : {}),
  };
}

const denied =
  (address: string) =>
  ({ verdict, destination }: Event): boolean =>
    verdict === "deny" && destination?.address === address;

function matches(event: Event, expected: Expected): boolean {
  return (Object.keys(expected) as (keyof Expected)[]).every((key) => event[key] === expected[key]);
}

/** A reset at the first bytes includes the connection to the server: no figure. */
function figureOf({ code, dnsMs, connectMs, ms }: Reached): readonly [Figure, number] | undefined {
  if (code === "ECONNREFUSED" || code === "EREFUSED") return ["refused", ms];
  return code === undefined && dnsMs !== undefined && connectMs !== undefined ? ["connected", connectMs] : undefined;
}

/** Milliseconds for a person. */
export const ms = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

function story({ code, dnsMs, connectMs, ms: all }: Reached): string {
  const dns = dnsMs === undefined ? "" : ` (DNS: ${ms(dnsMs)})`;
  switch (code) {
    case undefined:
      return `${connectMs === undefined ? "" : `connected in ${ms(connectMs)}, `}answered in ${ms(all)}${dns}`;
    case "EREFUSED":
      return `the query was answered with REFUSED in ${ms(all)}`;
    case "ECONNREFUSED":
      return `refused in ${ms(all)}${dns}`;
    case "ECONNRESET":
      return `reset at its first bytes, ${ms(all)} after the start${dns}`;
    default:
      return `${code} after ${ms(all)}${dns}`;
  }
}
