import assert from "node:assert/strict";
import { coexists, FAMILIES, type Neighbour } from "../support/coexist.ts";
import { OUT } from "../support/shop.ts";

/**
 * Docker on a node (27 and before: its chains for both families): policy DROP in filter FORWARD, DOCKER-USER and the
 * isolation stages put on top at every start and every new network; what the node's administrator lets through is in
 * DOCKER-USER, here everything of pods.
 */

const JUMPS = [
  "FORWARD -j DOCKER-USER",
  "FORWARD -j DOCKER-ISOLATION-STAGE-1",
  "FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
  "FORWARD -o docker0 -j DOCKER",
  "FORWARD -i docker0 ! -o docker0 -j ACCEPT",
  "FORWARD -i docker0 -o docker0 -j ACCEPT",
];

async function chains(n: Neighbour): Promise<void> {
  for (const family of FAMILIES)
    await n.restore(
      family,
      "filter",
      `:FORWARD DROP [0:0]
       :DOCKER - [0:0]
       :DOCKER-USER - [0:0]
       :DOCKER-ISOLATION-STAGE-1 - [0:0]
       :DOCKER-ISOLATION-STAGE-2 - [0:0]
       -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
       -A DOCKER-ISOLATION-STAGE-1 -j RETURN
       -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
       -A DOCKER-ISOLATION-STAGE-2 -j RETURN
       -A DOCKER-USER -i cali+ -j ACCEPT
       -A DOCKER-USER -o cali+ -j ACCEPT
       -A DOCKER-USER -j RETURN`,
    );
}

coexists({
  name: "Docker",
  install: async (n) => {
    await chains(n);
    for (const family of FAMILIES)
      await n.restore(
        family,
        "filter",
        JUMPS.toReversed()
          .map((rule) => `-I ${rule}`)
          .join("\n"),
      );
  },
  refresh: async (n) => {
    await chains(n);
    for (const family of FAMILIES) await n.toTop(family, "filter", JUMPS);
  },
  works: async (n) => {
    const dropped = await n.shop.lab.exec("out", ["ping", "-c", "1", "-W", "0.3", "10.244.9.9"]);
    assert.notEqual(dropped.status, 0, "nothing is forwarded that nobody lets through");
    for (const host of [OUT.evil, OUT.evil6]) assert.equal((await n.plain.connect({ host, port: 80, send: "x" })).data, "x");
    for (const family of FAMILIES) assert.ok((await n.hits(family, "filter", "-i cali+ -j ACCEPT")) > 0, "DOCKER-USER is asked");
  },
});
