import { coexists, FAMILIES, masquerades, type Neighbour } from "../support/coexist.ts";

/**
 * flannel (and k3s): pods on the bridge cni0, FLANNEL-FWD appended to filter FORWARD, FLANNEL-POSTRTG for what leaves the
 * cluster; both looked at every five seconds, and set up anew when something is missing.
 */

const NETWORK = { 4: "10.244.0.0/16", 6: "fd00:10:244::/48" } as const;
const OWN = { 4: "10.244.1.0/24", 6: "fd00:10:244:1::/64" } as const;
const MULTICAST = { 4: "224.0.0.0/4", 6: "ff00::/8" } as const;
const note = (text: string): string => `-m comment --comment "${text}"`;
const FORWARD = `FORWARD ${note("flanneld forward")} -j FLANNEL-FWD`;
const POSTROUTING = `POSTROUTING ${note("flanneld masq")} -j FLANNEL-POSTRTG`;

async function chains(n: Neighbour): Promise<void> {
  for (const family of FAMILIES) {
    const [network, own, masq] = [NETWORK[family], OWN[family], note("flanneld masq")];
    await n.restore(
      family,
      "filter",
      `:FLANNEL-FWD - [0:0]
       -A FLANNEL-FWD -s ${network} ${note("flanneld forward")} -j ACCEPT
       -A FLANNEL-FWD -d ${network} ${note("flanneld forward")} -j ACCEPT`,
    );
    await n.restore(
      family,
      "nat",
      `:FLANNEL-POSTRTG - [0:0]
       -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${masq} -j RETURN
       -A FLANNEL-POSTRTG -s ${own} -d ${network} ${masq} -j RETURN
       -A FLANNEL-POSTRTG -s ${network} -d ${own} ${masq} -j RETURN
       -A FLANNEL-POSTRTG ! -s ${network} -d ${own} ${masq} -j RETURN
       -A FLANNEL-POSTRTG -s ${network} ! -d ${MULTICAST[family]} ${masq} -j MASQUERADE --random-fully
       -A FLANNEL-POSTRTG ! -s ${network} -d ${network} ${masq} -j MASQUERADE --random-fully`,
    );
  }
}

coexists({
  name: "flannel",
  pods: [
    { name: "checkout", kind: "bridge" },
    { name: "plain", kind: "bridge" },
  ],
  install: async (n) => {
    await chains(n);
    for (const family of FAMILIES) {
      await n.restore(family, "filter", `-A ${FORWARD}`);
      await n.restore(family, "nat", `-A ${POSTROUTING}`);
    }
  },
  refresh: async (n) => {
    await chains(n);
    for (const family of FAMILIES) {
      await n.toTop(family, "filter", [FORWARD]);
      await n.toTop(family, "nat", [POSTROUTING]);
    }
  },
  works: masquerades,
});
