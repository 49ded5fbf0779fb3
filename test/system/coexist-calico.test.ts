import { coexists, FAMILIES, masquerades, type Neighbour } from "../support/coexist.ts";

/**
 * Felix with its defaults (ChainInsertMode Insert, DefaultEndpointToHostAction Accept, mark mask 0xffff0000, natOutgoing):
 * what it renders for the pods of the lab, and its refresh, which puts its jumps on top again.
 */

const ACCEPT = "0x10000/0x10000";
const note = (text: string): string => `-m comment --comment "${text}"`;
const RAW = [`PREROUTING ${note("cali:6gwbT8clXdHdC1b1")} -j cali-PREROUTING`, `OUTPUT ${note("cali:tVnHkvAo15HuiPy0")} -j cali-OUTPUT`];
const MANGLE = [
  `PREROUTING ${note("cali:6gwbT8clXdHdC1b1")} -j cali-PREROUTING`,
  `POSTROUTING ${note("cali:O3lYWMrLQYEMJtB5")} -j cali-POSTROUTING`,
];
const FILTER = [
  `INPUT ${note("cali:Cz_u1IQiXIMmKD4c")} -j cali-INPUT`,
  `FORWARD ${note("cali:wUHhoiAYhphO9Mso")} -j cali-FORWARD`,
  `OUTPUT ${note("cali:tVnHkvAo15HuiPy0")} -j cali-OUTPUT`,
];
const NAT = ["PREROUTING", "OUTPUT", "POSTROUTING"].map((chain) => `${chain} ${note(`cali:${chain}`)} -j cali-${chain}`);

const inserts = (rules: readonly string[]): string => rules.map((rule) => `-I ${rule}`).join("\n");

async function install(n: Neighbour): Promise<void> {
  const pods = n.shop.lab.pods.map((pod) => pod.interface);
  for (const family of FAMILIES) {
    await n.restore(
      family,
      "raw",
      `:cali-PREROUTING - [0:0]
       :cali-OUTPUT - [0:0]
       :cali-rpf-skip - [0:0]
       :cali-from-host-endpoint - [0:0]
       -A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
       -A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
       -A cali-PREROUTING -m mark --mark 0x40000/0x40000 -j cali-rpf-skip
       -A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
       -A cali-PREROUTING -m mark --mark 0x0/0x40000 -j cali-from-host-endpoint
       -A cali-PREROUTING -m mark --mark ${ACCEPT} -j ACCEPT
       -A cali-OUTPUT -j MARK --set-xmark 0x0/0xf0000
       -A cali-OUTPUT -m mark --mark ${ACCEPT} -j ACCEPT
       ${inserts(RAW)}`,
    );
    await n.restore(
      family,
      "mangle",
      `:cali-PREROUTING - [0:0]
       :cali-POSTROUTING - [0:0]
       :cali-from-host-endpoint - [0:0]
       -A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
       -A cali-PREROUTING -m mark --mark ${ACCEPT} -j ACCEPT
       -A cali-PREROUTING -j cali-from-host-endpoint
       -A cali-PREROUTING ${note("Host endpoint policy accepted packet.")} -m mark --mark ${ACCEPT} -j ACCEPT
       -A cali-POSTROUTING -m mark --mark ${ACCEPT} -j RETURN
       -A cali-POSTROUTING -j MARK --set-xmark 0x0/0xf0000
       ${inserts(MANGLE)}`,
    );
    await n.restore(
      family,
      "filter",
      `:cali-INPUT - [0:0]
       :cali-FORWARD - [0:0]
       :cali-OUTPUT - [0:0]
       :cali-wl-to-host - [0:0]
       :cali-from-wl-dispatch - [0:0]
       :cali-to-wl-dispatch - [0:0]
       :cali-pro-kns.shop - [0:0]
       ${pods.flatMap((pod) => [`:cali-fw-${pod} - [0:0]`, `:cali-tw-${pod} - [0:0]`]).join("\n")}
       -A cali-INPUT -i cali+ -g cali-wl-to-host
       -A cali-INPUT -m mark --mark ${ACCEPT} -j ACCEPT
       -A cali-wl-to-host -j cali-from-wl-dispatch
       -A cali-wl-to-host ${note("Configured DefaultEndpointToHostAction")} -j ACCEPT
       -A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
       -A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
       -A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
       ${pods.flatMap((pod) => [`-A cali-from-wl-dispatch -i ${pod} -g cali-fw-${pod}`, `-A cali-to-wl-dispatch -o ${pod} -g cali-tw-${pod}`]).join("\n")}
       -A cali-from-wl-dispatch ${note("Unknown interface")} -j DROP
       -A cali-to-wl-dispatch ${note("Unknown interface")} -j DROP
       ${pods.flatMap((pod) => ["fw", "tw"].flatMap((way) => endpoint(`cali-${way}-${pod}`, way === "fw"))).join("\n")}
       -A cali-pro-kns.shop ${note("Profile kns.shop")} -j MARK --set-xmark ${ACCEPT}
       -A cali-pro-kns.shop -m mark --mark ${ACCEPT} -j RETURN
       -A FORWARD ${note("cali:S93hcgKJrXEqnTfs")} ${note("Policy explicitly accepted packet.")} -m mark --mark ${ACCEPT} -j ACCEPT
       -A FORWARD ${note("cali:mp77cMpurHhyjLrM")} -j MARK --set-xmark ${ACCEPT}
       ${inserts(FILTER)}`,
    );
    await n.restore(
      family,
      "nat",
      `:cali-PREROUTING - [0:0]
       :cali-OUTPUT - [0:0]
       :cali-POSTROUTING - [0:0]
       :cali-fip-dnat - [0:0]
       :cali-nat-outgoing - [0:0]
       -A cali-PREROUTING -j cali-fip-dnat
       -A cali-OUTPUT -j cali-fip-dnat
       -A cali-POSTROUTING -j cali-nat-outgoing
       -A cali-nat-outgoing -m set --match-set cali${family}0masq-ipam-pools src -m set ! --match-set cali${family}0all-ipam-pools dst -j MASQUERADE --random-fully
       ${inserts(NAT)}`,
    );
  }
}

/** cali-fw-… judges what a pod sends, cali-tw-… what it gets. */
function endpoint(chain: string, from: boolean): string[] {
  return [
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-m conntrack --ctstate INVALID -j DROP",
    "-j MARK --set-xmark 0x0/0x30000",
    ...(from ? [`-p udp ${note("Drop VXLAN encapped packets originating in workloads")} -m multiport --dports 4789 -j DROP`] : []),
    "-j cali-pro-kns.shop",
    `${note("Return if profile accepted")} -m mark --mark ${ACCEPT} -j RETURN`,
    `${note("Drop if no profiles matched")} -j DROP`,
  ].map((rule) => `-A ${chain} ${rule}`);
}

coexists({
  name: "Calico",
  prepare: async (n) => {
    for (const family of FAMILIES)
      for (const role of ["all", "masq"]) {
        const set = `cali${family}0${role}-ipam-pools`;
        await n.run("ipset", "create", set, "hash:net", "family", family === 4 ? "inet" : "inet6", "maxelem", "1048576");
        await n.run("ipset", "add", set, family === 4 ? "10.244.0.0/16" : "fd00:10:244::/48");
      }
  },
  install,
  noticed: /ip6tables mangle\/PREROUTING: neighbour/,
  refresh: async (n) => {
    for (const family of FAMILIES) {
      await n.toTop(family, "raw", RAW);
      await n.toTop(family, "mangle", MANGLE);
      await n.toTop(family, "filter", FILTER);
      await n.toTop(family, "nat", NAT);
    }
  },
  works: masquerades,
});
