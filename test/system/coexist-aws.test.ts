import { coexists, FAMILIES, masquerades, type Neighbour } from "../support/coexist.ts";

/**
 * The AWS VPC CNI: pods on `eni…` veths, connmark 0x80 for what came in by the primary interface (mangle) and for what
 * leaves the VPC (nat PREROUTING), restored on every packet of a pod, and SNAT to the node's address. Its ipamd compares
 * and repairs these rules every minute.
 */

const VPC = { 4: "10.244.0.0/16", 6: "fd00:10:244::/48" } as const;
const note = (text: string): string => `-m comment --comment "${text}"`;
const MANGLE = [
  `PREROUTING -i srv0 ${note("AWS, primary ENI")} -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80`,
  `PREROUTING -i eni+ ${note("AWS, primary ENI")} -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80`,
];
const NAT = [
  `PREROUTING -i eni+ ${note("AWS, outbound connections")} -j AWS-CONNMARK-CHAIN-0`,
  `PREROUTING ${note("AWS, CONNMARK")} -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80`,
  `POSTROUTING ${note("AWS SNAT CHAIN")} -j AWS-SNAT-CHAIN-0`,
];

async function chains(n: Neighbour): Promise<void> {
  for (const family of FAMILIES)
    await n.restore(
      family,
      "nat",
      `:AWS-CONNMARK-CHAIN-0 - [0:0]
       :AWS-SNAT-CHAIN-0 - [0:0]
       -A AWS-CONNMARK-CHAIN-0 -d ${VPC[family]} ${note("AWS CONNMARK CHAIN, VPC CIDR")} -j RETURN
       -A AWS-CONNMARK-CHAIN-0 ${note("AWS, CONNMARK")} -j CONNMARK --set-xmark 0x80/0x80
       -A AWS-SNAT-CHAIN-0 -d ${VPC[family]} ${note("AWS SNAT CHAIN")} -j RETURN
       -A AWS-SNAT-CHAIN-0 ! -o vlan+ ${note("AWS, SNAT")} -m addrtype ! --dst-type LOCAL -j SNAT --to-source ${family === 4 ? n.shop.lab.node.v4 : n.shop.lab.node.v6} --random-fully`,
    );
}

coexists({
  name: "AWS VPC CNI",
  pods: [
    { name: "checkout", interface: "eni0a1b2c3d4e5" },
    { name: "plain", interface: "eni0f6e7d8c9b0" },
  ],
  prepare: async (n) => {
    const { v4, v6 } = n.shop.lab.node;
    await n.shop.lab.run("out", ["ip", "route", "replace", `${v4}/32`, "via", "192.0.2.1"]);
    await n.shop.lab.run("out", ["ip", "-6", "route", "replace", `${v6}/128`, "via", "2001:db8:fff0::1"]);
  },
  install: async (n) => {
    await chains(n);
    for (const family of FAMILIES) {
      await n.restore(family, "mangle", MANGLE.map((rule) => `-A ${rule}`).join("\n"));
      await n.restore(family, "nat", NAT.map((rule) => `-A ${rule}`).join("\n"));
    }
  },
  refresh: async (n) => {
    await chains(n);
    for (const family of FAMILIES) {
      await n.toTop(family, "mangle", MANGLE);
      await n.toTop(family, "nat", NAT);
    }
  },
  works: masquerades,
});
