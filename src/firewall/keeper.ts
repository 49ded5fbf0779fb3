import type { Family } from "../base/address.ts";
import { bridgeRules, type BridgedPod } from "./bridge-rules.ts";
import type { Iptables } from "./iptables.ts";
import { type Drift, drift, isBehind, refillText, removeText, restoreText } from "./plan.ts";
import { BRIDGE_CHAIN, type Matches, type RuleOptions, type TableName, type TableWanted, wantedRules } from "./rules.ts";

const FAMILIES = [4, 6] as const;

/** What the static rules do not know by themselves: it comes and goes with the pods. */
export interface PodRules {
  readonly bridged: readonly BridgedPod[];
  /** Some pod may not ask for every name. */
  readonly queries: boolean;
}
export const NO_POD_RULES: PodRules = { bridged: [], queries: false };

type KeeperOptions = Omit<RuleOptions, "family" | "queries" | "bridged" | "behind">;

/** A drift with its family. */
export interface FoundDrift extends Drift {
  readonly family: Family;
}

/**
 * Owns our rules: installs them, looks whether they are still there, restores them. Calls must not overlap (the agent
 * awaits each).
 */
export class RuleKeeper {
  private readonly iptables: Iptables;
  private options: KeeperOptions;
  /** Per family and table: our chains as iptables prints them. */
  private readonly reference = new Map<string, ReadonlyMap<string, readonly string[]>>();
  private pods = NO_POD_RULES;
  /** The families where somebody accepts established connections before us. */
  private readonly behind = new Set<Family>();

  constructor(iptables: Iptables, options: KeeperOptions) {
    this.iptables = iptables;
    this.options = options;
  }

  /** The matches that this kernel has, and where the programs that know hellos are. */
  use(matches: Matches, hellos?: string): void {
    this.options = { ...this.options, matches, hellos };
  }

  private wanted(family: Family): TableWanted[] {
    const { bridged, queries } = this.pods;
    const options = { ...this.options, family, queries, bridged: bridged.length > 0, behind: this.behind.has(family) };
    const bridge = bridgeRules(bridged, options);
    return wantedRules(options).map((table) => ({
      ...table,
      chains: table.chains.map((chain) => (chain.name === BRIDGE_CHAIN ? { name: chain.name, rules: bridge } : chain)),
    }));
  }

  private table(family: Family, name: TableName): TableWanted {
    return this.wanted(family).find(({ table }) => table === name) as TableWanted;
  }

  private async put(family: Family, name: TableName): Promise<void> {
    const saved = await this.iptables.save(family, name);
    const table = this.table(family, name);
    await this.iptables.restore(family, restoreText(table, saved));
    await this.remember(family, table);
  }

  /** Looks whose jump is first, before the tables of a family are put. */
  private async lookBefore(family: Family): Promise<void> {
    if (isBehind(await this.iptables.save(family, "mangle"), "PREROUTING")) this.behind.add(family);
    else this.behind.delete(family);
  }

  private async remember(family: Family, table: TableWanted): Promise<void> {
    const saved = await this.iptables.save(family, table.table);
    this.reference.set(`${family}${table.table}`, new Map(table.chains.map(({ name }) => [name, saved.chains.get(name) ?? []])));
  }

  /**
   * Installs every table, and takes over what an earlier agent left: each table in one atomic commit, so that a packet
   * meets the old chains or the new ones. Deciding tables come before the one that admits (mangle), so that no verdict
   * falls that nothing carries out.
   */
  async install(pods = this.pods): Promise<void> {
    this.pods = pods;
    for (const family of FAMILIES) {
      await this.lookBefore(family);
      const order = this.wanted(family).sort((a, b) => Number(a.table === "mangle") - Number(b.table === "mangle"));
      for (const { table } of order) await this.put(family, table);
    }
  }

  /**
   * Pods came, went or got other addresses or policies: one chain is refilled, and the table put whose hook, or whose way
   * into that chain, is needed now or no longer.
   */
  async change(pods: PodRules): Promise<void> {
    const { bridged, queries } = this.pods;
    this.pods = pods;
    // Should this fail, the next check finds the chains altered: of both families, whichever it fails at.
    if (bridged !== pods.bridged) for (const family of FAMILIES) this.reference.delete(`${family}mangle`);
    for (const family of FAMILIES) {
      if (queries !== pods.queries) await this.put(family, "raw");
      if (bridged === pods.bridged) continue;
      if (bridged.length === 0 || pods.bridged.length === 0) {
        await this.put(family, "mangle");
        continue;
      }
      const mangle = this.table(family, "mangle");
      const chain = mangle.chains.find(({ name }) => name === BRIDGE_CHAIN);
      await this.iptables.restore(family, refillText("mangle", BRIDGE_CHAIN, chain?.rules ?? []));
      await this.remember(family, mangle);
    }
  }

  /** What is missing, altered or shadowed. Touches nothing. */
  async check(): Promise<FoundDrift[]> {
    const found: FoundDrift[] = [];
    for (const family of FAMILIES) {
      for (const table of this.wanted(family)) {
        const saved = await this.iptables.save(family, table.table);
        if (table.table === "mangle" && isBehind(saved, "PREROUTING") !== this.behind.has(family))
          found.push({
            table: "mangle",
            chain: "PREROUTING",
            kind: "neighbour",
            detail: "another component's jump came before ours, or went",
            family,
          });
        for (const one of drift(table, saved, this.reference.get(`${family}${table.table}`) ?? new Map())) found.push({ ...one, family });
      }
    }
    return found;
  }

  /** Restores the tables that `found` names. */
  async restore(found: readonly FoundDrift[]): Promise<void> {
    for (const family of FAMILIES) {
      const neighbour = found.some((one) => one.family === family && one.kind === "neighbour");
      if (neighbour) await this.lookBefore(family);
      for (const { table } of this.wanted(family))
        if (neighbour || found.some((one) => one.family === family && one.table === table)) await this.put(family, table);
    }
  }

  /** Removes every rule and chain of ours. The admitting table goes first, so that nothing is judged into a void. */
  async remove(): Promise<void> {
    for (const family of FAMILIES) {
      const order = this.wanted(family).sort((a, b) => Number(b.table === "mangle") - Number(a.table === "mangle"));
      for (const table of order) {
        const text = removeText(table.table, await this.iptables.save(family, table.table));
        if (text !== "") await this.iptables.restore(family, text);
      }
    }
  }
}
