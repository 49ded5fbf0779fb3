import assert from "node:assert/strict";
import { chmodSync } from "node:fs";
import type { TestContext } from "node:test";
import type { ExecOptions, ExecResult } from "../../src/cli/lab-process.ts";
import type { Event } from "../../src/model/event.ts";
import { need } from "./need.ts";
import { OUT, SHOP_NEEDS, type Shop, shop } from "./shop.ts";

/**
 * Real clients on trial: the pod `checkout` runs them, the namespace `out` runs their servers, and a policy says what they
 * may be. Both names have the same addresses; the certificate of servers.ts has them.
 */
export const SVC = "svc.example.com";
export const OTHER = "other.example.com";
export const POD = "checkout";

const NAMES = {
  [SVC]: { A: [OUT.stripe], AAAA: [OUT.stripe6] },
  [OTHER]: { A: [OUT.stripe], AAAA: [OUT.stripe6] },
};
/** A client that is denied must know it by now; programs need part of this to start on a busy machine. */
const RUN_MS = 10_000;

/** An Accept rule: TCP and the name `svc.example.com` unless it says otherwise. Whatever else it has goes into the policy. */
export interface TrialRule {
  readonly application?: string;
  readonly port: number;
  readonly protocol?: "TCP" | "UDP";
  readonly names?: readonly string[];
  readonly [field: string]: unknown;
}

export interface Trial {
  readonly shop: Shop;
  readonly lab: Shop["lab"];
  /** What the pod may do from now on. The rules are new ones each time, so that their first use is told. */
  rules(...rules: readonly TrialRule[]): Promise<void>;
  run(argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** The program says `says` (stdout or stderr): it got through. The event of the rule's first use, if this was it. */
  passes(argv: readonly string[], says: RegExp, options?: ExecOptions): Promise<void>;
  /** As passes; and the rule's first use, which this must be, showed this. */
  shows(argv: readonly string[], says: RegExp, evidence: Shown, options?: ExecOptions): Promise<Event>;
  /** The program ends by itself (a reset, no timeout) without saying `says`; the event says why, and what was seen. */
  denied(argv: readonly string[], says: RegExp, why: string, evidence?: Shown, options?: ExecOptions): Promise<Event>;
}

/** What must be in the evidence of an event; `fields` as a part too. undefined: must be null or absent. */
export type Shown = Readonly<Record<string, unknown>>;

export async function trial(t: TestContext, programs: readonly string[] = []): Promise<Trial | undefined> {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "openssl", ...programs] })) return undefined;
  let generation = 0;
  let since = 0;
  const it = await shop(t, { names: NAMES, listen: [], policies: {} });
  chmodSync(it.lab.dir, 0o711); // servers that want a user of their own find their files

  const run: Trial["run"] = (argv, options) => it.lab.exec(POD, argv, { timeoutMs: RUN_MS, ...options });
  const passes: Trial["passes"] = async (argv, says, options) => {
    const from = it.agent.events().length;
    const got = await run(argv, options);
    const denials = it.agent
      .events()
      .slice(from)
      .filter(({ verdict }) => verdict === "deny");
    assert.match(got.stdout + got.stderr, says, `${told(argv, got)}\n${lines(denials)}`);
  };
  return {
    shop: it,
    lab: it.lab,
    rules: async (...rules) => {
      generation++;
      await it.put("trial", {
        mode: "Enforce",
        subject: { podSelector: { matchLabels: { app: POD } } },
        egress: rules.map(({ port, protocol = "TCP", names = [SVC], ...rest }, i) => ({
          name: `r${generation}-${i}`,
          action: "Accept",
          to: [{ domainNames: names }],
          ports: [{ protocol, port }],
          ...rest,
        })),
      });
      since = it.agent.events().length;
    },
    run,
    passes,
    shows: async (argv, says, evidence, options) => {
      await passes(argv, says, options);
      const event = await it.agent.event(`allowed: ${argv[0]}`, (e) => e.type === "connection" && e.verdict === "allow", { from: since });
      showed(event, evidence);
      return event;
    },
    denied: async (argv, says, why, evidence = {}, options) => {
      const from = it.agent.events().length;
      const got = await run(argv, options);
      assert.ok(!got.timedOut, `it must see a reset: ${told(argv, got)}`);
      const seen = it.agent.events().slice(from);
      assert.doesNotMatch(got.stdout + got.stderr, says, `it got through: ${told(argv, got)}\n${lines(seen)}`);
      const denial = (e: Event): boolean => e.type === "connection" && e.verdict === "deny";
      const event = await it.agent.event(`denied: ${told(argv, got)}`, denial, { from });
      assert.equal(event.why, why, `${told(argv, got)}\n${JSON.stringify(event)}`);
      showed(event, evidence);
      return event;
    },
  };
}

function told(argv: readonly string[], { status, timedOut, stdout, stderr }: ExecResult): string {
  return `${argv.join(" ").slice(0, 300)}: status ${status}${timedOut ? ", timed out" : ""}\n${stdout.slice(-600)}\n${stderr.slice(-600)}`;
}

const lines = (events: readonly Event[]): string =>
  events
    .slice(0, 3)
    .map((event) => JSON.stringify(event))
    .join("\n");

function showed(event: Event, wanted: Shown): void {
  const evidence: Readonly<Record<string, unknown>> = { ...event.evidence };
  for (const [key, value] of Object.entries(wanted)) {
    if (key === "fields") {
      const fields: Readonly<Record<string, unknown>> = { ...event.evidence?.fields };
      for (const [field, text] of Object.entries(value as Shown))
        assert.deepEqual(fields[field], text, `${field}: ${JSON.stringify(event)}`);
    } else assert.deepEqual(evidence[key] ?? undefined, value, `${key}: ${JSON.stringify(event)}`);
  }
}
