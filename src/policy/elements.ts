import type { Cidr } from "../base/address.ts";
import type { Verdict } from "../model/verdict.ts";
import { concretePorts } from "./queries.ts";
import { endOf, inRanges, overlaps } from "./ranges.ts";
import type { CompiledRule, Level, View } from "./view.ts";

/** Elements of one view; more networks than this are asked for at the first packet. */
export const NETWORK_ELEMENTS_MAX = 1024;
/** (network, port) pairs looked at, so that a policy made of pairs that cannot be preloaded costs little. */
export const NETWORK_CANDIDATES_MAX = 4096;

export interface NetworkElement {
  readonly cidr: Cidr;
  readonly protocol: number;
  readonly port: number;
  readonly verdict: "pass" | "inspect";
  /** What to look for, when `verdict` is inspect. */
  readonly application: string | undefined;
  /** The rule that decides, once it has agreed. */
  readonly allow: Verdict;
}

/** Could `rule` match an address of `cidr` on this port, with whatever names? */
function touches(rule: CompiledRule, cidr: Cidr, port: number): boolean {
  if (rule.ports !== undefined && !inRanges(rule.ports, port)) return false;
  return rule.rule.anyDestination || rule.names !== undefined || (rule.addresses !== undefined && overlaps(rule.addresses, cidr));
}

/** Does every connection to `cidr` and `port` that reaches `own` in its level get the answer of `own`? */
function certain(view: View, own: CompiledRule, at: number, cidr: Cidr, port: number): boolean {
  const hit = (rule: CompiledRule): boolean => touches(rule, cidr, port);
  const application = own.rule.application;
  for (let i = 0; i <= at; i++) {
    const level = view.levels[i] as Level;
    if (level.denies.some(hit)) return false;
    if (i < at && level.passes.some(hit)) return false;
    for (const rule of level.accepts) {
      // In its own level a rule without application is asked first, so it need not fear those with one.
      const harmless = rule.rule.application === application || (i === at && application === undefined);
      if (!harmless && hit(rule)) return false;
    }
  }
  return true;
}

/**
 * The (network, port) pairs of Accept rules that the kernel can answer alone: judging any address of the network on that
 * port gives this answer, whatever names are bound to it. A /0 is given as such. The same pair comes once.
 */
export function networkElements(view: View): readonly NetworkElement[] {
  const elements = new Map<string, NetworkElement>();
  let candidates = 0;
  for (const [at, level] of view.levels.entries()) {
    for (const rule of level.accepts) {
      for (const { cidr, except } of rule.rule.networks) {
        if (except.length > 0) continue;
        for (const match of rule.rule.ports) {
          for (const packed of concretePorts(match)) {
            if (elements.size >= NETWORK_ELEMENTS_MAX || ++candidates > NETWORK_CANDIDATES_MAX) return [...elements.values()];
            const key = `${packed} ${cidr.ip} ${endOf(cidr)}`;
            if (elements.has(key) || !certain(view, rule, at, cidr, packed)) continue;
            const { application } = rule.rule;
            const verdict = application === undefined ? "pass" : "inspect";
            elements.set(key, { cidr, protocol: packed >> 16, port: packed & 0xffff, verdict, application, allow: rule.allow });
          }
        }
      }
    }
  }
  return [...elements.values()];
}
