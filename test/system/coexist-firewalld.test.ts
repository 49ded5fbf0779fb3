import { closedToOutside, coexists, type Neighbour } from "../support/coexist.ts";

/**
 * firewalld: a table of nf_tables of its own, which judges what is forwarded behind iptables' filter (ESTABLISHED first, the
 * rest rejected), and drops IPv6 packets that come from where no route to their sender leads, ahead of everybody. The
 * administrator lets pods out. A reload replaces the table.
 */

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
  works: closedToOutside,
});

async function load(n: Neighbour): Promise<void> {
  await n.run("nft", "-f", n.shop.lab.file("firewalld.nft", FIREWALLD));
}
