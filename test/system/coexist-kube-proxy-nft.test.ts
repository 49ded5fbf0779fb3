import { coexists, FAMILIES, type Neighbour, serviceWorks, WEB, WEB_ENDPOINT } from "../support/coexist.ts";

/**
 * kube-proxy in nftables mode (the default of the future): no iptables rule at all, a table `kube-proxy` of its own in each
 * family, with verdict maps from address, protocol and port to a service's chain. Beside it our rules may be of either
 * iptables variant. A sync replaces the table in one transaction.
 */

const SHOP = { 4: "10.96.0.30", 6: "fd00:10:96::1e", port: 80 } as const;
const DNS = { 4: "10.96.0.10", 6: "fd00:10:96::a" } as const;

function table(n: Neighbour, family: 4 | 6): string {
  const ip = family === 4 ? "ip" : "ip6";
  const type = family === 4 ? "ipv4_addr" : "ipv6_addr";
  const pod = (name: string): string => {
    const found = n.shop.lab.pods.find((one) => one.name === name);
    return (family === 4 ? found?.v4 : found?.v6) as string;
  };
  const to = (address: string, port: number): string => (family === 4 ? `${address}:${port}` : `[${address}]:${port}`);
  const services = [
    { id: "DNSU-kube-system/dns/udp", protocol: "udp", address: DNS[family], port: 53, endpoints: [[pod("coredns"), 5353]] },
    { id: "DNST-kube-system/dns/tcp", protocol: "tcp", address: DNS[family], port: 53, endpoints: [[pod("coredns"), 5353]] },
    {
      id: "WEBT-shop/web/tcp",
      protocol: "tcp",
      address: WEB[family],
      port: WEB.port,
      endpoints: [[WEB_ENDPOINT[family], WEB_ENDPOINT.port]],
    },
    {
      id: "SHOP-shop/shop/tcp",
      protocol: "tcp",
      address: SHOP[family],
      port: SHOP.port,
      endpoints: [
        [pod("backend"), 80],
        [WEB_ENDPOINT[family], 80],
      ],
    },
  ] as const;
  const chains = services.flatMap(({ id, protocol, endpoints }) => [
    ...endpoints.map(
      ([address, port], i) =>
        `chain endpoint-${id}__${i} { ${ip} saddr ${address} jump mark-for-masquerade; meta l4proto ${protocol} dnat to ${to(address, port)}; }`,
    ),
    `chain service-${id} { ${ip} daddr ${services.find((one) => one.id === id)?.address} ${ip} saddr != @pods jump mark-for-masquerade; numgen random mod ${endpoints.length} vmap { ${endpoints.map((_, i) => `${i} : goto endpoint-${id}__${i}`).join(", ")} }; }`,
  ]);
  return `table ${ip} kube-proxy
delete table ${ip} kube-proxy
table ${ip} kube-proxy {
  comment "rules for kube-proxy";
  set cluster-ips { type ${type}; comment "Active ClusterIPs"; elements = { ${[...new Set(services.map(({ address }) => address))].join(", ")} }; }
  set pods { type ${type}; flags interval; elements = { ${family === 4 ? "10.244.0.0/16" : "fd00:10:244::/48"} }; }
  map no-endpoint-services { type ${type} . inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to services with no endpoints"; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain masquerading { meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
  chain reject-chain { comment "helper for @no-endpoint-services"; reject; }
  ${chains.join("\n  ")}
  map service-ips { type ${type} . inet_proto . inet_service : verdict; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic";
    elements = { ${services.map(({ id, address, protocol, port }) => `${address} . ${protocol} . ${port} : goto service-${id}`).join(", ")} }; }
  chain services { ${ip} daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-endpoints-check { ${ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain cluster-ips-check { ${ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"; }
  chain filter-prerouting-pre-dnat { type filter hook prerouting priority dstnat - 10; policy accept; }
  chain filter-input { type filter hook input priority -110; policy accept; ct state new jump service-endpoints-check; }
  chain filter-forward { type filter hook forward priority -110; policy accept; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
  chain filter-output { type filter hook output priority -110; policy accept; ct state new jump service-endpoints-check; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
}
`;
}

async function sync(n: Neighbour): Promise<void> {
  for (const family of FAMILIES) await n.run("nft", "-f", n.shop.lab.file(`kube-proxy-${family}.nft`, table(n, family)));
}

coexists({
  name: "kube-proxy in nftables mode",
  commands: ["nft"],
  pods: [{ name: "checkout" }, { name: "plain" }, { name: "backend" }],
  echo: ["backend"],
  services: "all",
  nftTables: ["ip kube-proxy", "ip6 kube-proxy"],
  names: { "shop.shop.svc.cluster.local": { A: [SHOP[4]], AAAA: [SHOP[6]] } },
  egress: [{ name: "shop", action: "Accept", to: [{ domainNames: ["shop.shop.svc.cluster.local"] }], ports: [{ port: SHOP.port }] }],
  install: sync,
  refresh: sync,
  works: async (n) => {
    for (const family of FAMILIES) await serviceWorks(n, SHOP[family], SHOP.port);
  },
});
