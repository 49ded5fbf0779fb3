import { closedToOutside, coexists, FAMILIES, type Neighbour } from "../support/coexist.ts";

/**
 * ufw with a default of DROP for what is forwarded, and ESTABLISHED accepted first. The administrator lets pods out; nobody
 * outside may come in.
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
  works: closedToOutside,
});
