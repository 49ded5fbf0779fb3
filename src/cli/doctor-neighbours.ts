import { readFileSync } from "node:fs";
import type { Variant } from "../firewall/iptables.ts";
import { type Bypass, bypasses } from "../selftest/bypass.ts";
import { readLinks } from "../selftest/links.ts";
import { type Finding, failed, ok, warn } from "./doctor-finding.ts";

/** Other components on the node: what of theirs comes before our rules, or hides what we judge. */

type Texts = ReadonlyMap<Variant, string>;

/** Parts of the agent's status that concern packets which do not come to our rules. */
export interface TestedStatus {
  readonly selfTest?: { readonly state?: string; readonly why?: string | null; readonly warnings?: readonly string[] };
  readonly pods?: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly guarded: boolean;
    readonly enforced: boolean;
    readonly why?: string;
  }[];
}

const SHOWN_MAX = 10;

const isRule = (line: string): boolean => line.startsWith("-A ") && !line.startsWith("-A NG-") && !/ -[jg] NG-/.test(line);

function rulesOf(text: string | undefined): string[] {
  return (text ?? "").split("\n").filter(isRule);
}

/** Rules of both variants: each judges every packet, and a component that looks at one does not see the other's. */
export function variantsFinding(texts: Texts, chosen: Variant | undefined): Finding {
  const check = "iptables variants";
  const counts = new Map([...texts].map(([variant, text]) => [variant, rulesOf(text).length]));
  const used = [...counts].filter(([, count]) => count > 0);
  if (used.length < 2)
    return ok(check, used.length === 0 ? "no rules of other programs" : `other programs' rules are all in iptables-${used[0]?.[0]}`);
  return warn(
    check,
    `other programs have rules in both: ${used.map(([variant, count]) => `${count} in iptables-${variant}`).join(", ")}; the agent would use ${chosen}`,
    "set every component (kube-proxy, the CNI) to one variant; name it with --iptables until then",
  );
}

/** Packets without conntrack have no connmark: each is judged as a new one, and what it carries is not inspected. */
export function untrackedFinding(texts: Texts): Finding {
  const check = "untracked";
  const found = [...texts.values()].flatMap((text) =>
    rulesOf(tableOf(text, "raw")).filter(
      (rule) =>
        / -j (NOTRACK|CT --notrack)/.test(rule) &&
        // NodeLocal DNSCache: DNS and its own health check, which are expected. OUTPUT is the node's own.
        !/--[ds]port (53|8080)\b/.test(rule) &&
        !rule.startsWith("-A OUTPUT "),
    ),
  );
  const [first] = found;
  if (first === undefined) return ok(check, "no rule takes pods' packets out of conntrack (but for DNS)");
  return warn(
    check,
    `packets that match are not tracked, so application rules cannot hold for them: ${first}${found.length > 1 ? `\nand ${found.length - 1} more` : ""}`,
    "restrict that rule to what is not a pod's",
  );
}

function tableOf(text: string, table: string): string {
  return text
    .split(/^\*/m)
    .filter((part) => part.startsWith(`${table}\n`))
    .join("\n");
}

/** Istio's ambient mode leaves its mark in the node's nat table: the probes' source of in-pod redirection. */
export function meshFinding(texts: Texts): Finding {
  const check = "mesh";
  const ambient = [...texts.values()].some((text) => /ISTIO_POSTRT|istio-inpod-probes|169\.254\.7\.127/.test(text));
  if (!ambient) return ok(check, "no sign of Istio's ambient mode");
  return warn(
    check,
    "Istio's ambient mode is here: what goes between pods of the mesh is HBONE to port 15008, and its real destination is hidden in it",
    "write a rule with `networks` and port 15008 for pods of the mesh, and let Istio's AuthorizationPolicy say what may be in it",
  );
}

/** Conntrack keeps what was decided: nothing holds without it. */
export function conntrackFinding(proc = "/proc"): Finding {
  const check = "nf_conntrack";
  try {
    const max = readFileSync(`${proc}/sys/net/netfilter/nf_conntrack_max`, "utf8").trim();
    return ok(check, `there, ${max} connections at most`);
  } catch {
    return warn(check, "not loaded yet", "modprobe nf_conntrack (the agent's own rules load it, where the kernel has it)");
  }
}

/** What the running agent has found with its canaries. */
export function testedFindings(status: TestedStatus | undefined): Finding[] {
  if (status?.selfTest === undefined) return [];
  const { state, why, warnings = [] } = status.selfTest;
  const findings: Finding[] = [];
  const fix =
    "look for what comes first: rules in raw and mangle PREROUTING, tc filters, eBPF (`tc filter show dev … ingress`, `bpftool net`)";
  if (state === "failed") findings.push(failed("self-test", why ?? "failed", fix));
  else if (state === "untested")
    findings.push(warn("self-test", `could not be tried: ${why}`, "give the agent iproute2, CAP_NET_ADMIN and CAP_NET_RAW"));
  else findings.push(ok("self-test", state === "ok" ? "a packet out of a veth of this node comes to the agent's rules" : `${state}`));
  const past = (status.pods ?? []).filter((pod) => pod.guarded && !pod.enforced && pod.why !== undefined);
  if (past.length > 0) {
    // There are other reasons than packets that pass by: each says itself what to do.
    const fixes = past.some(({ why = "" }) => /come to our rules|past netfilter/.test(why))
      ? fix
      : "see the reasons, and `namegate status`";
    const lines = past.slice(0, SHOWN_MAX).map((pod) => `${pod.namespace}/${pod.name}: ${pod.why}`);
    findings.push(
      failed("pods' interfaces", [...lines, ...(past.length > SHOWN_MAX ? [`and ${past.length - SHOWN_MAX} more`] : [])].join("\n"), fixes),
    );
  } else if (warnings.length > 0) {
    findings.push(
      warn(
        "pods' interfaces",
        warnings.slice(0, SHOWN_MAX).join("\n"),
        "packets come to our rules now; whoever owns that program must keep it so",
      ),
    );
  } else findings.push(ok("pods' interfaces", "each guarded pod's packets come to the agent's rules"));
  return findings;
}

/** Without an agent nobody knows which interface is a pod's: whatever can be one is looked at. */
export async function interfacesFinding(): Promise<Finding> {
  const check = "interfaces";
  const found = await bypasses(undefined, await readLinks());
  if (found === undefined) return warn(check, "what sits on interfaces before netfilter cannot be looked at", "install iproute2");
  const of = (kind: Bypass["kind"]): string[] => [...found].flatMap(([name, one]) => (one.kind === kind ? [`${name}: ${one.what}`] : []));
  const [redirects, programs] = [of("redirects"), of("program")];
  if (redirects.length > 0)
    return failed(
      check,
      `${redirects.slice(0, SHOWN_MAX).join("\n")}\ntake packets past netfilter: a pod behind one cannot be guarded`,
      "turn that off in the CNI: with Cilium, bpf.hostLegacyRouting=true",
    );
  if (programs.length > 0)
    return warn(
      check,
      `${programs.slice(0, SHOWN_MAX).join("\n")}\nmay take packets past netfilter`,
      "the agent's self-test will say whether they do; with Cilium, set bpf.hostLegacyRouting=true",
    );
  return ok(check, "nothing sits before netfilter on those that may be pods'");
}
