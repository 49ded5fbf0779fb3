import assert from "node:assert/strict";
import { coexists, FAMILIES, type Neighbour } from "../support/coexist.ts";
import { OUT } from "../support/shop.ts";

/**
 * A host firewall with a default of DROP for what is forwarded, and ESTABLISHED accepted first. ufw writes iptables rules;
 * firewalld has a table of nf_tables of its own, which judges behind iptables' filter and drops IPv6 packets that come from
 * where no route to their sender leads, ahead of everybody. The administrator lets pods out; nobody outside may come in.
 */

const UFW = [
  "FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
  "FORWARD -j ufw-before-logging-forward",
  "FORWARD -j ufw-before-forward",
  "FORWARD -j ufw-reject-forward",
];

async function ufw(n: Neighbour): Promise<void> {
  for (const family of FAMILIES)
    await n.restore(
      family,
      "filter",
      `:FORWARD DROP [0:0]
       :ufw-before-logging-forward - [0:0]
       :ufw-before-forward - [0:0]
       :ufw-reject-forward - [0:0]
       -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
       -A ufw-before-forward -m conntrack --ctstate INVALID -j DROP
       -A ufw-before-forward -i cali+ -j ACCEPT`,
    );
}

/** A server outside calls a pod of the node, and gets no answer. */
async function closed(n: Neighbour): Promise<void> {
  for (const pod of n.shop.lab.pods.filter(({ name }) => name === "plain")) {
    const came = await n.shop.lab.exec("out", ["ping", "-c", "1", "-W", "1", "-I", OUT.far, pod.v4 as string]);
    assert.notEqual(came.status, 0, "the firewall lets nobody in");
  }
}

coexists({
  name: "ufw",
  install: async (n) => {
    await ufw(n);
    for (const family of FAMILIES) await n.restore(family, "filter", UFW.map((rule) => `-A ${rule}`).join("\n"));
  },
  refresh: async (n) => {
    await ufw(n);
    for (const family of FAMILIES) await n.toTop(family, "filter", UFW);
  },
  works: closed,
});

const FIREWALLD = `table inet firewalld
delete table inet firewalld
table inet firewalld {
  chain mangle_PREROUTING_POLICIES { return; }
  chain rpfilter { type filter hook prerouting priority raw + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept;
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }
  chain filter_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; jump mangle_PREROUTING_POLICIES; }
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
    ct state established,related accept; ct status dnat accept; ct state invalid drop; iifname "lo" accept;
    iifname "cali*" accept; reject with icmpx admin-prohibited; }
  chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state established,related accept; iifname "cali*" accept; }
}
`;

coexists({
  name: "firewalld",
  variants: ["nft"],
  commands: ["nft"],
  nftTables: ["inet firewalld"],
  install: (n) => load(n),
  refresh: (n) => load(n),
  works: closed,
});

async function load(n: Neighbour): Promise<void> {
  await n.run("nft", "-f", n.shop.lab.file("firewalld.nft", FIREWALLD));
}
