import type { Fault } from "../base/fault.ts";
import type { Mode } from "../model/policy.ts";
import type { PodKey } from "../model/snapshot.ts";
import { effectiveMode, modeWatch } from "./effective.ts";
import { type GuardedInterface, SelfTest, type SelfTestDeps, type SelfTestStatus } from "./self-test.ts";

export interface EnforcementDeps extends SelfTestDeps {
  /** Between two self-tests, milliseconds; undefined: none. */
  readonly everyMs: number | undefined;
  readonly rulesInstalled: () => boolean;
  readonly thread: () => { readonly alive: boolean; readonly failure: Fault | undefined } | undefined;
  /** The strictest mode that policies ask for. */
  readonly mode: () => Mode | "None";
}

/** A round tries every guarded pod: pods that come one after the other share the next one. */
const NEW_PODS_MS = 5000;

/** Is what policies ask for really carried out? Looks, tries, and says every change of the answer. */
export class Enforcement {
  readonly test: SelfTest;
  private readonly deps: EnforcementDeps;
  private readonly say: ReturnType<typeof modeWatch>;
  private timer: NodeJS.Timeout | undefined;
  private begun = false;
  private due: NodeJS.Timeout | undefined;
  private triedMs = Number.NEGATIVE_INFINITY;

  constructor(deps: EnforcementDeps) {
    this.deps = deps;
    this.test = new SelfTest(deps);
    this.say = modeWatch(deps.emit);
  }

  /** Why nothing is enforced; undefined while everything is. */
  get missing(): string | undefined {
    const thread = this.deps.thread();
    if (thread === undefined) return "no rules are installed";
    if (!thread.alive) return thread.failure?.message ?? "the packet thread is not there";
    if (!this.deps.rulesInstalled()) return "the rules are not installed";
    return this.test.failure;
  }

  /** For the status. */
  get state(): { readonly enforcing: boolean; readonly selfTest: SelfTestStatus } {
    return { enforcing: this.missing === undefined, selfTest: this.test.status };
  }

  /** Pods that are not enforced: those of `known`, and those that the self-test has found. */
  unenforceable(known: ReadonlyMap<PodKey, string>): ReadonlyMap<PodKey, string> {
    return new Map([...this.test.unenforced, ...known]);
  }

  /** The first test, before anybody is told that the agent is ready; then again and again. */
  async begin(): Promise<void> {
    await this.tryOut();
    this.begun = true;
    if (this.deps.everyMs !== undefined) this.timer = setInterval(() => void this.tryOut(), this.deps.everyMs);
  }

  /** The guarded pods as they are now; new ones are tried at once, or as soon as the last round is some time ago. */
  watch(pods: readonly GuardedInterface[]): void {
    const moved = this.test.watch(pods);
    if (!this.begun) return;
    this.look();
    if (!moved || this.due !== undefined) return;
    const wait = Math.max(0, this.triedMs + NEW_PODS_MS - this.deps.nowMs());
    this.due = setTimeout(() => void this.tryOut(), Math.min(wait, NEW_PODS_MS));
  }

  private async tryOut(): Promise<void> {
    clearTimeout(this.due);
    this.due = undefined;
    this.triedMs = this.deps.nowMs();
    if (this.deps.everyMs !== undefined && this.deps.rulesInstalled() && this.deps.thread()?.alive === true) await this.test.run();
    this.look();
  }

  /** About once a second, and after every change that we make ourselves. */
  look(): void {
    const mode = this.deps.mode();
    this.say(mode, effectiveMode(mode, this.missing === undefined), this.missing);
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    clearTimeout(this.due);
    await this.test.close();
  }
}
