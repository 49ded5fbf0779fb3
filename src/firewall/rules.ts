import type { Family } from "../base/address.ts";
import { InterfaceGroup } from "../model/attachment.ts";
import { SourceClass, VerdictClass } from "../model/verdict.ts";
import { helloRules } from "./hello-rules.ts";
import { hex, type Marks } from "./marks.ts";
import { hasPayload, isBare } from "./payload-match.ts";
import { pickedRules } from "./picked-rules.ts";

/** NFQUEUE numbers, counted from a configurable base. */
export const QueueOffset = { admission: 0, query: 1, reply: 2, inspect: 3, monitor: 4, watch: 5 } as const;
export const QUEUE_BASE_DEFAULT = 4040;

export type TableName = "raw" | "mangle" | "filter" | "security";

export interface RuleOptions {
  readonly family: Family;
  readonly marks: Marks;
  readonly queueBase: number;
  readonly matches: Matches;
  /** Some pod may not ask for every name: queries are read in raw PREROUTING, a hook that costs every packet something. */
  readonly queries: boolean;
  /** Some guarded pod is behind a bridge port: only then does a new connection go by its chain. */
  readonly bridged: boolean;
  /**
   * Somebody accepts established connections before us in mangle PREROUTING (Calico): what is inspected is seen behind DNAT
   * only, so userspace is shown the first packet of each such connection at both hooks.
   */
  readonly behind: boolean;
  /** Folder of the pinned programs that know hellos (firewall/hellos.ts); undefined: userspace reads every hello. */
  readonly hellos?: string | undefined;
}

/** Matches that a kernel may lack. */
export interface Matches {
  /** xt_bpf: zero-length segments of inspected connections need not be queued. */
  readonly bpf: boolean;
  /** xt_devgroup: the veths of guarded pods are known by their group; without it 64 of them at most, by ng-src. */
  readonly groups: boolean;
  /** xt_rpfilter: forged DNS replies are told by where they come in. */
  readonly rpfilter: boolean;
}
export const ALL_MATCHES: Matches = { bpf: true, groups: true, rpfilter: true };

/** One chain of ours and its rules, without the leading `-A CHAIN`. */
export interface Chain {
  readonly name: string;
  readonly rules: readonly string[];
}

/**
 * The first rule of a built-in chain: where packets (those that `match`, as iptables prints it) enter one of ours. Never by
 * `connmark ! --mark`, though that would spare what passed a jump: xt_connmark matches no packet without a connection,
 * inverted or not, so an untracked one would go by.
 */
export interface Jump {
  readonly from: string;
  readonly to: string;
  readonly match?: string;
}

/** What we want of one table: our chains, and the jumps to them. */
export interface TableWanted {
  readonly table: TableName;
  readonly chains: readonly Chain[];
  readonly jumps: readonly Jump[];
}

/** The sets that the rules name, by role and family (DESIGN §3.1). */
export function setName(role: "src" | "resolver" | "guard" | "enforce" | "query" | "allow" | "net" | "deny" | "name", of: Family): string {
  return `ng-${role}${of}`;
}

/** The chain whose rules come and go with bridged pods; all others are static. */
export const BRIDGE_CHAIN = "NG-BRIDGE";

/** The bits of a class that inspect and watch share, and no other has so. */
const INSPECTED_BITS = 3;

/** The whole static ruleset of one family: every hook of DESIGN §3.2. Pure text. */
export function wantedRules({ family, marks, queueBase, matches: { bpf, groups, rpfilter }, ...rest }: RuleOptions): TableWanted[] {
  const { queries, bridged, behind, hellos } = rest;
  const mask = hex(marks.mask);
  const is = (c: number): string => `-m mark --mark ${hex(marks.value(c))}/${mask}`;
  const conn = (c: number): string => `-m connmark --mark ${hex(marks.value(c))}/${mask}`;
  const set = (c: number): string => `-j MARK --set-xmark ${hex(marks.value(c))}/${mask}`;
  const clear = `-j MARK --set-xmark 0x0/${mask}`;
  const marked = `-m mark ! --mark 0x0/${mask}`;
  const decided = `-m mark ! --mark ${hex(marks.value(SourceClass.enforce))}/${mask}`; // no verdict class has this number
  const name = (role: Parameters<typeof setName>[0]): string => setName(role, family);
  const queue = (offset: number, bypass: boolean): string =>
    `-j NFQUEUE --queue-num ${queueBase + offset}${bypass ? " --queue-bypass" : ""}`;
  const deny = conn(VerdictClass.deny);
  // The client's payload of a connection under inspection. Monitor's watch stops nothing, with or without an agent.
  const inspection = [VerdictClass.inspect, VerdictClass.watch].map((c) => ({
    flow: conn(c),
    to: c === VerdictClass.inspect ? queue(QueueOffset.inspect, false) : queue(QueueOffset.watch, true),
  }));
  const confirm = conn(VerdictClass.confirm);
  const segments = (flow: string, to: string): string =>
    `-p tcp ${flow} -m conntrack --ctdir ORIGINAL ${bpf ? `${hasPayload(family)} ` : ""}${to}`;
  // Behind somebody who accepts established connections before us, nobody in the kernel sees all of one.
  const known = helloRules(behind ? undefined : hellos, marks);
  // Where no program in the kernel sees where the client's stream begins, its SYNs are shown to userspace.
  const shown = known.begun.length === 0;
  const begun = shown ? "NG-BEGIN" : "NG-VERDICT";
  const syns = inspection.map(({ flow, to }) => `-p tcp -m tcp --tcp-flags SYN,ACK SYN ${flow} -m conntrack --ctdir ORIGINAL ${to}`);
  const payload = [
    ...inspection.flatMap(({ flow, to }) => [segments(flow, to), `! -p tcp ${flow} -m conntrack --ctdir ORIGINAL ${to}`]),
    segments(confirm, queue(QueueOffset.inspect, false)),
  ];
  // inspect and watch are the two classes with these low bits: one rule for everybody else's packets.
  const underInspection = `-m connmark --mark ${hex(marks.value(VerdictClass.inspect))}/${hex(marks.value(INSPECTED_BITS))}`;

  // Nothing works without neighbour discovery and multicast listener reports, and none of it goes further than the link:
  // hop limit 255 (RFC 4861 §7.1), so that a router's decrement shows, and 1 (RFC 3810 §5), which no router forwards.
  const discovery = family === 4 ? [] : [133, 134, 135, 136].map((type) => `-p ipv6-icmp -m icmp6 --icmpv6-type ${type}`);
  const linkLocal = [
    ...discovery.map((match) => `${match} -m hl --hl-eq 255 -j RETURN`),
    ...(family === 4 ? [] : ["-p ipv6-icmp -m icmp6 --icmpv6-type 143 -m hl --hl-eq 1 -j RETURN"]),
  ];
  const routedDiscovery = discovery.map((match) => `${match} -m hl --hl-lt 255 -j DROP`);

  // DNS replies on their way to a pod, wherever they come from: another node, a pod, or the node itself.
  const replies = [
    `${conn(VerdictClass.dns)} -m conntrack --ctdir REPLY ${queue(QueueOffset.reply, true)}`,
    `-m conntrack --ctstate UNTRACKED -m set --match-set ${name("guard")} dst -m set --match-set ${name("resolver")} src,src ${queue(QueueOffset.reply, true)}`,
  ];

  const pass = [`-j CONNMARK --save-mark --nfmask ${mask} --ctmask ${mask}`, clear];
  // Without a connection to remember it, only a pass may go on.
  const lost = `-m mark ! --mark ${hex(marks.value(VerdictClass.pass))}/${mask} -m conntrack --ctstate INVALID,UNTRACKED -j DROP`;
  const query = `-m set --match-set ${name("query")} src -m set --match-set ${name("resolver")} dst,dst ${queue(QueueOffset.query, true)}`;

  const picked = pickedRules(`-m set --match-set ${name("enforce")} dst`, set(SourceClass.picked), queue(QueueOffset.admission, false));

  return [
    {
      table: "raw",
      chains: [
        ...(queries
          ? [
              { name: "NG-RAW", rules: [`${marked} -g NG-MARKED`, query] },
              {
                name: "NG-MARKED",
                rules: [
                  `${is(VerdictClass.ours)} -g NG-CLEAR`, // a query that we have read and released (NF_REPEAT)
                  clear, // nobody else's bits reach our chains
                  query,
                ],
              },
              { name: "NG-CLEAR", rules: [clear] },
            ]
          : []),
        { name: "NG-RAW-OUT", rules: [`${is(VerdictClass.ours)} -j CT --notrack`] },
      ],
      jumps: [...(queries ? [{ from: "PREROUTING", to: "NG-RAW" }] : []), { from: "OUTPUT", to: "NG-RAW-OUT" }],
    },
    {
      table: "mangle",
      chains: [
        {
          name: "NG-ADMIT",
          rules: [
            `-p tcp ${conn(VerdictClass.pass)} -j RETURN`, // the fast path
            `${marked} -g NG-REFUSE`, // back from userspace (NF_REPEAT)
            ...linkLocal,
            `-j SET --map-set ${name("src")} src,src --map-mark`,
            ...(bridged ? [`-j ${BRIDGE_CHAIN}`] : []),
            `${is(SourceClass.enforce)} -m conntrack --ctstate NEW -g NG-NEW`, // one match, for the first packet of most connections
            `${is(SourceClass.enforce)} -g NG-ENFORCE`,
            // A guarded pod's address on an interface that is not its own. (hash:net,iface never comes as far as that
            // interface's /0 once it has seen the address with another interface.)
            `-m mark --mark 0x0/${mask} -j SET --map-set ${name("guard")} src --map-mark`,
            // Whatever else comes out of a guarded pod's veth has a stolen address.
            ...(groups
              ? (
                  [
                    ["enforce", SourceClass.spoof],
                    ["monitor", SourceClass.monitor],
                  ] as const
                ).map(([group, c]) => `-m mark --mark 0x0/${mask} -m devgroup --src-group ${hex(InterfaceGroup[group])} ${set(c)}`)
              : []),
            ...(rpfilter ? [`-m mark --mark 0x0/${mask} ${conn(VerdictClass.dns)} -g NG-ANSWER`] : []),
            `-m mark --mark 0x0/${mask} -j RETURN`, // not from a pod of ours
            `${is(SourceClass.unguarded)} -g NG-CLEAR`,
            `${is(SourceClass.spoof)} -g NG-SPOOF`,
            `-m mark --mark ${hex(marks.value(1))}/${hex(marks.value(1))} -g NG-UNKNOWN`, // unknown, starting
            `-m connmark ! --mark 0x0/${mask} -g NG-JUDGED`,
            "-m conntrack --ctdir REPLY -g NG-CLEAR", // an answer to somebody else's connection
            `-m set --match-set ${name("resolver")} dst,dst -g NG-DNS`,
            "-g NG-MONITOR",
          ],
        },
        // A pod that nobody knows yet: whatever it sends waits in userspace, to a resolver too.
        {
          name: "NG-UNKNOWN",
          rules: [
            // Nobody's packet on somebody's connection: a forged DNS reply, for one.
            `-m connmark ! --mark 0x0/${mask} ${queue(QueueOffset.admission, false)}`,
            "-m conntrack --ctdir REPLY -g NG-CLEAR", // an answer to somebody else's connection
            `${is(SourceClass.starting)} -m conntrack --ctstate ESTABLISHED -g NG-CLEAR`, // it was there before us; it is judged once its pod is known
            queue(QueueOffset.admission, false),
          ],
        },
        {
          name: "NG-ENFORCE",
          rules: [
            `-m connmark ! --mark 0x0/${mask} -g NG-JUDGED`,
            "-m conntrack --ctdir REPLY -g NG-CLEAR", // an answer to somebody else's connection
            "-g NG-NEW", // no connection at all
          ],
        },
        // What userspace has decided comes first; a resolver's address and port are never in `allow` (worker/kernel.ts).
        {
          name: "NG-NEW",
          rules: [
            picked.early,
            `-j SET --map-set ${name("allow")} dst,dst,src --map-mark`,
            `${is(VerdictClass.pass)} -g NG-PASS`,
            `-m connmark ! --mark 0x0/${mask} -g NG-JUDGED`, // not the first one, and no answer yet
            `${decided} -g ${begun}`,
            `-m set --match-set ${name("resolver")} dst,dst -g NG-DNS`,
            `-j SET --map-set ${name("net")} src,dst,dst --map-mark`,
            `${decided} -g ${begun}`,
            clear,
            `-m set --match-set ${name("deny")} dst,dst,src ${set(VerdictClass.deny)}`,
            `${marked} -g NG-REFUSE`,
            queue(QueueOffset.admission, false),
          ],
        },
        {
          name: "NG-MONITOR",
          rules: [
            picked.early,
            clear,
            `-j SET --map-set ${name("allow")} dst,dst,src --map-mark`,
            `${marked} -g ${begun}`,
            `-j SET --map-set ${name("net")} src,dst,dst --map-mark`,
            `${marked} -g ${begun}`,
            queue(QueueOffset.monitor, true),
          ],
        },
        // Inspected here, before DNAT, where the destination is still the address that the name resolved to.
        {
          name: "NG-JUDGED",
          rules: [
            clear,
            `${conn(VerdictClass.pass)} -j RETURN`,
            `-p tcp ${deny} -m conntrack --ctdir ORIGINAL ${set(VerdictClass.deny)}`,
            `${is(VerdictClass.deny)} -g NG-REFUSE`,
            ...known.judged,
            ...(shown ? syns.slice(0, 1) : []), // of *inspect*
            ...payload,
          ],
        },
        // REJECT answers what came in by a bridge port past netfilter (nf_send_reset): behind DNAT the reset would have the
        // wrong source. Here, before DNAT, userspace can give it the right one; without an agent REJECT does what it can.
        {
          name: "NG-REFUSE",
          rules: [
            `${is(VerdictClass.ours)} -j RETURN`, // read, and without a verdict: NG-LATE need not look at it again
            `${is(VerdictClass.confirm)} -g NG-CONFIRM`,
            `-p tcp ${is(VerdictClass.deny)} -m physdev --physdev-is-in ${queue(QueueOffset.admission, true)}`,
            "-g NG-VERDICT",
          ],
        },
        { name: BRIDGE_CHAIN, rules: [] },
        ...(shown
          ? [
              {
                name: "NG-BEGIN",
                rules: [
                  `${is(VerdictClass.inspect)} ${queue(QueueOffset.inspect, false)}`,
                  ...(behind ? [`${is(VerdictClass.watch)} ${queue(QueueOffset.watch, true)}`] : []),
                  "-g NG-VERDICT",
                ],
              },
            ]
          : []),
        { name: "NG-VERDICT", rules: [lost, ...known.begun, ...pass] },
        ...known.chains.mangle,
        {
          name: "NG-CONFIRM",
          rules: [`-j CONNMARK --save-mark --nfmask ${mask} --ctmask ${mask}`, set(VerdictClass.ours)],
        },
        { name: "NG-PASS", rules: pass },
        { name: "NG-CLEAR", rules: [clear] },
        // An answer that came from where no route to its sender leads is a neighbour's forgery: it goes on, unread.
        { name: "NG-ANSWER", rules: !rpfilter ? [] : [`-m conntrack --ctdir REPLY -m rpfilter --invert ${set(VerdictClass.ours)}`] },
        { name: "NG-DNS", rules: [`-j CONNMARK --set-xmark ${hex(marks.value(VerdictClass.dns))}/${mask}`, clear] },
        { name: "NG-SPOOF", rules: [`-m limit --limit 20/sec --limit-burst 20 ${queue(QueueOffset.admission, false)}`, "-j DROP"] },
        picked.chain,
      ],
      jumps: [{ from: "PREROUTING", to: "NG-ADMIT" }],
    },
    {
      table: "filter",
      chains: [
        {
          name: "NG-DENY",
          rules: [
            "-p tcp -j REJECT --reject-with tcp-reset",
            `-j REJECT --reject-with ${family === 4 ? "icmp-admin-prohibited" : "icmp6-adm-prohibited"}`,
          ],
        },
      ],
      jumps: ["INPUT", "FORWARD"].map((from) => ({ from, to: "NG-DENY", match: deny })),
    },
    // The last hook that nobody else uses: whoever accepted a packet before us, it comes by here.
    {
      table: "security",
      chains: [
        {
          name: "NG-LATE",
          rules: [
            `${conn(VerdictClass.pass)} -j RETURN`,
            picked.late,
            ...routedDiscovery,
            `${is(VerdictClass.ours)} -g NG-CLEAR`,
            ...replies,
            `${marked} -g NG-VERDICT`, // back from userspace
            // Only what mangle PREROUTING did not see because somebody accepted it there (Calico: established connections).
            `${deny} -g NG-CUT`,
            `${underInspection} -g NG-INSPECT`,
            `${confirm} -g NG-INSPECT`,
          ],
        },
        {
          name: "NG-INSPECT",
          rules: [
            ...known.answered,
            ...(behind ? syns : []),
            ...payload,
            // Only an acknowledgement is waited for any more: an answer with payload is not kept waiting for us.
            ...(bpf ? [`-p tcp ${confirm} -m conntrack --ctdir REPLY ${isBare(family)} -g NG-ANSWERED`, `${confirm} -j RETURN`] : []),
            "-p tcp -m tcp ! --tcp-flags SYN SYN -m conntrack --ctdir REPLY -g NG-ANSWERED",
          ],
        },
        ...known.chains.security,
        // What the server says and acknowledges; the mark tells userspace the direction.
        {
          name: "NG-ANSWERED",
          rules: [
            set(VerdictClass.ours),
            ...inspection.map(({ flow, to }) => `${flow} ${to}`),
            `${confirm} ${queue(QueueOffset.inspect, false)}`,
          ],
        },
        { name: "NG-CLEAR", rules: [clear] },
        picked.chain,
        { name: "NG-VERDICT", rules: [lost, ...pass, `${deny} -g NG-CUT`] },
        // Whoever accepted it before our REJECT in filter, the pod is to see a reset, from userspace; without an agent, silence.
        {
          name: "NG-CUT",
          rules: [
            `-p tcp -m conntrack --ctdir ORIGINAL ${set(VerdictClass.deny)}`,
            `${is(VerdictClass.deny)} ${queue(QueueOffset.admission, false)}`,
            "-j DROP",
          ],
        },
        {
          name: "NG-REPLY",
          rules: [
            `${conn(VerdictClass.pass)} -j RETURN`,
            picked.late,
            `${is(VerdictClass.ours)} -g NG-CLEAR`,
            ...replies,
            `${is(VerdictClass.pass)} -g NG-VERDICT`,
            `${underInspection} -g NG-INSPECT`,
            `${confirm} -g NG-INSPECT`,
          ],
        },
      ],
      jumps: [
        { from: "INPUT", to: "NG-LATE" },
        { from: "FORWARD", to: "NG-LATE" },
        { from: "OUTPUT", to: "NG-REPLY" },
      ],
    },
  ];
}
