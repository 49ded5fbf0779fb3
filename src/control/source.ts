import type { Ip } from "../base/address.ts";
import type { PolicyOrigin } from "../model/event.ts";
import type { Problem } from "../model/policy.ts";
import type { Pod, Snapshot } from "../model/snapshot.ts";
import type { ReadResult } from "../policy/read.ts";
import type { PolicyState } from "./policies.ts";

/** Everything of a Snapshot but the policies. */
export type Node = Omit<Snapshot, "policies">;

/** A pod that runs here and that we cannot guard, whatever a policy says. */
export interface Outside {
  readonly pod: Pod;
  readonly why: string;
}

/** What the inputs say now. */
export type Inputs =
  | {
      readonly kind: "read";
      readonly policies: ReadResult;
      /** `pods` is undefined where they cannot be used; what was read before stays. */
      readonly pods: { readonly pods?: Node; readonly problems: readonly Problem[] };
      readonly outside: readonly Outside[];
    }
  /** Nothing can be read yet, and this is to be enforced meanwhile: a state from the disk, or that nobody is known yet. */
  | { readonly kind: "kept"; readonly snapshot: Snapshot; readonly outside: readonly Outside[]; readonly why: string }
  /** Nothing to enforce yet: what the kernel has stays. */
  | { readonly kind: "nothing"; readonly why: string };

/** One kind of thing that is read, for `status` and metrics. */
export interface InputHealth {
  readonly resource: string;
  readonly synced: boolean;
  /** Since it was last known to be up to date, milliseconds. */
  readonly staleMs: number;
  readonly items: number;
  /** What is wrong with it now. */
  readonly error?: string | undefined;
}

/** What the agent made of inputs that were read. */
export interface Applied {
  /** The kernel answers so. */
  readonly ready: boolean;
  readonly snapshot: Snapshot;
  readonly states: readonly PolicyState[];
  /** Problems that belong to no policy. */
  readonly loose: readonly Problem[];
}

/** Where pods and policies come from. */
export interface InputSource {
  /** Called once, before `read`; takes a bounded time. `fresh`: no earlier agent left rules in the kernel. */
  begin(fresh: boolean): Promise<void>;
  /** Everything, each time; what did not change is the same object. */
  read(): Inputs;
  /** The last word on what is to be enforced. */
  finish(snapshot: Snapshot): Snapshot;
  /** Calls back soon after something changed, until `close`. */
  watch(changed: () => void): void;
  close(): void;
  /** Milliseconds after which new problems are read once more before they are believed; undefined: never. */
  readonly lookTwiceMs: number | undefined;
  health(nowMs: number): readonly InputHealth[];
  /** A packet of no known pod waits: from this address, by the interface of this index. */
  strange(source: Ip, index: number): void;
  /** Of the `file` of a policy document, as it is now. */
  origin(file: string): PolicyOrigin;
  /** Told after each `read` that was brought into the kernel. */
  applied(result: Applied): void;
  /** Where an operator names DNS servers. */
  readonly resolverHint: string;
}
