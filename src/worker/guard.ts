import { family, type Family, inCidr, type Ip, parseCidr } from "../base/address.ts";
import type { Learned, NameSeen, Via } from "../model/binding.ts";
import type { Mode, Policy } from "../model/policy.ts";
import type { Pod } from "../model/snapshot.ts";
import type { Evidence, Verdict } from "../model/verdict.ts";
import { type Binding, type Bound, type Evicted, NAME_LIMITS, PodNames } from "../names/table.ts";
import { type NetworkElement, networkElements } from "../policy/elements.ts";
import { isProxy, judge, mayTake, type Question } from "../policy/evaluate.ts";
import {
  dnsSettingsFor,
  judgeQuery,
  mentions,
  portsForName,
  type QueryVerdict,
  restrictsNames,
  restrictsQueries,
  stripsAnyEch,
  stripsEch,
} from "../policy/queries.ts";
import { buildView, type View } from "../policy/view.ts";
import type { DnsName } from "../base/name.ts";
import { limitsOf, type PolicyLimits } from "./name-limits.ts";

/** What the kernel is told to do with a connection (a VerdictClass). */
export type KernelClass = "pass" | "inspect" | "deny" | "watch";

/** A judged connection: what really happens, and what a Monitor policy would have denied. */
export interface Decision {
  readonly kernel: KernelClass;
  readonly verdict: Verdict;
  readonly mode: Mode;
  /** The denial of the Monitor policies, where the connection goes through all the same. */
  readonly wouldDeny: (Verdict & { readonly action: "deny" }) | undefined;
  /** What is decided with the Monitor policies counted, where Enforce policies decide; undefined: there are no others. */
  readonly shadow: Verdict | undefined;
}

/** A network and port that the kernel answers for alone, and the rules that say so. */
export interface NetworkDecision extends Omit<NetworkElement, "verdict" | "application"> {
  readonly kernel: KernelClass;
  /** As in Decision. */
  readonly shadow: Verdict | undefined;
}

/** The compiled policies of one selection, shared by every pod that has the same. */
export interface Rulebook {
  readonly policies: readonly Policy[];
  /** The strictest mode in it. */
  readonly mode: Mode;
  /** Of the Enforce policies; undefined when there are none. */
  readonly enforce: View | undefined;
  /** Of Enforce and Monitor policies together (or of all, for Discover); undefined when that is the same as `enforce`. */
  readonly shadow: View | undefined;
  /** Every rule that may matter: what is learned, and which ports are opened for it. */
  readonly wide: View;
  /** Are queries looked at on their way out? `restrictsNames`: for the names in them, and not only for how much they carry. */
  readonly restrictsQueries: boolean;
  readonly restrictsNames: boolean;
  /** What names may be like, those that refuse first; never empty. */
  readonly limits: readonly PolicyLimits[];
  /** Is a query beyond a limit refused? */
  readonly refusesData: boolean;
  /** Are there names whose replies lose their ECH keys? Only Enforce policies change anything. */
  readonly stripsEch: boolean;
}

const STRICTNESS: readonly Mode[] = ["Discover", "Monitor", "Enforce"];

/**
 * Compiles the policies that select a pod, in order of judgement. Enforce policies really deny. Monitor policies are
 * judged together with them and only speak. Discover policies count only in `discover`, where nothing is ever denied.
 */
export function rulebook(policies: readonly Policy[], discover = false): Rulebook | undefined {
  const counted = discover ? policies : policies.filter((policy) => policy.mode !== "Discover");
  if (counted.length === 0) return undefined;
  const enforcing = discover ? [] : counted.filter((policy) => policy.mode === "Enforce");
  const enforce = enforcing.length > 0 ? buildView(enforcing) : undefined;
  const shadow = enforcing.length < counted.length ? buildView(counted) : undefined;
  const limits = limitsOf(counted);
  const mode = STRICTNESS[Math.max(...counted.map((policy) => STRICTNESS.indexOf(policy.mode)))] as Mode;
  return {
    policies,
    mode: discover ? "Discover" : mode,
    enforce,
    shadow,
    wide: (shadow ?? enforce) as View,
    restrictsQueries: !discover && policies.some(restrictsQueries),
    restrictsNames: !discover && policies.some(restrictsNames),
    limits,
    refusesData: limits.some(({ becomes }) => becomes === "deny"),
    stripsEch: enforce !== undefined && stripsAnyEch(enforce),
  };
}

/**
 * Addresses that no name opens, because whoever owns the name's zone chooses them (DNS rebinding): unspecified, loopback,
 * link-local (cloud metadata among them), multicast, broadcast. A rule may still have them as `networks`.
 */
const NEVER_BY_NAME = [
  "0.0.0.0/8",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "224.0.0.0/4",
  "255.255.255.255/32",
  "::/127",
  "fe80::/10",
  "ff00::/8",
].flatMap((text) => parseCidr(text) ?? []);

export function neverByName(address: Ip): boolean {
  return NEVER_BY_NAME.some((cidr) => inCidr(address, cidr));
}

/** Names of one address up to which its ports are opened in advance: the work grows with their square. */
const NAMES_PRELOADED_MAX = 16;
const HEARSAY_LIMITS = { ...NAME_LIMITS, addressesPerPod: 512, addressesPerName: 64, namesPerAddress: 8, staleSeconds: 60 };

/**
 * One guarded pod: its rulebook, and what DNS taught it. Knows nothing of the kernel, so that the agent, Discover and
 * `namegate replay` judge with the same code. Times are seconds since the epoch.
 */
export class Guard {
  /** Labels and search suffixes may change; the addresses may not. */
  pod: Pod;
  book: Rulebook;
  /** Names that some rule mentions. */
  readonly names: PodNames;
  /** Names that no rule mentions: they explain denials, and get a small table of their own so that they evict nothing. */
  private readonly hearsay: PodNames;

  constructor(pod: Pod, book: Rulebook, evicted: Evicted = () => undefined, room?: (now: number) => boolean) {
    this.pod = pod;
    this.book = book;
    this.names = new PodNames(evicted, NAME_LIMITS, room);
    this.hearsay = new PodNames(() => undefined, HEARSAY_LIMITS);
  }

  /** The pod's own address of a family, the first one listed. */
  address(of: Family): Ip | undefined {
    return this.pod.addresses.find((address) => family(address) === of);
  }

  /** What one reply taught. undefined: no rule mentions the name, or the address is nobody's to name. */
  learn({ name, via, address, ttl }: Learned, now: number): Bound | undefined {
    if (neverByName(address)) return undefined;
    if (!this.mentions(name, via)) {
      this.hearsay.bind(name, via, address, now + Math.min(ttl, 3600), now);
      return undefined;
    }
    // A TTL of zero is good for the connection that it was asked for (RFC 1035 §3.2.1).
    return this.names.bind(name, via, address, now + Math.max(1, this.lifetime(name, ttl)), now);
  }

  /**
   * Other policies from now on. A name heard before that a rule mentions only now counts from now on, without another
   * query; `bound` is told of each.
   */
  adopt(book: Rulebook, now: number, bound: (learned: Learned, expires: number, slot: number) => void): void {
    this.book = book;
    for (const [address, { bindings }] of this.hearsay.entries()) {
      for (const { name, via, expires } of bindings) {
        if (expires <= now || !mentions(book.wide, name, via)) continue;
        const result = this.names.bind(name, via, address, expires, now);
        if (result.kind === "new") bound({ name, via, address, ttl: expires - now }, expires, result.binding.slot);
      }
    }
  }

  /** Does any rule mention the name, so that a binding of it matters? */
  mentions(name: DnsName, via: Via): boolean {
    return mentions(this.book.wide, name, via);
  }

  /** Seconds that a binding of `name` allows new connections for: clamp(TTL, min, max) + grace. */
  lifetime(name: DnsName, ttl: number): number {
    const { minTtlMs, maxTtlMs, graceMs } = dnsSettingsFor(this.book.wide, name);
    return Math.ceil((Math.min(Math.max(ttl * 1000, minTtlMs), maxTtlMs) + graceMs) / 1000);
  }

  seen(address: Ip, now: number): readonly NameSeen[] {
    const known = this.names.seen(address, now);
    const heard = this.hearsay.seen(address, now);
    return heard.length === 0 ? known : known.length === 0 ? heard : [...known, ...heard];
  }

  /** The bindings of an address, expired ones and those that no rule mentions too. */
  bindingsOf(address: Ip): readonly Readonly<Binding>[] {
    return [...(this.names.get(address)?.bindings ?? []), ...(this.hearsay.get(address)?.bindings ?? [])];
  }

  /** Where `name` leads, the address used last first; `max` at most. */
  addressesOf(name: DnsName, max: number): readonly Ip[] {
    return [...this.names.addressesOf(name, max), ...this.hearsay.addressesOf(name, max)].slice(0, max);
  }

  decide(protocol: number, port: number, address: Ip, names: readonly NameSeen[], evidence?: Evidence): Decision {
    const question = { protocol, port, address, names, evidence };
    const { enforce, shadow, mode } = this.book;
    const real = enforce === undefined ? undefined : judge(enforce, question);
    if (real?.action === "deny") return { kernel: "deny", verdict: real, mode: "Enforce", wouldDeny: undefined, shadow: undefined };
    const said = shadow === undefined ? undefined : judge(shadow, question);
    if (real === undefined) {
      const verdict = said as Verdict;
      if (verdict.action === "deny") return { kernel: "pass", verdict, mode, wouldDeny: verdict, shadow: undefined };
      return { kernel: verdict.action === "inspect" ? "watch" : "pass", verdict, mode, wouldDeny: undefined, shadow: undefined };
    }
    if (real.action === "inspect") return { kernel: "inspect", verdict: real, mode: "Enforce", wouldDeny: undefined, shadow: undefined };
    if (said?.action === "deny") return { kernel: "pass", verdict: real, mode: "Enforce", wouldDeny: said, shadow: said };
    return { kernel: said?.action === "inspect" ? "watch" : "pass", verdict: real, mode: "Enforce", wouldDeny: undefined, shadow: said };
  }

  /** Which of `applications` could the rules that decide (or, for `watch`, all that speak) take here? */
  mayTake(question: Question, applications: readonly string[], watch: boolean): readonly string[] {
    const { enforce, wide } = this.book;
    const view = watch ? wide : enforce;
    return view === undefined ? [] : mayTake(view, question, applications);
  }

  /** Is each request of a connection to be judged? `watch`: Monitor policies count. */
  isProxy(question: Question, watch: boolean): boolean {
    const { enforce, wide } = this.book;
    const view = watch ? wide : enforce;
    return view !== undefined && isProxy(view, question);
  }

  /** May it ask for this name? Only Enforce policies refuse. */
  query(name: DnsName): QueryVerdict {
    if (this.book.enforce === undefined) return { action: "allow" };
    const whole = judgeQuery(this.book.enforce, name);
    if (whole.action === "allow" || whole.why === "denied-by-rule") return whole;
    for (const suffix of this.pod.searches) {
      // A resolver library tries search domains first; the cluster DNS says NXDOMAIN and the real name follows.
      if (!name.endsWith(`.${suffix}`)) continue;
      const rest = judgeQuery(this.book.enforce, name.slice(0, -suffix.length - 1) as DnsName);
      if (rest.action === "allow") return rest;
    }
    return whole;
  }

  /** Are the ECH keys in replies about this name taken out? */
  stripsEch(name: DnsName): boolean {
    return this.book.enforce !== undefined && stripsEch(this.book.enforce, name);
  }

  /**
   * The networks and ports that the kernel may answer for alone, whatever names are bound there. With both Enforce and
   * Monitor policies, only those about which both are certain.
   */
  networks(): readonly NetworkDecision[] {
    const { enforce, shadow } = this.book;
    const said = shadow === undefined ? undefined : networkElements(shadow);
    if (enforce === undefined)
      return (said ?? []).map((one) => ({ ...one, kernel: one.verdict === "inspect" ? "watch" : "pass", shadow: undefined }));
    const key = ({ cidr, protocol, port }: NetworkElement): string => `${cidr.ip}/${cidr.bits} ${protocol} ${port}`;
    const watched = said === undefined ? undefined : new Map(said.map((one) => [key(one), one]));
    return networkElements(enforce).flatMap((one): NetworkDecision[] => {
      const monitor = watched?.get(key(one));
      if (watched !== undefined && monitor === undefined) return [];
      const kernel = one.verdict === "inspect" ? "inspect" : monitor?.verdict === "inspect" ? "watch" : "pass";
      return [{ ...one, kernel, shadow: monitor?.allow }];
    });
  }

  /**
   * The decisions that the kernel may take alone for one address, as [protocol << 16 | port, class, expires] triples,
   * from its fresh names. Whatever would be denied, or said by a Monitor policy, is not among them: it is asked for.
   * So is everything when there are too many names. undefined: it took longer than `until` (of performance.now()).
   */
  elements(
    address: Ip,
    now: number,
    until = Infinity,
  ): { readonly portKey: number; readonly kernel: KernelClass; readonly expires: number }[] | undefined {
    const entry = this.names.get(address);
    if (entry === undefined) return [];
    const fresh = entry.bindings.filter((binding) => binding.expires > now);
    if (fresh.length === 0 || fresh.length > NAMES_PRELOADED_MAX) return [];
    const all = fresh.map(({ name, via }) => ({ name, via, fresh: true }));
    const wanted = new Map<number, { kernel: KernelClass; expires: number }>();
    for (const binding of fresh) {
      for (const portKey of portsForName(this.book.wide, binding.name, binding.via)) {
        if (wanted.has(portKey)) continue;
        if (until !== Infinity && performance.now() > until) return undefined;
        const [protocol, port] = [portKey >>> 16, portKey & 0xffff];
        const { kernel, wouldDeny } = this.decide(protocol, port, address, all);
        if (kernel === "deny" || wouldDeny !== undefined) continue;
        // With several names the answer may change when the first of them expires; then it is asked for again.
        const alone = (one: NameSeen): boolean => this.decide(protocol, port, address, [one]).kernel === kernel;
        const lasting = fresh.length === 1 ? fresh : fresh.filter((_, i) => alone(all[i] as NameSeen));
        const expires =
          lasting.length === fresh.length ? Math.max(...fresh.map((b) => b.expires)) : Math.min(...fresh.map((b) => b.expires));
        wanted.set(portKey, { kernel, expires });
      }
    }
    return [...wanted].map(([portKey, { kernel, expires }]) => ({ portKey, kernel, expires }));
  }
}
