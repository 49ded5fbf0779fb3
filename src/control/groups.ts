import { groupOf, grouped, type SetGroup } from "../attach/group.ts";
import { type Attachment, InterfaceGroup } from "../model/attachment.ts";
import type { Mode } from "../model/policy.ts";

/** A guarded pod's interface and the strictest mode over it. */
export interface Grouped {
  readonly attachment: Attachment;
  readonly mode: Mode;
}

/** A group, and which interface of that name is in it. */
interface Member {
  readonly group: number;
  readonly index: number;
}

/** Keeps the veths of guarded pods in our interface groups, and all others out of them. */
export class InterfaceGroups {
  private wanted: ReadonlyMap<string, Member> | undefined;
  private failed: ReadonlyMap<string, string> = new Map();
  private readonly setGroup: SetGroup;

  constructor(setGroup: SetGroup) {
    this.setGroup = setGroup;
  }

  /** Interfaces that leave a group, before the packet thread forgets their pods: nothing of theirs is a spoof then. */
  release(pods: readonly Grouped[]): void {
    const next = wantedGroups(pods);
    // At first those that an earlier agent left there.
    for (const iface of this.wanted?.keys() ?? grouped()) if (!next.has(iface)) this.setGroup(iface, 0);
  }

  /** Interfaces that join, after the packet thread knows their pods. Returns those that cannot, with the reason. */
  join(pods: readonly Grouped[]): ReadonlyMap<string, string> {
    const old = this.wanted;
    this.wanted = wantedGroups(pods);
    const failed = new Map<string, string>();
    for (const [iface, { group, index }] of this.wanted) {
      const before = old?.get(iface);
      if (before?.group === group && before.index === index && !this.failed.has(iface)) continue;
      if (groupOf(iface) === group) continue;
      const why = this.setGroup(iface, group);
      if (why !== undefined) failed.set(iface, why);
    }
    this.failed = failed;
    return failed;
  }

  /** Puts back what somebody took out. `found`: the group of an interface; undefined: there is none. Returns the interfaces concerned. */
  check(found: (iface: string) => number | undefined): string[] {
    const lost = [...(this.wanted ?? [])].filter(([iface, { group }]) => ![group, undefined].includes(found(iface)));
    for (const [iface, { group }] of lost) this.setGroup(iface, group);
    return lost.map(([iface]) => iface);
  }
}

function wantedGroups(pods: readonly Grouped[]): Map<string, Member> {
  // A bridge port has NG-BRIDGE.
  return new Map(
    pods.flatMap(({ attachment, mode }) =>
      attachment.kind === "routed"
        ? [
            [
              attachment.interface,
              { group: mode === "Enforce" ? InterfaceGroup.enforce : InterfaceGroup.monitor, index: attachment.index },
            ] as const,
          ]
        : [],
    ),
  );
}
