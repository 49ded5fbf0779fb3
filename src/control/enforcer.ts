import { join } from "node:path";
import type { Logger } from "pino";
import { groupSetter } from "../attach/group.ts";
import { attachmentIn, attachmentOf, bridgeNetfilter } from "../attach/interface.ts";
import type { LinkTable } from "../attach/link.ts";
import { NodeNetwork } from "../attach/network.ts";
import { type Addon, NetlinkProtocol } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import type { NamePattern } from "../base/name.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { pinHellos } from "../firewall/hellos.ts";
import { rulesGeneration } from "../firewall/generation.ts";
import type { PodRules } from "../firewall/keeper.ts";
import type { Iptables } from "../firewall/iptables.ts";
import { hex, type Marks } from "../firewall/marks.ts";
import { probeMatches, probePinned } from "../firewall/probe.ts";
import { ALL_MATCHES, type Matches } from "../firewall/rules.ts";
import type { Attachment } from "../model/attachment.ts";
import type { EventDraft } from "../model/event.ts";
import type { Snapshot } from "../model/snapshot.ts";
import { selectPolicies } from "../policy/select.ts";
import type { Explained, WhatIf } from "../worker/explain.ts";
import type { Limits, PodUpdate, Update, WorkerStatus } from "../worker/protocol.ts";
import { Changes } from "./changes.ts";
import { type Discovered, Discovery } from "./discover.ts";
import { type GroupChanges, InterfaceGroups } from "./groups.ts";
import { PacketThread } from "./packet-thread.ts";
import { RuleGuard } from "./rules.ts";
import { Selection } from "./selection.ts";
import type { GuardedInterface } from "./self-test.ts";
import type { Outside } from "./source.ts";
import { Unenforceable } from "./unenforceable.ts";
import type { RuleUsage } from "./usage.ts";

export interface EnforcerOptions {
  readonly markMask: number;
  readonly queueBase: number;
  readonly limits: Limits;
  readonly dnsServers: readonly NamePattern[];
  /** The kernel may know hellos; a folder of ours that outlives us. undefined: userspace reads every hello. */
  readonly knownHellos: string | undefined;
  /** The packet thread is gone: the process is to end, so that its supervisor starts it again. */
  readonly onDeath: () => void;
}

/** A kernel without interface groups: `ng-src` has to say it. */
const NO_GROUPS: GroupChanges = new Map();

/** What it needs of the world. */
export interface EnforcerDeps {
  readonly native: Addon;
  readonly iptables: Iptables;
  readonly marks: Marks;
  readonly emit: (draft: EventDraft) => void;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly usage: RuleUsage;
  /** A packet of no known pod waits: from this address, by the interface of this index. */
  readonly onUnknown: (source: Ip, index: number) => void;
  /** A canary of the self-test has come to the packet thread. */
  readonly onCanary: (nonce: string) => void;
  /** The guarded pods as the kernel has them now. */
  readonly onGuarded: (pods: readonly GuardedInterface[]) => void;
}

/** Brings a snapshot into the kernel: the packet thread, the rules and the interface groups, each told what changed. */
export class Enforcer {
  readonly rules: RuleGuard;
  readonly unenforceable: Unenforceable;
  private readonly options: EnforcerOptions;
  private readonly deps: EnforcerDeps;
  private readonly changes = new Changes();
  private readonly selection = new Selection();
  private readonly discovery: Discovery;
  private readonly groups: InterfaceGroups;
  private readonly network: NodeNetwork;
  /** Probed when rules are first wanted: Discover alone touches none. */
  private matches: Matches | undefined;
  /** Where the kernel's programs that know hellos are pinned. */
  private hellos: string | undefined;
  /** Does the kernel know hellos, and why not? */
  knownHellos: { readonly inKernel: boolean; readonly why: string | null } = { inKernel: false, why: "no rules yet" };
  private thread: PacketThread | undefined;
  /** Why the last snapshot is not in the kernel. */
  private refusal: Fault | undefined;
  private applied = false;
  lastUpdate: { readonly microseconds: number; readonly bindings: number } | undefined;

  constructor(options: EnforcerOptions, deps: EnforcerDeps) {
    const { emit, log } = deps;
    this.options = options;
    this.deps = deps;
    this.discovery = new Discovery(
      emit,
      (level, message) => log[level](message),
      deps.nowMs,
      (verdict) => deps.usage.discovered(verdict, deps.nowMs()),
    );
    this.unenforceable = new Unenforceable(emit, (detail, message) => log.error(detail, message));
    const socket = new deps.native.NetlinkSocket({ protocol: NetlinkProtocol.route });
    this.groups = new InterfaceGroups(groupSetter(socket));
    this.network = new NodeNetwork(socket);
    this.rules = new RuleGuard(
      deps.iptables,
      { marks: deps.marks, queueBase: options.queueBase, matches: ALL_MATCHES },
      {
        emit,
        log: (level, message, detail) => log[level](detail ?? {}, message),
        generation: rulesGeneration(new deps.native.NetlinkSocket()),
        nowMs: () => performance.now(), // a pause is to end, though the wall clock is set back
      },
    );
  }

  /** The kernel answers as the last snapshot says. */
  get ready(): boolean {
    return this.thread === undefined ? this.applied : this.rules.installed && this.thread.alive;
  }

  get enforcing(): boolean {
    return this.rules.installed && this.thread?.alive === true;
  }

  get pods(): readonly PodUpdate[] {
    return this.changes.current;
  }

  get failure(): Fault | undefined {
    return this.thread?.failure ?? this.refusal;
  }

  get packetThread(): Pick<PacketThread, "alive" | "failure"> | undefined {
    return this.thread;
  }

  get packetActiveMs(): number | undefined {
    return this.thread?.alive === true ? this.thread.activeMs : undefined;
  }

  status(): Promise<WorkerStatus> | undefined {
    return this.thread?.status();
  }

  /** undefined: no packet thread is wanted, for nothing is judged, or it guards no such pod. */
  async explain(question: WhatIf): Promise<Explained | undefined> {
    return this.thread?.explain(question);
  }

  /** Rules that an earlier agent left. */
  async leftovers(): Promise<boolean> {
    const saved = await this.deps.iptables.save(4, "mangle");
    return saved.chains.has("NG-ADMIT");
  }

  /**
   * Returns when the kernel has it. `lookAgain`: at every interface, and whether it is in its group. `outside`: pods that no policy can reach. `hold`: rules
   * are wanted although no policy asks for them, so that pods which nobody knows yet wait.
   */
  async apply(
    now: Snapshot,
    { lookAgain = false, outside = [], hold = false }: { lookAgain?: boolean; outside?: readonly Outside[]; hold?: boolean } = {},
  ): Promise<void> {
    const links = lookAgain || !this.applied ? this.links() : undefined;
    const look = (name: string): Attachment => (links === undefined ? undefined : attachmentIn(links, name)) ?? attachmentOf(name);
    if (lookAgain && links !== undefined) this.checkGroups(links);
    const update = this.changes.next(now, look, lookAgain);
    this.deps.usage.adopt(now.policies, this.deps.nowMs());
    if (update !== undefined) this.selection.take(update, (key) => this.changes.told(key));
    this.discover(now.resolvers);
    // Discover alone touches no rule and no packet.
    const touches = hold || now.policies.some(({ mode }) => mode !== "Discover");
    if (this.thread === undefined && !touches && !(await this.leftovers())) {
      if (!this.applied)
        this.deps.emit({
          type: "agent",
          verdict: "info",
          why: "started",
          message: "no policy in force asks for rules: nothing is touched",
        });
      this.applied = true;
      this.deps.usage.settle();
      this.unenforceable.set(outsideReasons(now, outside));
      return;
    }
    const seesFrames = bridgeNetfilter(4) && bridgeNetfilter(6);
    const same = update === undefined && this.rules.installed && seesFrames === this.sawFrames;
    try {
      if (!same) this.ungrouped = await this.tell(now, update, look, seesFrames);
    } catch (error) {
      this.applied = false;
      this.refusal = error instanceof Fault ? error : undefined;
      throw error;
    }
    this.sawFrames = seesFrames;
    this.unenforceable.set([...this.selection.unenforced(this.ungrouped, seesFrames), ...outsideReasons(now, outside)]);
    this.applied = true;
    this.refusal = undefined;
    this.deps.onGuarded(this.selection.guarded);
  }

  private ungrouped: ReadonlyMap<string, string> = new Map();
  /** What Discover was told last. */
  private discovering: { readonly pods: readonly Discovered[]; readonly resolvers: Snapshot["resolvers"] } | undefined;
  /** Were bridged packets shown to iptables when the rules were last told? */
  private sawFrames: boolean | undefined;

  private discover(resolvers: Snapshot["resolvers"]): void {
    const { emit, log } = this.deps;
    const pods = this.selection.discovered;
    if (this.discovering?.pods === pods && this.discovering.resolvers === resolvers) return;
    this.discovering = undefined;
    try {
      this.discovery.set(pods, resolvers);
      this.discovering = { pods, resolvers };
    } catch (error) {
      log.error({ error: messageOf(error), fix: error instanceof Fault ? error.fix : undefined }, "Discover cannot look at traffic");
      emit({ type: "agent", verdict: "info", why: "degraded", message: `Discover cannot look at traffic: ${messageOf(error)}` });
    }
  }

  /** Rules, packet thread, interface groups, in the order that lets no packet by. Returns interfaces that could not be grouped. */
  private async tell(
    now: Snapshot,
    update: ReturnType<Changes["next"]>,
    look: (name: string) => Attachment,
    seesFrames: boolean,
  ): Promise<ReadonlyMap<string, string>> {
    const { deps, selection } = this;
    const { emit, iptables } = deps;
    const rules = { bridged: selection.bridged(seesFrames), queries: selection.queries };
    const matches = (this.matches ??= await this.probe());
    // With interface prefixes the wildcard element says it.
    const covered = (iface: string): boolean => now.interfacePrefixes.some((prefix) => iface.startsWith(prefix));
    const grouped = matches.groups ? selection.regrouped(covered) : NO_GROUPS;
    this.groups.release(grouped);
    if (this.thread === undefined) await this.begin(now, look, matches);
    else {
      await this.changeRules(rules);
      this.lastUpdate = await this.thread.update(this.slotted(update));
    }
    deps.usage.settle();
    if (!this.rules.installed) {
      await this.rules.install(rules);
      const message = `enforcing with iptables-${iptables.variant}, mark mask ${hex(deps.marks.mask)}, ${this.lastUpdate?.bindings} bindings read back`;
      emit({ type: "agent", verdict: "info", why: "started", message });
    }
    const failed = this.groups.join(grouped);
    selection.settleGroups();
    return failed;
  }

  private slotted(update: ReturnType<Changes["next"]>): Update | undefined {
    return update === undefined ? undefined : { ...update, slots: this.deps.usage.slots(update.policies) };
  }

  /** The thread was not there for earlier changes: it gets the whole state. One that cannot begin leaves nothing, so that the next one may. */
  private async begin(now: Snapshot, look: (name: string) => Attachment, { groups }: Matches): Promise<void> {
    const { options, deps } = this;
    const thread = new PacketThread(
      {
        markMask: options.markMask,
        queueBase: options.queueBase,
        limits: options.limits,
        dnsServers: options.dnsServers,
        groups,
        hellos: this.hellos,
        block: deps.usage.block,
      },
      deps.native,
      deps.emit,
      deps.log,
      (address) => this.selection.hasAddress(address),
      deps.marks,
      options.onDeath,
      deps.onUnknown,
    );
    thread.onCanary = deps.onCanary;
    try {
      this.lastUpdate = await thread.update(this.slotted(new Changes().next(now, look)));
      await thread.bind();
    } catch (error) {
      await thread.stop();
      throw error;
    }
    this.thread = thread;
  }

  private async probe(): Promise<Matches> {
    const matches = await probeMatches(this.deps.iptables);
    for (const [name, there] of Object.entries(matches))
      if (!there) this.deps.log.warn({ match: name }, "this kernel lacks an iptables match: see `namegate doctor`");
    const pinned = await this.pin(matches);
    this.hellos = "folder" in pinned ? pinned.folder : undefined;
    this.knownHellos = { inKernel: this.hellos !== undefined, why: "why" in pinned ? pinned.why : null };
    this.deps.log.info(this.knownHellos, "ClientHellos that were read before");
    this.rules.use(matches, this.hellos);
    return matches;
  }

  private async pin({ bpf }: Matches): Promise<ReturnType<typeof pinHellos>> {
    const { iptables, native } = this.deps;
    const { knownHellos } = this.options;
    if (knownHellos === undefined) return { why: "--known-hellos off" };
    if (!bpf) return { why: "this kernel lacks xt_bpf" };
    // Whoever changes a table there gives the kernel our rules again, and would have to have our pins before its eyes.
    if (iptables.variant === "legacy") return { why: "only with iptables-nft" };
    const pinned = pinHellos(native, knownHellos);
    if ("folder" in pinned && !(await probePinned(iptables, join(pinned.folder, "hello")))) return { why: "iptables refuses the programs" };
    return pinned;
  }

  private async changeRules(rules: PodRules): Promise<void> {
    const { emit, log } = this.deps;
    await this.rules.change(rules).catch((error: unknown) => {
      log.error({ error: messageOf(error) }, "the rules that depend on pods could not be changed; the next check tries again");
      emit({
        type: "agent",
        verdict: "info",
        why: "degraded",
        message: `the rules that depend on pods could not be changed: ${messageOf(error)}`,
      });
    });
  }

  /** About once a second. True: an interface that was missing is there now. */
  tick(nowMs: number): boolean {
    this.thread?.tick(nowMs);
    return this.pods.some(({ attachment }) => attachment.kind === "missing" && attachmentOf(attachment.interface).kind !== "missing");
  }

  /** The node's interfaces; undefined: the kernel does not say. */
  private links(): LinkTable | undefined {
    const links = this.network.links();
    return "bad" in links ? undefined : links;
  }

  /** Puts interfaces back into their groups. */
  private checkGroups(links: LinkTable): void {
    const lost = this.groups.check((iface) => links.byName.get(iface)?.group);
    if (lost.length === 0) return;
    this.deps.emit({
      type: "rules",
      verdict: "info",
      why: "groups-restored",
      message: `${lost.join(", ")}: the interface group was changed by somebody; restored`,
    });
  }

  checkRules(): void {
    this.rules.check().catch((error: unknown) => this.deps.log.error({ error: messageOf(error) }, "the rules could not be checked"));
  }

  /** Rules and sets stay: only `namegate uninstall` removes them. */
  async stop(): Promise<void> {
    this.discovery.close();
    await this.thread?.stop();
  }
}

/** Those that a policy asks to guard. */
function outsideReasons(now: Snapshot, outside: readonly Outside[]): (readonly [string, string])[] {
  return outside.flatMap(({ pod, why }) =>
    selectPolicies(now.policies, pod, now.namespaces).some(({ mode }) => mode !== "Discover") ? [[pod.key, why] as const] : [],
  );
}
