import assert from "node:assert/strict";
import { coexists, FAMILIES, type Neighbour, WEB } from "../support/coexist.ts";
import { unbound } from "../support/resolvers.ts";
import { NAMES } from "../support/shop.ts";

/**
 * NodeLocal DNSCache: an interface with the link-local address and the ClusterIP of the DNS service, a cache (here unbound)
 * on both, and rules that keep queries and replies out of conntrack and let them in. So replies are UNTRACKED and come from
 * the node itself. It looks every minute whether its rules are there, and prepends those that are not.
 */

const LOCAL = { 4: ["169.254.20.10", "10.96.0.10"], 6: ["fd00:10:96::20", "fd00:10:96::a"] } as const;
const skip = `-m comment --comment "NodeLocal DNS Cache: skip conntrack"`;
const allow = `-m comment --comment "NodeLocal DNS Cache: allow DNS traffic"`;
const RAW = (family: 4 | 6): string[] =>
  LOCAL[family].flatMap((ip) =>
    ["udp", "tcp"].flatMap((protocol) => [
      `PREROUTING -d ${ip} -p ${protocol} -m ${protocol} --dport 53 ${skip} -j NOTRACK`,
      `OUTPUT -s ${ip} -p ${protocol} -m ${protocol} --sport 53 ${skip} -j NOTRACK`,
      `OUTPUT -d ${ip} -p ${protocol} -m ${protocol} --dport 53 ${skip} -j NOTRACK`,
    ]),
  );
const FILTER = (family: 4 | 6): string[] =>
  LOCAL[family].flatMap((ip) =>
    ["udp", "tcp"].flatMap((protocol) => [
      `INPUT -d ${ip} -p ${protocol} -m ${protocol} --dport 53 ${allow} -j ACCEPT`,
      `OUTPUT -s ${ip} -p ${protocol} -m ${protocol} --sport 53 ${allow} -j ACCEPT`,
    ]),
  );

coexists({
  name: "NodeLocal DNSCache",
  commands: ["unbound", "dig"],
  services: "dns",
  prepare: async (n) => {
    // The kernel of a test machine may have no dummy interfaces: an end of a veth pair holds addresses as well.
    await n.run("ip", "link", "add", "nodelocaldns", "type", "veth", "peer", "name", "nodelocaldns1");
    for (const end of ["nodelocaldns", "nodelocaldns1"]) await n.run("ip", "link", "set", end, "up");
    for (const family of FAMILIES)
      for (const ip of LOCAL[family])
        await n.run(
          "ip",
          "addr",
          "add",
          family === 4 ? `${ip}/32` : `${ip}/128`,
          "dev",
          "nodelocaldns",
          ...(family === 6 ? ["nodad"] : []),
        );
    const records = Object.entries(NAMES).map(([name, { A = [], AAAA = [] }]) => [name, [...A, ...AAAA]] as const);
    await unbound(n.shop.lab, "node", { records: { ...Object.fromEntries(records), [WEB.name]: [WEB[4], WEB[6]] } });
    n.shop.lab.setResolvers([...LOCAL[4], ...LOCAL[6]]);
  },
  install: async (n) => {
    for (const family of FAMILIES) {
      await n.restore(
        family,
        "raw",
        RAW(family)
          .map((rule) => `-I ${rule}`)
          .join("\n"),
      );
      await n.restore(
        family,
        "filter",
        FILTER(family)
          .map((rule) => `-I ${rule}`)
          .join("\n"),
      );
    }
  },
  refresh: async (n) => {
    for (const family of FAMILIES) {
      await n.toTop(family, "raw", RAW(family).toReversed());
      await n.toTop(family, "filter", FILTER(family).toReversed());
    }
  },
  works: answers,
});

/** From each address, over UDP and TCP, to both pods; and it is the cache that answers, past conntrack. */
async function answers(n: Neighbour): Promise<void> {
  for (const family of FAMILIES)
    for (const server of LOCAL[family]) {
      for (const client of [n.checkout, n.plain]) {
        const answer = await client.resolve({ name: "api.stripe.com", server: family === 4 ? server : `[${server}]:53` });
        assert.equal(answer.ok, true, `${server}: ${JSON.stringify(answer)}`);
      }
      const tcp = await n.shop.lab.run("checkout", ["dig", "+tcp", "+short", "+time=2", "+tries=1", `@${server}`, "api.stripe.com"]);
      assert.match(tcp, /^198\.51\.100\.10$/m);
      assert.ok((await n.hits(family, "raw", `-s ${server}`)) > 0, "its answers are not tracked");
    }
}
