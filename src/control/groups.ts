import { groupOf, grouped, type SetGroup } from "../attach/group.ts";
import { InterfaceGroup } from "../model/attachment.ts";
import type { Mode } from "../model/policy.ts";

/** An interface of a guarded pod (its index tells it from an earlier one of that name), and the strictest mode over it. */
export interface Grouped {
  readonly index: number;
  readonly mode: Mode;
}

/** Interfaces by name, as they are to be from now on; undefined: in no group of ours. */
export type GroupChanges = ReadonlyMap<string, Grouped | undefined>;

const groupFor = ({ mode }: Grouped): number => (mode === "Enforce" ? InterfaceGroup.enforce : InterfaceGroup.monitor);

/** Keeps the veths of guarded pods in our interface groups, and all others out of them. Told what changed: the first time everything. */
export class InterfaceGroups {
  private readonly wanted = new Map<string, Grouped>();
  private readonly failed = new Map<string, string>();
  private readonly setGroup: SetGroup;
  private begun = false;

  constructor(setGroup: SetGroup) {
    this.setGroup = setGroup;
  }

  /** Interfaces that leave a group, before the packet thread forgets their pods: nothing of theirs is a spoof then. */
  release(changes: GroupChanges): void {
    // At first those that an earlier agent left there.
    const left = this.begun ? [...changes.keys()].filter((iface) => this.wanted.has(iface)) : grouped();
    this.begun = true;
    for (const iface of left) {
      if (changes.get(iface) !== undefined) continue;
      this.wanted.delete(iface);
      this.failed.delete(iface);
      this.setGroup(iface, 0);
    }
  }

  /** Interfaces that join, after the packet thread knows their pods. Returns those that cannot, with the reason; they are tried again each time. */
  join(changes: GroupChanges): ReadonlyMap<string, string> {
    const joining = new Set(this.failed.keys());
    for (const [iface, one] of changes) {
      if (one === undefined) continue;
      const before = this.wanted.get(iface);
      this.wanted.set(iface, one);
      if (before?.mode !== one.mode || before.index !== one.index) joining.add(iface);
    }
    for (const iface of joining) {
      const group = groupFor(this.wanted.get(iface) as Grouped);
      const why = groupOf(iface) === group ? undefined : this.setGroup(iface, group);
      if (why === undefined) this.failed.delete(iface);
      else this.failed.set(iface, why);
    }
    return this.failed;
  }

  /** Puts back what somebody took out. `found`: the group of an interface; undefined: there is none. Returns the interfaces concerned. */
  check(found: (iface: string) => number | undefined): string[] {
    const lost = [...this.wanted].filter(([iface, one]) => ![groupFor(one), undefined].includes(found(iface)));
    for (const [iface, one] of lost) this.setGroup(iface, groupFor(one));
    return lost.map(([iface]) => iface);
  }
}
