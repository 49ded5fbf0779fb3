import { VerdictClass } from "../model/verdict.ts";
import type { HELLO_PROGRAMS } from "./hellos.ts";
import { hex, type Marks } from "./marks.ts";
import type { Chain } from "./rules.ts";

/** What the kernel's knowledge of hellos (native/hello.bpf.c) adds to the static rules. */
interface HelloRules {
  /** mangle NG-VERDICT, before the mark is saved: where the client's stream begins, whatever it begins with. */
  readonly begun: readonly string[];
  /** mangle NG-JUDGED, before the client's payload is queued. */
  readonly judged: readonly string[];
  /** security NG-INSPECT, before the server's segments are queued. */
  readonly answered: readonly string[];
  readonly chains: Readonly<Record<"mangle" | "security", readonly Chain[]>>;
}

const NONE: HelloRules = { begun: [], judged: [], answered: [], chains: { mangle: [], security: [] } };

/** `folder`: the pins (firewall/hellos.ts); undefined: userspace reads every hello. */
export function helloRules(folder: string | undefined, marks: Marks): HelloRules {
  if (folder === undefined) return NONE;
  const mask = hex(marks.mask);
  const value = (of: keyof typeof VerdictClass): string => `${hex(marks.value(VerdictClass[of]))}/${mask}`;
  const program = (name: (typeof HELLO_PROGRAMS)[number]): string => `-m bpf --object-pinned ${folder}/${name}`;
  const connmark = (of: keyof typeof VerdictClass): string => `-j CONNMARK --set-xmark ${value(of)}`;
  const flow = (of: "inspect" | "confirm"): string => `-p tcp -m connmark --mark ${value(of)}`;
  // Behind DNAT the server's segments have another address.
  const client = "-m conntrack ! --ctstate DNAT --ctdir ORIGINAL";
  return {
    begun: [`-p tcp -m mark --mark ${value("inspect")} -m conntrack --ctstate NEW ${program("open")}`],
    judged: [
      `${flow("confirm")} ${client} ${program("early")} -j DROP`,
      ...(["inspect", "confirm"] as const).map((of) => `${flow(of)} ${client} ${program("hello")} -g NG-KNOWN`),
    ],
    answered: [`${flow("confirm")} -m conntrack --ctdir REPLY ${program("answer")} -g NG-CONFIRMED`],
    chains: {
      // It is not shown to userspace again. One that comes once more may be overtaken by its acknowledgement, which has the last word.
      mangle: [
        {
          name: "NG-KNOWN",
          rules: [`-m connmark --mark ${value("inspect")} ${connmark("confirm")}`, `-j MARK --set-xmark ${value("ours")}`],
        },
      ],
      security: [{ name: "NG-CONFIRMED", rules: [connmark("pass")] }],
    },
  };
}
