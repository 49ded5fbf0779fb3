import { family as familyOf, type Ip, ipText } from "../base/address.ts";
import { SourceClass } from "../model/verdict.ts";
import { hex } from "./marks.ts";
import type { RuleOptions } from "./rules.ts";

/** A guarded pod behind a bridge port. */
export interface BridgedPod {
  readonly port: string;
  readonly addresses: readonly Ip[];
  /** The bridge, while bridge netfilter is on: it then sees every frame but those with a tag. */
  readonly bridge?: string | undefined;
}

/**
 * Which address may come in through which bridge port: `-i` is the bridge there, and hash:net,iface cannot see the port.
 * A known address on a port that is not its own is a spoof as well, and so is a packet without a port: bridge netfilter
 * did not see its frame, which had a priority tag (VLAN 0), and nobody knows which pod sent it.
 */
export function bridgeRules(pods: readonly BridgedPod[], { family, marks }: Pick<RuleOptions, "family" | "marks">): string[] {
  if (pods.length === 0) return [];
  const mask = hex(marks.mask);
  const rules: string[] = [];
  for (const pod of pods) {
    for (const address of pod.addresses) {
      if (familyOf(address) === family)
        rules.push(`-s ${ipText(address)}/${family === 4 ? 32 : 128} -m physdev --physdev-in ${pod.port} -j RETURN`);
    }
    rules.push(`-m physdev --physdev-in ${pod.port} -j MARK --set-xmark ${hex(marks.value(SourceClass.spoof))}/${mask}`);
  }
  // Not every mark: with interface prefixes, pods that nobody guards (and those that nobody knows) have one too.
  for (const known of [SourceClass.enforce, SourceClass.monitor])
    rules.push(
      `-m mark --mark ${hex(marks.value(known))}/${mask} -m physdev --physdev-is-in -j MARK --set-xmark ${hex(marks.value(SourceClass.spoof))}/${mask}`,
    );
  for (const bridge of new Set(pods.map((pod) => pod.bridge))) {
    if (bridge !== undefined)
      rules.push(`-i ${bridge} -m physdev ! --physdev-is-in -j MARK --set-xmark ${hex(marks.value(SourceClass.spoof))}/${mask}`);
  }
  return rules;
}
