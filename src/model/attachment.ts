/**
 * How a pod's packets reach netfilter. `routed`: its own veth is the input interface. `bridged`: the input interface is
 * the bridge, and only physdev sees the port. `missing`: no such interface (yet); the pod is not enforceable until it is.
 */
export type Attachment =
  | { readonly kind: "routed"; readonly interface: string; readonly index: number }
  | { readonly kind: "bridged"; readonly interface: string; readonly index: number; readonly bridge: string }
  | { readonly kind: "missing"; readonly interface: string; readonly why: string };

/**
 * Interface groups (ip-link(8), xt_devgroup): how one rule knows that a packet came out of some guarded pod's veth.
 * ipset cannot say it: hash:net,iface holds at most 64 interfaces for one network. 0 is the group of everything else.
 */
export const InterfaceGroup = { enforce: 20_039, monitor: 20_040 } as const;

/** The interface that netfilter sees the pod's packets come in by. */
export function sourceInterface(attachment: Attachment): string {
  return attachment.kind === "bridged" ? attachment.bridge : attachment.interface;
}
