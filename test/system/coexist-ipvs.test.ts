import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { coexists, FAMILIES, type Neighbour, serviceWorks, WEB, WEB_ENDPOINT } from "../support/coexist.ts";

/**
 * kube-proxy in IPVS mode: every ClusterIP is an address of the node (kube-ipvs0), so what a pod sends to one goes by INPUT,
 * and IPVS turns it there, behind filter and security. Rules are few: one set says what to masquerade.
 */

const DNS = { 4: "10.96.0.10", 6: "fd00:10:96::a" } as const;
const SHOP = { 4: "10.96.0.30", 6: "fd00:10:96::1e", port: 80 } as const;
const JUMPS = [`PREROUTING -j KUBE-SERVICES`, `OUTPUT -j KUBE-SERVICES`, `POSTROUTING -j KUBE-POSTROUTING`];

/** IPVS is a part of the kernel: no package brings it. */
function unable(): string | undefined {
  try {
    execFileSync("modprobe", ["ip_vs_rr"], { stdio: "ignore" });
  } catch {
    // built in, or not there
  }
  return existsSync("/proc/net/ip_vs") ? undefined : "this kernel has no IPVS (CONFIG_IP_VS): no package can bring it";
}

async function servers(n: Neighbour): Promise<void> {
  await n.run("ip", "link", "add", "kube-ipvs0", "type", "dummy");
  for (const family of FAMILIES) {
    const backend = n.shop.lab.pods.find(({ name }) => name === "backend");
    const coredns = n.shop.lab.pods.find(({ name }) => name === "coredns");
    const own = (pod: typeof backend): string => (family === 4 ? pod?.v4 : pod?.v6) as string;
    const at = (address: string, port: number): string => (family === 4 ? `${address}:${port}` : `[${address}]:${port}`);
    const services = [
      ["-u", at(DNS[family], 53), [at(own(coredns), 5353)]],
      ["-t", at(DNS[family], 53), [at(own(coredns), 5353)]],
      ["-t", at(WEB[family], WEB.port), [at(WEB_ENDPOINT[family], WEB_ENDPOINT.port)]],
      ["-t", at(SHOP[family], SHOP.port), [at(own(backend), 80), at(WEB_ENDPOINT[family], 80)]],
    ] as const;
    for (const address of [DNS[family], WEB[family], SHOP[family]])
      await n.run("ip", "addr", "add", `${address}/${family === 4 ? 32 : 128}`, "dev", "kube-ipvs0", ...(family === 6 ? ["nodad"] : []));
    for (const [kind, address, endpoints] of services) {
      await n.run("ipvsadm", "-A", kind, address, "-s", "rr");
      for (const endpoint of endpoints) await n.run("ipvsadm", "-a", kind, address, "-r", endpoint, "-m");
    }
  }
}

async function chains(n: Neighbour): Promise<void> {
  for (const family of FAMILIES)
    await n.restore(
      family,
      "nat",
      `:KUBE-SERVICES - [0:0]
       :KUBE-POSTROUTING - [0:0]
       :KUBE-MARK-MASQ - [0:0]
       -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
       -A KUBE-SERVICES ! -s ${family === 4 ? "10.244.0.0/16" : "fd00:10:244::/48"} -m set --match-set KUBE-CLUSTER-IP${family} dst,dst -j KUBE-MARK-MASQ
       -A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP${family} dst,dst -j ACCEPT
       -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
       -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
       -A KUBE-POSTROUTING -j MASQUERADE`,
    );
}

coexists({
  name: "kube-proxy in IPVS mode",
  commands: ["ipvsadm"],
  unable,
  pods: [{ name: "checkout" }, { name: "plain" }, { name: "backend" }],
  echo: ["backend"],
  services: "all",
  names: { "shop.shop.svc.cluster.local": { A: [SHOP[4]], AAAA: [SHOP[6]] } },
  egress: [{ name: "shop", action: "Accept", to: [{ domainNames: ["shop.shop.svc.cluster.local"] }], ports: [{ port: SHOP.port }] }],
  prepare: async (n) => {
    for (const family of FAMILIES) {
      const set = `KUBE-CLUSTER-IP${family}`;
      await n.run("ipset", "create", set, "hash:ip,port", "family", family === 4 ? "inet" : "inet6");
      for (const [address, port] of [
        [WEB[family], WEB.port],
        [SHOP[family], SHOP.port],
      ] as const)
        await n.run("ipset", "add", set, `${address},tcp:${port}`);
    }
    await n.shop.lab.setSysctl("node", { "net.ipv4.vs.conntrack": 1 });
    await servers(n);
  },
  install: async (n) => {
    await chains(n);
    for (const family of FAMILIES) await n.restore(family, "nat", JUMPS.map((rule) => `-I ${rule}`).join("\n"));
  },
  refresh: async (n) => {
    await chains(n);
    for (const family of FAMILIES) await n.toTop(family, "nat", JUMPS);
  },
  works: async (n) => {
    for (const family of FAMILIES) await serviceWorks(n, SHOP[family], SHOP.port);
  },
});
