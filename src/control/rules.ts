import type { Iptables } from "../firewall/iptables.ts";
import { type FoundDrift, NO_POD_RULES, type PodRules, RuleKeeper } from "../firewall/keeper.ts";
import type { Matches } from "../firewall/rules.ts";
import type { EventDraft } from "../model/event.ts";

/** Repairs this close together are a war with another component: we go on, but more slowly, and say so. */
const WAR_REPAIRS = 5;
const WAR_WINDOW_MS = 60_000;
const WAR_PAUSE_MS = 60_000;

export interface RuleGuardDeps {
  readonly emit: (draft: EventDraft) => void;
  readonly log: (level: "info" | "warn" | "error", message: string, detail?: Record<string, unknown>) => void;
  /** Changes whenever anybody changes nf_tables rules; undefined: look every time. */
  readonly generation: () => number | undefined;
  readonly nowMs: () => number;
}

/** Keeps our rules in place. One operation at a time: each waits for the one before. */
export class RuleGuard {
  private readonly keeper: RuleKeeper;
  private readonly deps: RuleGuardDeps;
  private readonly legacy: boolean;
  private line: Promise<unknown> = Promise.resolve();
  private pods = NO_POD_RULES;
  installed = false;
  repairs = 0;
  private lastRepairs: number[] = [];
  private pausedUntilMs = 0;
  private checkedGeneration: number | undefined;
  private looking: Promise<void> | undefined;

  constructor(iptables: Iptables, options: ConstructorParameters<typeof RuleKeeper>[1], deps: RuleGuardDeps) {
    this.keeper = new RuleKeeper(iptables, options);
    this.deps = deps;
    this.legacy = iptables.variant === "legacy";
  }

  /** What this kernel has; before `install`. */
  use(matches: Matches, hellos?: string): void {
    this.keeper.use(matches, hellos);
  }

  private inLine<T>(work: () => Promise<T>): Promise<T> {
    const result = this.line.then(work, work);
    this.line = result.catch(() => undefined);
    return result;
  }

  install(pods: PodRules): Promise<void> {
    return this.inLine(async () => {
      this.pods = pods;
      await this.keeper.install(pods);
      this.installed = true;
    });
  }

  change(pods: PodRules): Promise<void> {
    if (!this.installed) return Promise.resolve();
    const old = this.pods;
    // Once needed it stays until the next start: a policy that comes and goes is not to wait for iptables each time.
    const next = { bridged: pods.bridged, queries: pods.queries || old.queries };
    this.pods = next;
    const same = pods.bridged === old.bridged || JSON.stringify(pods.bridged) === JSON.stringify(old.bridged);
    // Nor is one that needs no other rules to wait for a look at them.
    if (same && next.queries === old.queries) return Promise.resolve();
    return this.inLine(async () => {
      this.checkedGeneration = undefined; // should this fail, the next check finds out, though the kernel's rules are the same
      await this.keeper.change(next);
    });
  }

  /** Looks, and restores what is missing, altered or shadowed. Whoever asks meanwhile gets the same look. */
  check(): Promise<void> {
    this.looking ??= this.look().finally(() => {
      this.looking = undefined;
    });
    return this.looking;
  }

  private look(): Promise<void> {
    return this.inLine(async () => {
      const { deps } = this;
      const nowMs = deps.nowMs();
      if (!this.installed || nowMs < this.pausedUntilMs) return;
      const generation = this.legacy ? undefined : deps.generation();
      if (generation !== undefined && generation === this.checkedGeneration) return;
      const found = await this.keeper.check();
      if (found.length > 0) await this.repair(found, nowMs);
      // Rules that changed while we looked are looked at again: only an unchanged generation counts as checked.
      this.checkedGeneration = found.length === 0 ? generation : undefined;
    });
  }

  private async repair(found: readonly FoundDrift[], nowMs: number): Promise<void> {
    const { deps } = this;
    const what = found.map(
      ({ family, table, chain, kind, detail }) => `${family === 4 ? "iptables" : "ip6tables"} ${table}/${chain}: ${kind} (${detail})`,
    );
    await this.keeper.restore(found);
    this.repairs++;
    this.lastRepairs = [...this.lastRepairs.filter((at) => nowMs - at < WAR_WINDOW_MS), nowMs];
    const war = this.lastRepairs.length >= WAR_REPAIRS;
    if (war) {
      this.pausedUntilMs = nowMs + WAR_PAUSE_MS;
      this.lastRepairs = [];
    }
    deps.log("warn", "rules were altered by somebody and have been restored", { what });
    deps.emit({
      type: "rules",
      verdict: "info",
      why: war ? "rules-contended" : "rules-restored",
      message: `${what.join("; ")}: restored${war ? `; something keeps changing them: next look in ${WAR_PAUSE_MS / 1000} s` : ""}`,
    });
  }

  remove(): Promise<void> {
    return this.inLine(() => this.keeper.remove());
  }
}
