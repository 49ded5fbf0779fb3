import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import type { Logger } from "pino";
import type { Origin } from "./alerts/formats/format.ts";
import { History } from "./alerts/history.ts";
import { Pipeline } from "./alerts/pipeline.ts";
import { stamper } from "./alerts/stamp.ts";
import type { Ip } from "./base/address.ts";
import { addon } from "./base/addon.ts";
import { collect, heapTrimmer } from "./base/collect.ts";
import { Fault, messageOf } from "./base/fault.ts";
import { giveWay } from "./base/hurry.ts";
import { announcer } from "./control/announce.ts";
import { bootId } from "./control/kept.ts";
import { Enforcement } from "./control/enforcement.ts";
import { Enforcer, type EnforcerOptions } from "./control/enforcer.ts";
import type { ExplainDeps } from "./control/explain.ts";
import { LoopDelay, measures } from "./control/measures.ts";
import { PolicyKeeper, type PolicyState } from "./control/policies.ts";
import { QueueWatch, readQueueList, refuseTakenQueues } from "./control/queues.ts";
import { requests } from "./control/requests.ts";
import { listen, refuseSecond } from "./control/socket.ts";
import type { InputSource, Inputs, Node, Outside } from "./control/source.ts";
import { buildStatus, strictest } from "./control/status.ts";
import { RuleUsage } from "./control/usage.ts";
import { type Iptables, openIptables } from "./firewall/iptables.ts";
import { collisions, hex, marks } from "./firewall/marks.ts";
import { serveMetrics } from "./metrics/server.ts";
import { openPage } from "./page/page.ts";
import type { AlertSettings } from "./model/alerts.ts";
import type { Event, EventDraft } from "./model/event.ts";
import type { Problem } from "./model/policy.ts";
import type { Snapshot } from "./model/snapshot.ts";
import { suggestionText, suggestRule } from "./policy/suggest.ts";

/** The picture as code: inputs make a snapshot, its changes go to the packet thread, and events come back. */

export interface AgentOptions extends EnforcerOptions {
  readonly source: InputSource;
  readonly state: string;
  readonly socket: string;
  readonly metrics: string | undefined;
  /** Who the page says it is of; undefined: no page. */
  readonly page: { readonly host: string; readonly version: string } | undefined;
  readonly iptables: "auto" | "nft" | "legacy";
  readonly checkMs: number;
  /** Between two self-tests; undefined: none. */
  readonly selfTestMs: number | undefined;
  readonly log: Logger;
  /** One line per event: the sink where there are no `alerts`, and the sink `stdout` where there are. */
  readonly event: (line: string) => void;
  readonly alerts?: { readonly settings: AlertSettings; readonly origin: Origin } | undefined;
}

export interface Agent {
  stop(): Promise<void>;
}

const TICK_MS = 1000;
const LOOK_AGAIN_MS = 30_000;
/** The kernel's list of queues is read with every so many ticks. */
const QUEUE_TICKS = 3;

export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { log, source } = options;
  const startedMs = Date.now();
  const history = new History();
  // Nodes start in the same millisecond, and collectors tell events apart by their ids.
  const run = `${startedMs.toString(36)}${randomBytes(4).toString("hex")}`;
  const stamp = stamper(run);
  const emit = (draft: EventDraft): void => {
    const event = stamp(draft, Date.now());
    history.push(event);
    page?.push(event);
    if (alerts === undefined) options.event(lineOf(event));
    else alerts.push(event);
  };
  const page =
    options.metrics === undefined || options.page === undefined
      ? undefined
      : openPage({
          ...options.page,
          run,
          state: options.state,
          events: history,
          status: () => status(),
          suggest: suggestRule,
          nowMs: Date.now,
          log: (message) => log.warn(message),
        });
  const alerts = options.alerts === undefined ? undefined : openAlerts(options, options.alerts, emit);
  const degraded = (message: string): void => emit({ type: "agent", verdict: "info", why: "degraded", message });

  // Whether this node can enforce at all, and nobody else does, is known before anything is touched.
  await refuseSecond(options.socket);
  const native = addon();
  giveWay(native);
  await refuseTakenQueues(options.queueBase);
  const marksInUse = marks(options.markMask);
  const iptables = await openIptables(options.iptables);
  log.info({ variant: iptables.variant, reason: iptables.reason }, "iptables variant chosen");
  await refuseCollisions(iptables, marksInUse.mask);
  mkdirSync(options.state, { recursive: true, mode: 0o700 });

  const keeper = new PolicyKeeper(options.state);
  const usage = new RuleUsage(options.state, bootId(), startedMs);
  if (usage.refused !== undefined) log.warn({ why: usage.refused }, "earlier uses of rules are not known: they are counted from now on");
  const losses = new QueueWatch(options.queueBase, emit);
  const onUnknown = (address: Ip, index: number): void => source.strange(address, index);
  let snapshot: Snapshot | undefined;
  const enforcer = new Enforcer(options, {
    native,
    iptables,
    marks: marksInUse,
    emit,
    log,
    nowMs: Date.now,
    usage,
    onUnknown,
    onCanary: (nonce) => enforcement.test.seen(nonce),
    onGuarded: (pods) => enforcement.watch(pods),
  });
  const enforcement = new Enforcement({
    emit,
    nowMs: Date.now,
    everyMs: options.selfTestMs,
    log: (level, message, detail) => log[level](detail ?? {}, message),
    sender: new native.RawSender(),
    rulesInstalled: () => enforcer.rules.installed,
    thread: () => enforcer.packetThread,
    mode: () => strictest(snapshot?.policies.map(({ mode }) => mode) ?? []),
  });
  let node: Node | undefined;
  let outside: readonly Outside[] = [];
  let podProblems: readonly Problem[] = [];
  let knownProblems = "";
  let kept: string | undefined;
  /** While nobody is known yet the kernel only makes wait: that is not what a policy asks for. */
  const ready = (): boolean => enforcer.ready && snapshot?.starting !== true;
  const { resolverHint } = source;
  const tell = announcer({ emit, resolverHint, origin: (file) => source.origin(file), before: keeper.inForce });

  const reload = async (again: boolean): Promise<void> => {
    const from = performance.now();
    const read = source.read();
    const readMs = performance.now() - from;
    if (read.kind !== "read") return keep(read);
    const { policies, pods } = read;
    const problems = source.lookTwiceMs === undefined ? "" : JSON.stringify([policies.problems, pods.problems]);
    if (source.lookTwiceMs !== undefined && again && problems !== knownProblems && policies.problems.length + pods.problems.length > 0) {
      setTimeout(() => void queueReload(false), source.lookTwiceMs);
      return;
    }
    knownProblems = problems;
    if (pods.pods !== undefined) node = pods.pods;
    podProblems = pods.problems;
    if (node === undefined) return;
    outside = read.outside;
    if (kept !== undefined) {
      log.info("the inputs can be read: they are enforced from now on");
      emit({ type: "agent", verdict: "info", why: "inputs-live", message: "the inputs can be read: they are enforced from now on" });
    }
    kept = undefined;
    const next = source.finish({ ...node, policies: keeper.update(policies) });
    snapshot = next;
    try {
      await enforcer.apply(next, { outside });
    } finally {
      keeper.save();
    }
    tell(keeper.states, [...keeper.loose, ...podProblems], next);
    source.applied({ ready: enforcer.ready, snapshot: next, states: keeper.states, loose: keeper.loose });
    log.debug(
      { readMs, allMs: performance.now() - from, threadMicroseconds: enforcer.lastUpdate?.microseconds },
      "inputs read and applied",
    );
  };

  /** What to enforce while the inputs cannot be read. */
  const keep = async (read: Exclude<Inputs, { kind: "read" }>): Promise<void> => {
    if (kept !== read.why) {
      kept = read.why;
      log.warn({ why: read.why }, read.kind === "kept" ? "a kept state is enforced" : "the kernel stays as it is");
      degraded(read.why);
    }
    if (read.kind === "nothing") return;
    ({ snapshot, outside } = read);
    await enforcer.apply(snapshot, { outside, hold: true });
  };

  let line: Promise<void> = Promise.resolve();
  const queueReload = (again: boolean): Promise<void> => {
    line = line
      .then(() => reload(again))
      .catch((error: unknown) => {
        log.error(
          { error: messageOf(error), fix: error instanceof Fault ? error.fix : undefined },
          "a change could not be applied; it is tried again with the next one",
        );
        degraded(`a change could not be applied: ${messageOf(error)}`);
      });
    return line;
  };

  const lookAgain = (): Promise<void> => {
    line = line
      .then(() => (snapshot === undefined ? undefined : enforcer.apply(snapshot, { lookAgain: true, outside })))
      .catch((error: unknown) => log.error({ error: messageOf(error) }, "interfaces could not be looked at"));
    return line;
  };

  await source.begin(!(await enforcer.leftovers()));
  await queueReload(false);
  if (snapshot === undefined && kept === undefined) {
    const first = podProblems[0];
    throw new Fault(
      "pods-file",
      `the pods file cannot be used: ${first === undefined ? "unknown" : `${first.file}:${first.line}:${first.column}: ${first.message}`}${podProblems.length > 1 ? ` (and ${podProblems.length - 1} more)` : ""}`,
      first?.hint ?? "correct it; DESIGN: resolvers and pods",
    );
  }
  if (!enforcer.ready && snapshot !== undefined)
    throw enforcer.failure ?? new Fault("not-ready", "the first state could not be applied", "see the log above");
  await enforcement.begin();

  source.watch(() => void queueReload(true));
  collect();
  const trim = heapTrimmer();
  const loop = new LoopDelay(TICK_MS, performance.now());
  let ticks = 0;
  const timers = [
    setInterval(() => {
      loop.tick(performance.now());
      trim(Date.now());
      enforcement.look();
      keepUsage(usage.tick(Date.now()));
      if (++ticks % QUEUE_TICKS === 0 && enforcer.enforcing) losses.tick(readQueueList(), performance.now());
      // A pod whose interface was not there yet.
      if (enforcer.tick(performance.now())) void lookAgain();
    }, TICK_MS),
    // An interface that is another one now, though nobody said so.
    setInterval(() => void lookAgain(), LOOK_AGAIN_MS),
    setInterval(() => enforcer.checkRules(), options.checkMs),
  ];

  let usageLost: string | undefined;
  const keepUsage = (failed: string | undefined): void => {
    if (failed !== undefined && failed !== usageLost) log.warn({ why: failed }, "uses of rules cannot be kept on disk");
    usageLost = failed;
  };

  const whatIf: ExplainDeps = {
    pods: () => enforcer.pods,
    outside: () => outside,
    snapshot: () => snapshot,
    enforcing: () => enforcement.state.enforcing,
    unenforceable: () => enforcement.unenforceable(enforcer.unenforceable.all),
    judge: (question) => enforcer.explain(question),
    find: (id) => history.find(id),
    oldest: () => history.oldest?.time,
  };

  const status = async (): Promise<unknown> =>
    buildStatus({
      ready: ready(),
      ...enforcement.state,
      variant: iptables.variant,
      startedMs,
      rules: (policy) => usage.rules(policy),
      states: kept === undefined ? keeper.states : keptStates(snapshot),
      loose: [...keeper.loose, ...podProblems],
      pods: enforcer.pods,
      outside,
      namespaces: snapshot?.namespaces ?? {},
      inputs: source.health(Date.now()),
      kept,
      unenforceable: enforcement.unenforceable(enforcer.unenforceable.all),
      worker: await enforcer.status(),
      dropped: losses.dropped,
      repairs: enforcer.rules.repairs,
      knownHellos: enforcer.knownHellos,
      events: history.total,
      alerts: alerts?.status(),
      lastUpdate: enforcer.lastUpdate,
    });

  const server = await listen(options.socket, requests(status, history, whatIf, usage));
  const metrics =
    options.metrics === undefined
      ? undefined
      : await serveMetrics(options.metrics, {
          ready,
          status,
          page: page?.handle,
          measures: () =>
            measures({
              usage,
              loop,
              packetActiveMs: enforcer.packetActiveMs,
              queueLengths: losses.lengths(readQueueList()),
              startedMs,
            }),
        });
  log.info({ socket: options.socket, metrics: options.metrics }, "ready");

  return {
    // Rules and sets stay: only `namegate uninstall` removes them.
    stop: async () => {
      emit({ type: "agent", verdict: "info", why: "stopped", message: "the agent stops; rules and sets stay" });
      for (const timer of timers) clearInterval(timer);
      await enforcement.close();
      source.close();
      server.close();
      metrics?.close();
      page?.close();
      await enforcer.stop();
      keepUsage(usage.save(Date.now()));
      await alerts?.close();
    },
  };
}

function lineOf(event: Event): string {
  const suggestion = suggestionText(event);
  return JSON.stringify(suggestion === undefined ? event : { ...event, suggestion });
}

function openAlerts(
  { state, event }: AgentOptions,
  { settings, origin }: NonNullable<AgentOptions["alerts"]>,
  say: (draft: EventDraft) => void,
): Pipeline {
  const deps = { state, origin, pid: process.pid, say, stdout: event, nowMs: Date.now, random: Math.random, suggest: suggestionText };
  try {
    return new Pipeline(settings, deps);
  } catch (error) {
    throw new Fault(
      "alerts",
      `alerts cannot be kept below ${state}: ${messageOf(error)}`,
      "make it writable, or choose another folder with --state",
      error,
    );
  }
}

/** Policies of a state that was kept: they were valid then. */
function keptStates(snapshot: Snapshot | undefined): PolicyState[] {
  return (snapshot?.policies ?? []).map((policy) => ({ id: policy.id, file: "", valid: true, problems: [], policy }));
}

async function refuseCollisions(iptables: Iptables, mask: number): Promise<void> {
  for (const of of [4, 6] as const) {
    const [found] = collisions(await iptables.saveAll(of), mask);
    if (found !== undefined) {
      throw new Fault(
        "mark-collision",
        `mark mask ${hex(mask)} is used by somebody else: a rule in ${found.table} ${found.why}: ${found.rule}`,
        "choose three other bits with --mark-mask, for example 0xe00",
      );
    }
  }
}
