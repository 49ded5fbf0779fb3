import { Histogram, HISTOGRAM_WORDS } from "../base/histogram.ts";
import type { PolicyId } from "../model/policy.ts";
import type { Why } from "../model/verdict.ts";
import type { Decision } from "./guard.ts";

/**
 * What the packet thread counts: durations, denials by reason, and uses of rules, in one block of shared memory that the
 * control thread reads whenever it likes. One thread writes, with plain stores of aligned doubles, which the machines that
 * namegate runs on (64 bits) do not tear. A rule's slot is given out by the control thread (control/usage.ts).
 */

/** Rules with a slot of their own. Uses of further ones are counted together in slot OTHER. */
export const RULES_MAX = 8192;
/** Slots that are no rule's. */
export const Slot = { other: 0, none: 1, first: 2 } as const;

/** Words of a slot. `before`: packets that elements of an earlier agent had counted when this one read them. */
export const Word = { allow: 0, deny: 1, wouldDeny: 2, before: 3, lastMs: 4 } as const;
const SLOT_WORDS = 5;

export const HISTOGRAMS = ["upcall", "dnsHold", "inspection", "loop"] as const;
export type HistogramName = (typeof HISTOGRAMS)[number];

/** Is it counted here? The others have counters of their own (`newCounters`). */
const WHY = {
  "denied-by-rule": true,
  "no-rule": true,
  "wrong-port": true,
  "no-name": true,
  "wrong-name": true,
  "stale-dns": true,
  "name-not-allowed": true,
  "wrong-server-name": true,
  "no-server-name": true,
  "wrong-protocol": true,
  "wrong-identity": true,
  "names-disagree": true,
  ech: true,
  evasion: true,
  incomplete: true,
  "spoofed-source": false,
  "mid-stream": true,
  "unknown-pod": false,
  "upcall-limit": false,
  malformed: true,
  fault: false,
} satisfies Record<Why, boolean>;
const WHYS = Object.keys(WHY) as readonly Why[];
export const DENIALS: readonly Why[] = WHYS.filter((why) => WHY[why]);
const WHY_AT = new Map<Why, number>(WHYS.map((why, i) => [why, i]));

const WHYS_AT = 2 + HISTOGRAMS.length * HISTOGRAM_WORDS;
const SLOTS_AT = WHYS_AT + 2 * WHYS.length;
/** Words that say whether anything has changed: uses of rules, and first uses. */
const USES_AT = 0;
const FIRST_USES_AT = 1;

/** The rules of one policy, and where each is counted. */
export interface PolicySlots {
  readonly policy: PolicyId;
  readonly slots: readonly (readonly [rule: string, slot: number])[];
}

/** Longer than a round of the comparison (worker/compare.ts) and what conntrack remembers of a connection that is over. */
const WHILE_MS = 300_000;

export type Outcome = "allow" | "deny" | "would-deny";
const OUTCOME_WORD: Readonly<Record<Outcome, number>> = { allow: Word.allow, deny: Word.deny, "would-deny": Word.wouldDeny };

/** Room for the slots of so many rules. */
export function newBlock(rules = RULES_MAX): SharedArrayBuffer {
  return new SharedArrayBuffer(8 * (SLOTS_AT + (rules + Slot.first) * SLOT_WORDS));
}

export class Meter {
  /** Set once a second: times of uses need not be more exact. */
  nowMs = 0;
  /** What is read now was counted while an earlier agent, or none, was here. */
  takingOver = false;
  private readonly words: Float64Array;
  private readonly slots = new Map<PolicyId, ReadonlyMap<string, number>>();
  readonly histograms: Readonly<Record<HistogramName, Histogram>>;

  constructor(block: SharedArrayBuffer) {
    const words = new Float64Array(block);
    this.words = words;
    const of = (name: HistogramName): Histogram => {
      const at = 2 + HISTOGRAMS.indexOf(name) * HISTOGRAM_WORDS;
      return new Histogram(words.subarray(at, at + HISTOGRAM_WORDS));
    };
    this.histograms = { upcall: of("upcall"), dnsHold: of("dnsHold"), inspection: of("inspection"), loop: of("loop") };
  }

  know({ policy, slots }: PolicySlots): void {
    this.slots.set(policy, new Map(slots));
  }

  forget(policy: PolicyId): void {
    this.slots.delete(policy);
  }

  /** What was decided about `count` connections; the rules of Monitor policies beside Enforce ones are used as well. */
  decided({ verdict, wouldDeny, shadow }: Decision, count = 1): void {
    if (verdict.action === "allow") this.used(verdict.policy, verdict.rule, "allow", count);
    else if (verdict.action === "deny" && wouldDeny === undefined) this.denied(verdict.why, verdict.policy, verdict.rule, "deny", count);
    if (wouldDeny !== undefined) this.denied(wouldDeny.why, wouldDeny.policy, wouldDeny.rule, "would-deny", count);
    if (shadow?.action !== "allow") return;
    if (verdict.action !== "allow" || shadow.policy !== verdict.policy || shadow.rule !== verdict.rule)
      this.used(shadow.policy, shadow.rule, "allow", count);
  }

  denied(why: Why, policy: PolicyId | undefined, rule: string | undefined, outcome: "deny" | "would-deny", count = 1): void {
    this.add(WHYS_AT + 2 * (WHY_AT.get(why) as number) + (outcome === "deny" ? 0 : 1), count);
    if (policy === undefined || rule === undefined) this.count(Slot.none, outcome, count);
    else this.used(policy, rule, outcome, count);
  }

  used(policy: PolicyId, rule: string, outcome: Outcome, count = 1): void {
    this.count(this.slots.get(policy)?.get(rule) ?? Slot.other, outcome, count);
  }

  /** It was used a short while ago, perhaps by a connection that has been counted: counts only where nothing was for longer than that. */
  wasUsed(policy: PolicyId, rule: string): void {
    const slot = this.slots.get(policy)?.get(rule) ?? Slot.other;
    if (this.nowMs - this.slot(slot, Word.lastMs) > WHILE_MS) this.count(slot, "allow", 1);
  }

  private count(slot: number, outcome: Outcome, count: number): void {
    const at = SLOTS_AT + slot * SLOT_WORDS;
    this.add(USES_AT, 1);
    if (this.takingOver) {
      this.add(at + Word.before, count);
      return;
    }
    this.add(at + OUTCOME_WORD[outcome], count);
    if (this.words[at + Word.lastMs] === 0) this.add(FIRST_USES_AT, 1);
    this.words[at + Word.lastMs] = this.nowMs;
  }

  private add(at: number, count: number): void {
    this.words[at] = (this.words[at] as number) + count;
  }

  /** For the reader. */
  get uses(): number {
    return this.words[USES_AT] as number;
  }

  get firstUses(): number {
    return this.words[FIRST_USES_AT] as number;
  }

  slot(slot: number, word: (typeof Word)[keyof typeof Word]): number {
    return this.words[SLOTS_AT + slot * SLOT_WORDS + word] as number;
  }

  denials(why: Why, outcome: "deny" | "would-deny"): number {
    return this.words[WHYS_AT + 2 * (WHY_AT.get(why) as number) + (outcome === "deny" ? 0 : 1)] as number;
  }

  /** Only while nobody counts into it. */
  clear(slot: number): void {
    const at = SLOTS_AT + slot * SLOT_WORDS;
    this.words.fill(0, at, at + SLOT_WORDS);
  }
}
