/**
 * How a pod's packets reach netfilter. `routed`: its own veth is the input interface. `bridged`: the input interface is
 * the bridge, and only physdev sees the port. `missing`: no such interface (yet); the pod is not enforceable until it is.
 */
export type Attachment =
  | { readonly kind: "routed"; readonly interface: string; readonly index: number }
  | { readonly kind: "bridged"; readonly interface: string; readonly index: number; readonly bridge: string }
  | { readonly kind: "missing"; readonly interface: string; readonly why: string };
