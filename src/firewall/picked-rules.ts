import type { Chain } from "./rules.ts";

/** The rules about connections whose beginning nobody saw. */
interface PickedRules {
  /** security NG-LATE and NG-REPLY, behind what passed. */
  readonly late: string;
  /** mangle NG-NEW and NG-MONITOR: what a guarded pod sends to another one of this node is seen there before it is marked. */
  readonly early: string;
  readonly chain: Chain;
}

/**
 * A TCP segment towards an Enforce pod that begins a connection for conntrack (nf_conntrack_tcp_loose) and is no SYN: whatever
 * the pod said then would be an answer, and go by unread, though it may be the pod that opened the connection, and had conntrack
 * forget it. It is refused, and its entry never confirmed. Userspace says so, twenty
 * times a second at most. `guarded` matches by destination; `mark` and `queue` are how userspace is shown one.
 */
export function pickedRules(guarded: string, mark: string, queue: string): PickedRules {
  const segment = "-m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN";
  const begins = "-m conntrack --ctstate NEW";
  return {
    // The cheaper question first: here most are no SYN, there most are.
    late: `-p tcp ${begins} ${segment} ${guarded} -g NG-PICKED`,
    early: `-p tcp ${segment} ${begins} ${guarded} -g NG-PICKED`,
    chain: { name: "NG-PICKED", rules: [mark, `-m limit --limit 20/sec --limit-burst 20 ${queue}`, "-j DROP"] },
  };
}
