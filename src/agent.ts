import { mkdirSync } from "node:fs";
import type { Logger } from "pino";
import { History } from "./alerts/history.ts";
import { stamper } from "./alerts/stamp.ts";
import { attachmentOf, bridgeNetfilter } from "./attach/interface.ts";
import { addon } from "./base/addon.ts";
import type { Ip } from "./base/address.ts";
import { collect } from "./base/collect.ts";
import { Fault, messageOf } from "./base/fault.ts";
import { announcer } from "./control/announce.ts";
import { Changes } from "./control/changes.ts";
import { Discovery } from "./control/discover.ts";
import { Enforcement } from "./control/enforcement.ts";
import { InterfaceGroups } from "./control/groups.ts";
import { inputsReader } from "./control/inputs.ts";
import { PacketThread } from "./control/packet-thread.ts";
import { PolicyKeeper } from "./control/policies.ts";
import { QueueWatch, readQueueList } from "./control/queues.ts";
import { RuleGuard } from "./control/rules.ts";
import { listen } from "./control/socket.ts";
import { buildStatus, strictest } from "./control/status.ts";
import { probeMatches } from "./firewall/probe.ts";
import { rulesGeneration } from "./firewall/generation.ts";
import { openIptables } from "./firewall/iptables.ts";
import { collisions, hex, marks } from "./firewall/marks.ts";
import { ALL_MATCHES, type BridgedPod, type Matches } from "./firewall/rules.ts";
import type { PodsFile } from "./inputs/files/pods.ts";
import { ManifestFolder, watchPath } from "./inputs/files/watch.ts";
import { serveMetrics } from "./metrics/server.ts";
import type { EventDraft } from "./model/event.ts";
import type { Policy, Problem } from "./model/policy.ts";
import type { Snapshot } from "./model/snapshot.ts";
import { restrictsQueries } from "./policy/queries.ts";
import type { Limits } from "./worker/protocol.ts";

/** The picture as code: inputs make a snapshot, its changes go to the packet thread, and events come back. */

export interface AgentOptions {
  readonly policies: string;
  readonly pods: string;
  readonly state: string;
  readonly socket: string;
  readonly metrics: string | undefined;
  readonly iptables: "auto" | "nft" | "legacy";
  readonly markMask: number;
  readonly queueBase: number;
  readonly clusterNamespace: string | undefined;
  readonly limits: Limits;
  readonly checkMs: number;
  /** Between two self-tests; undefined: none. */
  readonly selfTestMs: number | undefined;
  readonly log: Logger;
  /** One line per event. */
  readonly event: (line: string) => void;
  /** The packet thread is gone: the process is to end, so that its supervisor starts it again. */
  readonly onDeath: () => void;
}

export interface Agent {
  stop(): Promise<void>;
}

const RETRY_READ_MS = 50;
const TICK_MS = 1000;
const LOOK_AGAIN_MS = 30_000;

export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { log } = options;
  const startedMs = Date.now();
  const history = new History();
  const stamp = stamper(startedMs.toString(36));
  const emit = (draft: EventDraft): void => {
    const event = stamp(draft, Date.now());
    history.push(event);
    options.event(JSON.stringify(event));
  };

  // Whether this node can enforce at all is known before anything is touched.
  const native = addon();
  const marksInUse = marks(options.markMask);
  const iptables = await openIptables(options.iptables);
  log.info({ variant: iptables.variant, reason: iptables.reason }, "iptables variant chosen");
  await refuseCollisions(iptables, marksInUse.mask);
  mkdirSync(options.state, { recursive: true, mode: 0o700 });

  const keeper = new PolicyKeeper(options.state);
  const changes = new Changes();
  const discovery = new Discovery(emit, (level, message) => log[level](message), Date.now);
  const generation = rulesGeneration(new native.NetlinkSocket());
  const losses = new QueueWatch(options.queueBase, emit);
  /** Probed when rules are first wanted: Discover alone touches none. */
  let matches: Matches | undefined;
  const groups = new InterfaceGroups();
  const rules = new RuleGuard(
    iptables,
    { marks: marksInUse, queueBase: options.queueBase, matches: ALL_MATCHES },
    { emit, log: (level, message, detail) => log[level](detail ?? {}, message), generation, nowMs: Date.now },
  );

  const enforcement = new Enforcement({
    emit,
    log: (level, message, detail) => log[level](detail ?? {}, message),
    sender: new native.RawSender(),
    nowMs: Date.now,
    everyMs: options.selfTestMs,
    rulesInstalled: () => rules.installed,
    thread: () => thread,
    mode: () => strictest(keeper.states.flatMap(({ policy }) => policy?.mode ?? [])),
  });

  let snapshot: Snapshot | undefined;
  let podsFile: PodsFile | undefined;
  let podProblems: readonly Problem[] = [];
  let knownProblems = "";
  let thread: PacketThread | undefined;
  let addresses: ReadonlySet<Ip> = new Set();
  let readyMs = 0;
  let lastUpdate: { microseconds: number; bindings: number } | undefined;

  const folder = new ManifestFolder(options.policies);
  const readInputs = inputsReader(options, folder);
  const tell = announcer(emit);
  const announce = (): void => {
    if (snapshot !== undefined) tell(keeper.states, [...keeper.loose, ...podProblems], snapshot);
  };

  const reload = async (again: boolean): Promise<void> => {
    const from = performance.now();
    const read = readInputs();
    const readMs = performance.now() - from;
    // A file that is just being written looks broken for a moment: new problems are looked at twice.
    const problems = JSON.stringify([read.policies.problems, read.pods.problems]);
    if (again && problems !== knownProblems && read.policies.problems.length + read.pods.problems.length > 0) {
      setTimeout(() => void queueReload(false), RETRY_READ_MS);
      return;
    }
    knownProblems = problems;
    if (read.pods.pods !== undefined) podsFile = read.pods.pods;
    podProblems = read.pods.problems;
    if (podsFile === undefined) return;
    snapshot = { ...podsFile, policies: keeper.update(read.policies) };
    try {
      await apply(snapshot);
    } finally {
      keeper.save();
    }
    announce();
    log.debug({ readMs, allMs: performance.now() - from, threadMicroseconds: lastUpdate?.microseconds }, "inputs read and applied");
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
        emit({ type: "agent", verdict: "info", why: "degraded", message: `a change could not be applied: ${messageOf(error)}` });
      });
    return line;
  };

  const apply = async (now: Snapshot, lookAgain = false): Promise<void> => {
    const update = changes.next(now, (name) => attachmentOf(name), lookAgain);
    addresses = new Set(now.pods.flatMap((pod) => pod.addresses));
    const policies = new Map(now.policies.map((policy) => [policy.id, policy]));
    const selected = changes.current.map((one) => ({ ...one, modes: one.policies.map((id) => policies.get(id)?.mode) }));
    try {
      discovery.set(
        selected
          .filter(({ modes }) => modes.length > 0 && modes.every((mode) => mode === "Discover"))
          .map((one) => ({ pod: one.pod, policies: one.policies.flatMap((id) => policies.get(id) ?? []) })),
      );
    } catch (error) {
      log.error({ error: messageOf(error), fix: error instanceof Fault ? error.fix : undefined }, "Discover cannot look at traffic");
      emit({ type: "agent", verdict: "info", why: "degraded", message: `Discover cannot look at traffic: ${messageOf(error)}` });
    }
    // Discover alone touches no rule and no packet.
    if (thread === undefined && !now.policies.some(({ mode }) => mode !== "Discover") && !(await leftovers())) {
      readyMs ||= Date.now();
      return;
    }
    const covered = (iface: string): boolean => now.interfacePrefixes.some((prefix) => iface.startsWith(prefix));
    const guarded = selected.filter(({ modes }) => modes.some((mode) => mode !== undefined && mode !== "Discover"));
    const seesFrames = bridgeNetfilter(4) && bridgeNetfilter(6);
    const bridged: BridgedPod[] = guarded.flatMap(({ pod, attachment }) =>
      attachment.kind === "bridged"
        ? [{ port: attachment.interface, addresses: pod.addresses, bridge: seesFrames ? attachment.bridge : undefined }]
        : [],
    );
    if (update === undefined && thread !== undefined) return;
    if (matches === undefined) {
      matches = await probeMatches(iptables);
      for (const [name, there] of Object.entries(matches))
        if (!there) log.warn({ match: name }, "this kernel lacks an iptables match: see `namegate doctor`");
      rules.use(matches);
    }
    // With interface prefixes the wildcard element says it.
    const watched = !matches.groups
      ? []
      : guarded
          .filter(({ attachment }) => !covered(attachment.interface))
          .map(({ attachment, modes }) => ({ attachment, mode: modes.includes("Enforce") ? ("Enforce" as const) : ("Monitor" as const) }));
    groups.release(watched);
    const queries = guarded.some((one) => one.policies.some((id) => restrictsQueries(policies.get(id) as Policy)));
    if (thread !== undefined) {
      await rules.change({ bridged, queries }).catch((error: unknown) => {
        log.error({ error: messageOf(error) }, "the rules that depend on pods could not be changed; the next check tries again");
        emit({
          type: "agent",
          verdict: "info",
          why: "degraded",
          message: `the rules that depend on pods could not be changed: ${messageOf(error)}`,
        });
      });
    }
    const first = thread === undefined;
    thread ??= new PacketThread(
      { markMask: options.markMask, queueBase: options.queueBase, limits: options.limits, groups: matches.groups },
      native,
      emit,
      log,
      (address) => addresses.has(address),
      marksInUse,
      options.onDeath,
    );
    thread.onCanary = (nonce) => enforcement.test.seen(nonce);
    // The thread was not there for earlier changes: it gets the whole state.
    const applied = await thread.update(first ? (new Changes().next(now, (name) => attachmentOf(name)) ?? update) : update);
    lastUpdate = applied;
    if (first) {
      await thread.bind();
      await rules.install({ bridged, queries });
      readyMs = Date.now();
      emit({
        type: "agent",
        verdict: "info",
        why: "started",
        message: `enforcing with iptables-${iptables.variant}, mark mask ${hex(marksInUse.mask)}, ${applied.bindings} bindings read back`,
      });
    }
    const ungrouped = groups.join(watched);
    for (const { pod, attachment } of guarded)
      warnUnenforceable(
        pod.key,
        ungrouped.has(attachment.interface)
          ? `its interface cannot be put into a group, so stolen source addresses would go unseen: ${ungrouped.get(attachment.interface)}`
          : attachment.kind === "missing"
            ? attachment.why
            : attachment.kind === "bridged" && !seesFrames
              ? "bridged packets do not cross netfilter: set net.bridge.bridge-nf-call-iptables and -ip6tables to 1"
              : undefined,
      );
    enforcement.watch(guarded.map(({ pod, attachment }) => ({ pod: pod.key, addresses: pod.addresses, attachment })));
  };

  const unenforceable = new Map<string, string>();
  const warnUnenforceable = (key: string, why: string | undefined): void => {
    if (why === undefined) unenforceable.delete(key);
    else if (unenforceable.get(key) !== why) {
      unenforceable.set(key, why);
      log.error({ pod: key, why }, "pod NOT ENFORCED");
      emit({ type: "agent", verdict: "info", why: "unenforceable", message: `${key} is NOT ENFORCED: ${why}` });
    }
  };

  const leftovers = async (): Promise<boolean> => {
    const saved = await iptables.save(4, "mangle");
    return saved.chains.has("NG-ADMIT");
  };

  const lookAgain = (): Promise<void> => {
    line = line
      .then(() => (snapshot === undefined ? undefined : apply(snapshot, true)))
      .catch((error: unknown) => log.error({ error: messageOf(error) }, "interfaces could not be looked at"));
    return line;
  };

  await queueReload(false);
  if (podsFile === undefined) {
    const first = podProblems[0];
    throw new Fault(
      "pods-file",
      `the pods file cannot be used: ${first === undefined ? "unknown" : `${first.file}:${first.line}:${first.column}: ${first.message}`}${podProblems.length > 1 ? ` (and ${podProblems.length - 1} more)` : ""}`,
      first?.hint ?? "correct it; DESIGN: resolvers and pods",
    );
  }
  if (readyMs === 0) throw thread?.failure ?? new Fault("not-ready", "the first state could not be applied", "see the log above");
  await enforcement.begin();

  const changed = (): void => void queueReload(true);
  const watches = [watchPath(options.policies, changed, (name) => folder.touched(name)), watchPath(options.pods, changed)];
  const timers = [
    setInterval(() => {
      thread?.tick(Date.now());
      if (thread !== undefined) losses.tick(readQueueList(), Date.now());
      // A pod whose interface was not there yet.
      if (changes.current.some(({ attachment }) => attachment.kind === "missing" && attachmentOf(attachment.interface).kind !== "missing"))
        void lookAgain();
    }, TICK_MS),
    // An interface that is another one now, though nobody said so.
    setInterval(() => {
      const lost = groups.check();
      if (lost.length > 0)
        emit({
          type: "rules",
          verdict: "info",
          why: "groups-restored",
          message: `${lost.join(", ")}: the interface group was changed by somebody; restored`,
        });
      void lookAgain();
    }, LOOK_AGAIN_MS),
    setInterval(() => {
      rules.check().catch((error: unknown) => log.error({ error: messageOf(error) }, "the rules could not be checked"));
    }, options.checkMs),
  ];

  const status = async (): Promise<unknown> =>
    buildStatus({
      ready: thread === undefined ? readyMs > 0 : rules.installed && thread.alive,
      ...enforcement.state,
      variant: iptables.variant,
      startedMs,
      states: keeper.states,
      loose: [...keeper.loose, ...podProblems],
      pods: changes.current,
      unenforceable: enforcement.unenforceable(unenforceable),
      worker: await thread?.status(),
      dropped: losses.dropped,
      repairs: rules.repairs,
      events: history.total,
      lastUpdate,
    });

  const server = await listen(options.socket, async (request, write) => {
    switch (request.command) {
      case "status":
        write(await status());
        return undefined;
      case "observe": {
        const count = typeof request["last"] === "number" ? request["last"] : 0;
        for (const event of history.last(count)) write(event);
        if (request["follow"] !== true) return undefined;
        if (!history.follow(write)) throw new Fault("too-many", "too many observers", "close one of them");
        return () => history.unfollow(write);
      }
      default:
        throw new Fault("request", `unknown command ${String(request.command)}`, "known: status, observe");
    }
  });
  const metrics =
    options.metrics === undefined
      ? undefined
      : await serveMetrics(options.metrics, {
          ready: () => (thread === undefined ? readyMs > 0 : rules.installed && thread.alive),
          status,
        });
  collect();
  log.info({ socket: options.socket, metrics: options.metrics }, "ready");

  return {
    // Rules and sets stay: only `namegate uninstall` removes them.
    stop: async () => {
      emit({ type: "agent", verdict: "info", why: "stopped", message: "the agent stops; rules and sets stay" });
      for (const timer of timers) clearInterval(timer);
      await enforcement.close();
      for (const watch of watches) watch.close();
      discovery.close();
      server.close();
      metrics?.close();
      await thread?.stop();
    },
  };
}

async function refuseCollisions(iptables: Awaited<ReturnType<typeof openIptables>>, mask: number): Promise<void> {
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
