import assert from "node:assert/strict";
import { coexists, FAMILIES, type Neighbour, serviceWorks, WEB, WEB_ENDPOINT } from "../support/coexist.ts";

/**
 * kube-proxy in iptables mode: its chains for the DNS service, a service of a pod and of a server outside, and `web`, the
 * jumps that it prepends (and never moves again), and a full sync, which flushes and refills every chain of its own.
 */

const DNS = { 4: "10.96.0.10", 6: "fd00:10:96::a" } as const;
const SHOP = { 4: "10.96.0.30", 6: "fd00:10:96::1e", port: 80 } as const;
const CLUSTER = { 4: "10.244.0.0/16", 6: "fd00:10:244::/48" } as const;
const note = (text: string): string => `-m comment --comment "${text}"`;

const NAT_JUMPS = [
  `PREROUTING ${note("kubernetes service portals")} -j KUBE-SERVICES`,
  `OUTPUT ${note("kubernetes service portals")} -j KUBE-SERVICES`,
  `POSTROUTING ${note("kubernetes postrouting rules")} -j KUBE-POSTROUTING`,
];
const FILTER_JUMPS = [
  `INPUT -m conntrack --ctstate NEW ${note("kubernetes externally-visible service portals")} -j KUBE-EXTERNAL-SERVICES`,
  `FORWARD -m conntrack --ctstate NEW ${note("kubernetes externally-visible service portals")} -j KUBE-EXTERNAL-SERVICES`,
  `FORWARD ${note("kubernetes forwarding rules")} -j KUBE-FORWARD`,
  `FORWARD -m conntrack --ctstate NEW ${note("kubernetes service portals")} -j KUBE-SERVICES`,
  `OUTPUT -m conntrack --ctstate NEW ${note("kubernetes service portals")} -j KUBE-SERVICES`,
  `INPUT -j KUBE-FIREWALL`,
  `OUTPUT -j KUBE-FIREWALL`,
];

interface Service {
  readonly id: string;
  readonly address: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  /** `address:port` */
  readonly endpoints: readonly string[];
}

function services(n: Neighbour, family: 4 | 6): Service[] {
  const pod = (name: string): string => {
    const found = n.shop.lab.pods.find((one) => one.name === name);
    return (family === 4 ? found?.v4 : found?.v6) as string;
  };
  const at = (address: string, port: number): string => (family === 4 ? `${address}:${port}` : `[${address}]:${port}`);
  const outside = at(WEB_ENDPOINT[family], WEB_ENDPOINT.port);
  return [
    { id: "DNS", address: DNS[family], protocol: "udp", port: 53, endpoints: [at(pod("coredns"), 5353)] },
    { id: "DNSTCP", address: DNS[family], protocol: "tcp", port: 53, endpoints: [at(pod("coredns"), 5353)] },
    { id: "WEB", address: WEB[family], protocol: "tcp", port: WEB.port, endpoints: [outside] },
    {
      id: "SHOP",
      address: SHOP[family],
      protocol: "tcp",
      port: SHOP.port,
      endpoints: [at(pod("backend"), 80), at(WEB_ENDPOINT[family], 80)],
    },
  ];
}

/** `iptables-restore --noflush`: naming a chain flushes it. */
async function sync(n: Neighbour): Promise<void> {
  for (const family of FAMILIES) {
    const all = services(n, family);
    const chains = all.flatMap(({ id, endpoints }) => [`KUBE-SVC-${id}`, ...endpoints.map((_, i) => `KUBE-SEP-${id}${i}`)]);
    const random = n.variant === "nft" ? " --random-fully" : "";
    await n.restore(
      family,
      "nat",
      `${["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", ...chains].map((name) => `:${name} - [0:0]`).join("\n")}
       -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
       -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
       -A KUBE-POSTROUTING ${note("kubernetes service traffic requiring SNAT")} -j MASQUERADE${random}
       -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
       ${all.flatMap((one) => ofService(one, family)).join("\n")}
       -A KUBE-SERVICES ${note("kubernetes service nodeports; NOTE: this must be the last rule in this chain")} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`,
    );
    await n.restore(
      family,
      "filter",
      `${["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-FIREWALL"].map((name) => `:${name} - [0:0]`).join("\n")}
       -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
       -A KUBE-FORWARD ${note("kubernetes forwarding rules")} -m mark --mark 0x4000/0x4000 -j ACCEPT
       -A KUBE-FORWARD ${note("kubernetes forwarding conntrack rule")} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
       -A KUBE-FIREWALL ${note("block incoming localnet connections")} ${family === 4 ? "! -s 127.0.0.0/8 -d 127.0.0.0/8" : "! -s ::1/128 -d ::1/128"} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`,
    );
  }
}

function ofService({ id, address, protocol, port, endpoints }: Service, family: 4 | 6): string[] {
  const to = `-d ${address} -p ${protocol} ${note(`shop/${id} cluster IP`)} -m ${protocol} --dport ${port}`;
  const last = endpoints.length - 1;
  return [
    `-A KUBE-SERVICES ${to} -j KUBE-SVC-${id}`,
    `-A KUBE-SVC-${id} ! -s ${CLUSTER[family]} ${to} -j KUBE-MARK-MASQ`,
    ...endpoints.flatMap((endpoint, i) => {
      const own = /^\[(.*)\]/.exec(endpoint)?.[1] ?? endpoint.replace(/:\d+$/, "");
      const share = i === last ? "" : `-m statistic --mode random --probability ${(1 / (endpoints.length - i)).toFixed(10)} `;
      return [
        `-A KUBE-SVC-${id} ${note(`shop/${id} -> ${endpoint}`)} ${share}-j KUBE-SEP-${id}${i}`,
        `-A KUBE-SEP-${id}${i} -s ${own} -j KUBE-MARK-MASQ`,
        `-A KUBE-SEP-${id}${i} -p ${protocol} -m ${protocol} -j DNAT --to-destination ${endpoint}`,
      ];
    }),
  ];
}

coexists({
  name: "kube-proxy in iptables mode",
  pods: [{ name: "checkout" }, { name: "plain" }, { name: "backend" }],
  echo: ["backend"],
  services: "all",
  names: { "shop.shop.svc.cluster.local": { A: [SHOP[4]], AAAA: [SHOP[6]] } },
  egress: [{ name: "shop", action: "Accept", to: [{ domainNames: ["shop.shop.svc.cluster.local"] }], ports: [{ port: SHOP.port }] }],
  install: async (n) => {
    for (const family of FAMILIES) {
      await n.restore(family, "mangle", ":KUBE-PROXY-CANARY - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]");
      await n.restore(
        family,
        "nat",
        `:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n${NAT_JUMPS.map((rule) => `-I ${rule}`).join("\n")}`,
      );
      const chains = ["SERVICES", "EXTERNAL-SERVICES", "FORWARD", "FIREWALL"].map((name) => `:KUBE-${name} - [0:0]`).join("\n");
      await n.restore(family, "filter", `${chains}\n${FILTER_JUMPS.map((rule) => `-I ${rule}`).join("\n")}`);
    }
    await sync(n);
  },
  refresh: async (n) => {
    for (const family of FAMILIES) {
      await n.toTop(family, "nat", NAT_JUMPS.toReversed());
      await n.toTop(family, "filter", FILTER_JUMPS.toReversed());
    }
    await sync(n);
  },
  works: async (n) => {
    for (const family of FAMILIES) {
      const dropped = await n.hits(family, "filter", "INVALID -j DROP");
      await serviceWorks(n, SHOP[family], SHOP.port);
      assert.equal(await n.hits(family, "filter", "INVALID -j DROP"), dropped, "nothing of ours makes a packet invalid");
    }
  },
});
