import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Child, until } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import type { Explanation } from "../../src/control/explain.ts";
import { ask, type Request } from "../../src/control/socket.ts";
import type { Event } from "../../src/model/event.ts";

const ANSWER_MS = 20_000;

/** The command-line program, as built beside this file. */
export const MAIN = fileURLToPath(new URL("../../src/main.js", import.meta.url));

/** The agent in a lab's node namespace, standalone, as a user would run it. */
export interface TestAgent {
  readonly child: Child;
  /** Events so far (this run's stdout). */
  events(): Event[];
  /** The first event that matches, waiting for it. `from`: skip that many. */
  event(what: string, match: (event: Event) => boolean, options?: { from?: number; timeoutMs?: number }): Promise<Event>;
  /** What `namegate status -o json` prints, without the start of a program. */
  status(): Promise<AgentStatus>;
  /** kill -9. */
  kill(): Promise<void>;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
}

/** The parts of a status that tests look at. */
export interface AgentStatus {
  readonly ready: boolean;
  readonly mode: string;
  readonly effectiveMode: string;
  readonly pods: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly guarded: boolean;
    readonly mode: string | null;
    readonly policies: readonly string[];
    readonly attachment: { readonly kind: string; readonly interface?: string };
    readonly enforced?: boolean;
    readonly why?: string;
    readonly bindings?: number;
    readonly ruleHits?: Readonly<Record<string, number>>;
  }[];
  readonly policies: readonly {
    readonly name: string;
    readonly valid: boolean;
    readonly inForce: boolean;
    readonly errors: readonly string[];
  }[];
  readonly queues: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly sets: Readonly<Record<string, number>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly inputs: readonly {
    readonly resource: string;
    readonly synced: boolean;
    readonly staleSeconds: number;
    readonly items: number;
    readonly error?: string;
  }[];
  readonly kept?: string;
  readonly lastUpdate: { readonly microseconds: number } | null;
}

/** What is said of a policy document that is in force from now on. */
export const ACCEPTED: ReadonlySet<string | null> = new Set(["policy-accepted", "policy-changed"]);

/** A ConfigMap manifest that holds one policy document; `spec` is YAML or JSON text, indented or not. */
export function policy(
  name: string,
  spec: unknown,
  { namespace = "shop", kind = "EgressPolicy" }: { namespace?: string; kind?: string } = {},
): string {
  const document = JSON.stringify({ apiVersion: "namegate.dev/v1alpha1", kind, metadata: { name }, spec });
  return `${JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: `policy-${name}`, namespace, labels: { "namegate.dev/policy": "true" } }, data: { [`${name}.yaml`]: document } })}\n`;
}

const folder = (lab: Lab): string => join(lab.dir, "policies");

/** Writes (or with undefined removes) a manifest of the policies folder, atomically. The agent sees it by itself. */
export function putPolicy(lab: Lab, file: string, text: string | undefined): void {
  mkdirSync(folder(lab), { recursive: true });
  const path = join(folder(lab), file);
  if (text === undefined) rmSync(path, { force: true });
  else {
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
  }
}

/** Runs a namegate command in the node namespace. */
export function namegate(lab: Lab, ...argv: string[]): ReturnType<Lab["exec"]> {
  return lab.exec("node", [process.execPath, MAIN, ...argv], { timeoutMs: 20_000 });
}

export const socketOf = (lab: Lab): string => join(lab.dir, "agent.sock");

/** What the agent answers on its socket. */
async function answerOf<T>(lab: Lab, request: Request): Promise<T> {
  let answer: T | undefined;
  await ask(
    socketOf(lab),
    request,
    (line) => {
      answer = line as T;
    },
    AbortSignal.timeout(ANSWER_MS),
  );
  if (answer === undefined) throw new Error(`the agent has not answered within ${ANSWER_MS} ms`);
  return answer;
}

/** What the agent answers to `explain`, without the start of a program. */
export const explained = (
  lab: Lab,
  request: { readonly id: string } | { readonly pod: string; readonly to: string; readonly serverName?: string },
): Promise<Explanation> => answerOf(lab, { command: "explain", ...request });

export interface AgentStart {
  /** Further options. */
  readonly args?: readonly string[];
  readonly iptables?: "nft" | "legacy" | "auto";
  readonly ready?: boolean;
  /** What is run in place of the program beside this file. */
  readonly program?: readonly string[];
}

/** Starts the agent and waits until it is ready. */
export async function startAgent(
  lab: Lab,
  { args = [], iptables = "nft", ready = true, program = [process.execPath, MAIN] }: AgentStart = {},
): Promise<TestAgent> {
  mkdirSync(folder(lab), { recursive: true });
  const pods = lab.writePodsFile();
  const child = lab.spawn("node", [
    ...program,
    "agent",
    "--policies",
    folder(lab),
    "--pods",
    pods,
    "--state",
    join(lab.dir, "state"),
    "--socket",
    socketOf(lab),
    "--metrics",
    "off",
    "--iptables",
    iptables,
    ...args,
  ]);
  return running(lab, child, ready);
}

/** An agent that has been spawned; `ready`: waits until it is. */
export async function running(lab: Lab, child: Child, ready = true): Promise<TestAgent> {
  const events = (): Event[] => child.out.flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Event] : []));
  const agent: TestAgent = {
    child,
    events,
    event: (what, match, { from = 0, timeoutMs = 5000 } = {}) => until(`event: ${what}`, () => events().slice(from).find(match), timeoutMs),
    status: () => answerOf<AgentStatus>(lab, { command: "status" }),
    kill: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
    stop: async () => {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
  // A Fault with the agent's last words when it ends or is silent.
  if (ready) await child.line((line) => line.includes('"msg":"ready"'), { stream: "err", timeoutMs: 20_000 });
  return agent;
}
