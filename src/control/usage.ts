import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Action, Mode, Policy, PolicyId, Rule } from "../model/policy.ts";
import type { Verdict, Why } from "../model/verdict.ts";
import { Meter, newBlock, type PolicySlots, RULES_MAX, Slot, Word } from "../worker/meter.ts";
import { readSealed, writeSealed } from "./sealed.ts";

/**
 * Uses of rules on this node: how often and when last, over restarts. The packet thread counts into slots of shared memory
 * (worker/meter.ts); here is which rule has which slot, and the file that remembers (control/sealed.ts). All times are
 * milliseconds since the epoch.
 *
 * A rule with a name is the same rule as long as policy and name are; one without is the same as long as what it says is.
 */

const FORMAT = 1;
const FILE = "usage.json";
const BYTES_MAX = 16 * 1024 * 1024;
const NAME_CHARS_MAX = 600;
/** Writes are at least this far apart; a first use is written sooner; and without any use there is a sign of life. */
const SAVE_MS = 60_000;
const SAVE_FIRST_MS = 5000;
const SAVE_IDLE_MS = 300_000;
/** A rule that was not in force, or an agent that was away, for longer than this: observation begins anew. */
const GAP_MS = 900_000;
/** Rules that are gone are remembered this long. */
const GONE_MS = 30 * 86_400_000;
/**
 * Packets that kernel elements had counted when this agent read them for the first time: nobody knows how many of them the
 * earlier agent has taken in. They count only for a rule whose last use was longer ago than elements live.
 */
const BEFORE_MS = 3_600_000;

interface Record {
  readonly policy: PolicyId;
  /** What makes it the same rule. */
  readonly key: string;
  name: string;
  action: Action;
  mode: Mode;
  /** Without those of its slot. */
  hits: number;
  lastMs: number;
  sinceMs: number;
  /** 0: in force. */
  goneMs: number;
  /** Slot.other: it has none. */
  slot: number;
  /** Uses that Discover saw, in this run. */
  discovered: number;
}

/** A rule in force. */
export interface RuleUse {
  readonly name: string;
  readonly action: Action;
  /** Connections (and refused queries) that it decided; null: nobody counts them (Pass decides nothing). */
  readonly hits: number | null;
  /** RFC 3339; null: never. */
  readonly lastHit: string | null;
  /** Since when uses would have been noticed, RFC 3339. */
  readonly observedSince: string;
}

/** A rule that nobody has used since some time. `conclusive`: it has been observed for that long. */
export interface UnusedRule extends Omit<RuleUse, "name" | "hits"> {
  readonly policy: PolicyId;
  readonly rule: string;
  readonly hits: number;
  readonly mode: Mode;
  readonly conclusive: boolean;
}

/** Verdicts of this run by rule. */
export interface VerdictCount {
  readonly policy: PolicyId | undefined;
  readonly rule: string | undefined;
  readonly mode: Mode;
  readonly verdict: "allow" | "deny" | "would-deny";
  readonly count: number;
}

const time = (ms: number): string => new Date(ms).toISOString();

export class RuleUsage {
  readonly block = newBlock();
  /** The same block, to be read. */
  readonly meter = new Meter(this.block);
  /** Since when this node remembers. */
  sinceMs: number;
  /** Rules in force beyond what can be counted one by one. One of them gets a slot, when there is one, as its policy changes. */
  uncounted = 0;
  /** Why what was on disk is not believed. */
  readonly refused: string | undefined;
  private readonly folder: string;
  private readonly boot: string;
  private readonly startedMs: number;
  private readonly records = new Map<string, Record>();
  private readonly inForce = new Map<PolicyId, { readonly policy: Policy; readonly records: readonly (Record | undefined)[] }>();
  private adopted: readonly Policy[] | undefined;
  private readonly free: number[] = [];
  private nextSlot: number = Slot.first;
  /** Slots that the packet thread may still count into. */
  private leaving: { readonly slot: number; readonly record: Record }[] = [];
  private readonly discoverDenials = new Map<Why, number>();
  private savedMs: number;
  private saved = { uses: 0, firstUses: 0 };
  private discoveries = 0;

  constructor(folder: string, boot: string, nowMs: number) {
    this.folder = folder;
    this.boot = boot;
    this.startedMs = this.sinceMs = this.savedMs = nowMs;
    const read = readSealed(join(folder, FILE), BYTES_MAX);
    if (read === undefined) return;
    this.refused = "refused" in read ? read.refused : this.load(read.body);
  }

  private load(body: string): string | undefined {
    let content: { format?: unknown; boot?: unknown; savedMs?: unknown; sinceMs?: unknown; rules?: unknown };
    try {
      content = JSON.parse(body) as typeof content;
    } catch {
      return `${FILE} is not JSON`;
    }
    if (content?.format !== FORMAT || !Array.isArray(content.rules))
      return `${FILE} has format ${String(content?.format)}, this agent has ${FORMAT}`;
    const now = this.startedMs;
    const past = (value: unknown): number => (typeof value === "number" && value > 0 ? Math.min(value, now) : 0);
    this.sinceMs = past(content.sinceMs) || now;
    // After a reboot no pod of this node has run without an agent for long.
    const awaySince = content.boot === this.boot ? past(content.savedMs) : now;
    for (const raw of content.rules.slice(0, RULES_MAX) as unknown[]) {
      const [policy, key, name, hits, lastMs, sinceMs, goneMs] = Array.isArray(raw) ? (raw as unknown[]) : [];
      if (!isName(policy) || !isName(key) || !isName(name) || !Number.isSafeInteger(hits) || (hits as number) < 0) continue;
      this.records.set(idOf(policy, key), {
        policy,
        key,
        name,
        action: "Accept",
        mode: "Monitor",
        hits: hits as number,
        lastMs: past(lastMs),
        sinceMs: past(sinceMs) || now,
        goneMs: past(goneMs) || awaySince,
        slot: Slot.other,
        discovered: 0,
      });
    }
    return undefined;
  }

  /** These policies are in force from now on. What was counted for others stays theirs until `settle`. */
  adopt(policies: readonly Policy[], nowMs: number): void {
    if (policies === this.adopted) return;
    this.adopted = policies;
    const ids = new Set(policies.map(({ id }) => id));
    for (const [id, { records }] of this.inForce) {
      if (ids.has(id)) continue;
      for (const record of records) if (record !== undefined) this.leave(record, nowMs);
      this.inForce.delete(id);
    }
    for (const policy of policies) {
      const old = this.inForce.get(policy.id);
      if (old?.policy === policy) continue;
      const records = keysOf(policy.rules).map((key, i) => this.enter(policy, policy.rules[i] as Rule, key, nowMs));
      for (const record of old?.records ?? []) if (record !== undefined && !records.includes(record)) this.leave(record, nowMs);
      this.inForce.set(policy.id, { policy, records });
    }
    this.uncounted = 0;
    for (const { records } of this.inForce.values())
      for (const record of records) if (record === undefined || (record.slot === Slot.other && record.action !== "Pass")) this.uncounted++;
  }

  private enter(policy: Policy, { name, action }: Rule, key: string, nowMs: number): Record | undefined {
    const id = idOf(policy.id, key);
    let record = this.records.get(id);
    if (record === undefined) {
      if (this.records.size >= RULES_MAX && !this.forgetOne()) return undefined;
      record = {
        policy: policy.id,
        key,
        name,
        action,
        mode: policy.mode,
        hits: 0,
        lastMs: 0,
        sinceMs: nowMs,
        goneMs: 0,
        slot: Slot.other,
        discovered: 0,
      };
      this.records.set(id, record);
    }
    if (record.goneMs > 0 && nowMs - record.goneMs > GAP_MS) record.sinceMs = nowMs;
    record.goneMs = 0;
    // Counters of two modes are two time series.
    if (record.mode !== policy.mode) this.leaveSlot(record);
    record.name = name;
    record.action = action;
    record.mode = policy.mode;
    if (record.slot === Slot.other && action !== "Pass")
      record.slot = this.free.pop() ?? (this.nextSlot < RULES_MAX + Slot.first ? this.nextSlot++ : Slot.other);
    return record;
  }

  private leave(record: Record, nowMs: number): void {
    record.goneMs = nowMs;
    this.leaveSlot(record);
  }

  private leaveSlot(record: Record): void {
    if (record.slot !== Slot.other) this.leaving.push({ slot: record.slot, record });
    record.slot = Slot.other;
    record.discovered = 0;
  }

  /** Makes room: what has been gone longest is forgotten. */
  private forgetOne(): boolean {
    let oldest: string | undefined;
    let goneMs = Infinity;
    for (const [id, record] of this.records) if (record.goneMs > 0 && record.goneMs < goneMs) [oldest, goneMs] = [id, record.goneMs];
    return oldest !== undefined && this.records.delete(oldest);
  }

  /** Where the packet thread counts the rules of these policies. */
  slots(policies: readonly Policy[]): readonly PolicySlots[] {
    return policies.map(({ id }) => ({
      policy: id,
      slots: (this.inForce.get(id)?.records ?? []).flatMap((record) =>
        record === undefined || record.slot === Slot.other ? [] : [[record.name, record.slot] as const],
      ),
    }));
  }

  /** The packet thread has the last change: nobody counts into slots that were left. */
  settle(): void {
    for (const { slot, record } of this.leaving) {
      const { hits, lastMs } = this.live(record, slot);
      record.hits += hits;
      record.lastMs = Math.max(record.lastMs, lastMs);
      this.meter.clear(slot);
      this.free.push(slot);
    }
    this.leaving = [];
  }

  /** What Discover would have decided about a connection. */
  discovered(verdict: Verdict, nowMs: number): void {
    this.discoveries++;
    if (verdict.policy === undefined && verdict.action === "deny")
      this.discoverDenials.set(verdict.why, (this.discoverDenials.get(verdict.why) ?? 0) + 1);
    const record = this.inForce.get(verdict.policy ?? "")?.records.find((one) => one?.name === verdict.rule);
    if (record === undefined) return;
    record.discovered++;
    record.hits++;
    record.lastMs = nowMs;
  }

  private live({ lastMs }: Record, slot: number): { hits: number; lastMs: number } {
    if (slot === Slot.other) return { hits: 0, lastMs: 0 };
    const { meter } = this;
    const own = meter.slot(slot, Word.allow) + meter.slot(slot, Word.deny) + meter.slot(slot, Word.wouldDeny);
    const before = this.startedMs - lastMs > BEFORE_MS ? meter.slot(slot, Word.before) : 0;
    return { hits: own + before, lastMs: Math.max(meter.slot(slot, Word.lastMs), before > 0 ? this.startedMs : 0) };
  }

  private total(record: Record): { hits: number; lastMs: number } {
    const { hits, lastMs } = this.live(record, record.slot);
    return { hits: record.hits + hits, lastMs: Math.max(record.lastMs, lastMs) };
  }

  /** The rules of a policy in force, in its order. */
  rules(policy: PolicyId): readonly RuleUse[] {
    return (this.inForce.get(policy)?.records ?? []).flatMap((record) => {
      if (record === undefined) return [];
      const { name, action, sinceMs } = record;
      const { hits, lastMs } = this.total(record);
      const counted = action === "Pass" ? null : hits;
      return [{ name, action, hits: counted, lastHit: lastMs === 0 ? null : time(lastMs), observedSince: time(sinceMs) }];
    });
  }

  /** Rules in force that were not used after `cutMs`; of one policy or all. Pass rules are not among them. */
  unused(cutMs: number, only: PolicyId | undefined): readonly UnusedRule[] {
    const found: UnusedRule[] = [];
    for (const [policy, { records }] of this.inForce) {
      if (only !== undefined && policy !== only) continue;
      for (const record of records) {
        if (record === undefined || record.action === "Pass") continue;
        const { hits, lastMs } = this.total(record);
        if (lastMs >= cutMs) continue;
        const { name: rule, action, mode, sinceMs } = record;
        found.push({
          policy,
          rule,
          hits,
          lastHit: lastMs === 0 ? null : time(lastMs),
          action,
          mode,
          observedSince: time(sinceMs),
          conclusive: sinceMs <= cutMs && (record.slot !== Slot.other || mode === "Discover"),
        });
      }
    }
    return found.sort((a, b) => (a.policy < b.policy ? -1 : a.policy > b.policy ? 1 : 0));
  }

  has(policy: PolicyId): boolean {
    return this.inForce.has(policy);
  }

  /** What was decided in this run, in the order in which slots were given out; rules without a slot, and default denials, come last. */
  verdicts(): readonly VerdictCount[] {
    const { meter } = this;
    const counts: VerdictCount[] = [];
    for (const { records } of this.inForce.values()) {
      for (const record of records) {
        if (record === undefined || record.action === "Pass" || record.slot === Slot.other) continue;
        const { policy, name: rule, mode, action, slot, discovered } = record;
        const usual = action === "Accept" ? "allow" : mode === "Enforce" ? "deny" : "would-deny";
        for (const [verdict, word] of OUTCOMES) {
          const count = meter.slot(slot, word) + (verdict === usual ? discovered : 0);
          if (count > 0 || verdict === usual) counts.push({ policy, rule, mode, verdict, count });
        }
      }
    }
    const none = (verdict: VerdictCount["verdict"], mode: Mode, count: number): number =>
      counts.push({ policy: undefined, rule: undefined, mode, verdict, count });
    none("deny", "Enforce", meter.slot(Slot.none, Word.deny));
    none("would-deny", "Monitor", meter.slot(Slot.none, Word.wouldDeny));
    none(
      "would-deny",
      "Discover",
      [...this.discoverDenials.values()].reduce((sum, count) => sum + count, 0),
    );
    return counts;
  }

  denials(why: Why, verdict: "deny" | "would-deny"): number {
    return this.meter.denials(why, verdict) + (verdict === "would-deny" ? (this.discoverDenials.get(why) ?? 0) : 0);
  }

  /** About once a second. Returns why what was due could not be written. */
  tick(nowMs: number): string | undefined {
    const { uses, firstUses } = this.meter;
    const since = nowMs - this.savedMs;
    const due =
      since >= SAVE_IDLE_MS ||
      (since >= SAVE_MS && uses + this.discoveries !== this.saved.uses) ||
      (since >= SAVE_FIRST_MS && firstUses !== this.saved.firstUses);
    return due ? this.save(nowMs) : undefined;
  }

  save(nowMs: number): string | undefined {
    const { uses, firstUses } = this.meter;
    this.savedMs = nowMs;
    this.saved = { uses: uses + this.discoveries, firstUses };
    const rules: unknown[] = [];
    for (const [id, record] of this.records) {
      const { policy, key, name, sinceMs, goneMs } = record;
      if (goneMs > 0 && nowMs - goneMs > GONE_MS) {
        this.records.delete(id);
        continue;
      }
      const { hits, lastMs } = this.total(record);
      rules.push([policy, key, name, hits, lastMs, sinceMs, goneMs]);
    }
    const { boot, sinceMs } = this;
    return writeSealed(this.folder, FILE, JSON.stringify({ format: FORMAT, boot, savedMs: nowMs, sinceMs, rules }));
  }
}

const OUTCOMES = [
  ["allow", Word.allow],
  ["deny", Word.deny],
  ["would-deny", Word.wouldDeny],
] as const;

const isName = (value: unknown): value is string => typeof value === "string" && value.length <= NAME_CHARS_MAX;
const idOf = (policy: PolicyId, key: string): string => `${policy}\n${key}`;

/** What makes each rule of a list the same rule later on. */
function keysOf(rules: readonly Rule[]): string[] {
  const seen = new Map<string, number>();
  return rules.map((rule, i) => {
    const named = rule.name !== `rule-${i + 1}`;
    const key = named
      ? rule.name
      : `#${createHash("sha256")
          .update(JSON.stringify({ ...rule, name: "" }))
          .digest("hex")
          .slice(0, 16)}`;
    const again = seen.get(key) ?? 0;
    seen.set(key, again + 1);
    return again === 0 ? key : `${key} ${again}`;
  });
}
