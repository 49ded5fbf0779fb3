import assert from "node:assert/strict";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { NAMES, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

/** `tcp`, `udp` or `ask` (resolve the name first, then TCP) → does it get there? */
type Row =
  | readonly [what: "tcp" | "udp", host: string, port: number, ok: boolean]
  | readonly [what: "ask", name: string, port: number, ok: boolean];

interface Case {
  readonly name: string;
  readonly policies: Readonly<Record<string, unknown>>;
  /** Cluster policies. */
  readonly cluster?: Readonly<Record<string, unknown>>;
  readonly rows: readonly Row[];
}

const HERE = { podSelector: { matchLabels: { app: "checkout" } } };
const enforce = (egress: readonly unknown[], more: object = {}): unknown => ({ mode: "Enforce", subject: HERE, egress, ...more });
const accept = (to: readonly unknown[] | undefined, ports?: readonly unknown[]): unknown => ({
  action: "Accept",
  ...(to === undefined ? {} : { to }),
  ...(ports === undefined ? {} : { ports }),
});
const deny = (to: readonly unknown[], ports?: readonly unknown[]): unknown => ({
  action: "Deny",
  to,
  ...(ports === undefined ? {} : { ports }),
});
const tcp = (port?: number, endPort?: number): unknown => ({
  protocol: "TCP",
  ...(port === undefined ? {} : { port }),
  ...(endPort === undefined ? {} : { endPort }),
});
const udp = (port?: number): unknown => ({ protocol: "UDP", ...(port === undefined ? {} : { port }) });
const nets = (...networks: unknown[]): unknown => ({ networks });
const names = (...domainNames: string[]): unknown => ({ domainNames });
const ALL = nets("0.0.0.0/0", "::/0");

const CASES: readonly Case[] = [
  {
    name: "a network with an exception",
    policies: { p: enforce([accept([nets({ cidr: "198.51.100.0/24", except: [`${OUT.evil}/32`] })], [tcp(443)])]) },
    rows: [
      ["tcp", OUT.stripe, 443, true],
      ["tcp", OUT.bank, 443, true],
      ["tcp", OUT.evil, 443, false],
      ["tcp", OUT.stripe, 5432, false],
      ["tcp", OUT.far, 443, false],
      ["tcp", OUT.stripe6, 443, false],
    ],
  },
  {
    name: "everywhere, on one port",
    policies: { p: enforce([accept([ALL], [tcp(5432)])]) },
    rows: [
      ["tcp", OUT.far, 5432, true],
      ["tcp", OUT.stripe, 5432, true],
      ["tcp", OUT.stripe6, 5432, true],
      ["tcp", OUT.far, 443, false],
      ["udp", OUT.far, 7000, false],
    ],
  },
  {
    name: "everywhere of one family only: the other is no hole",
    policies: { p: enforce([accept([nets("0.0.0.0/0")])]) },
    rows: [
      ["tcp", OUT.far, 5432, true],
      ["udp", OUT.far, 7000, true],
      ["tcp", OUT.stripe6, 443, false],
      ["udp", OUT.stripe6, 7000, false],
    ],
  },
  {
    name: "everywhere but some networks, any port",
    policies: {
      p: enforce([accept([nets({ cidr: "0.0.0.0/0", except: ["198.51.100.0/24"] }, { cidr: "::/0", except: [`${OUT.evil6}/128`] })])]),
    },
    rows: [
      ["tcp", OUT.far, 443, true],
      ["udp", OUT.far, 7000, true],
      ["tcp", OUT.stripe, 443, false],
      ["tcp", OUT.stripe6, 8080, true],
      ["tcp", OUT.evil6, 8080, false],
    ],
  },
  {
    name: "a port range, of a network and of a name",
    policies: { p: enforce([accept([nets(`${OUT.far}/32`), names("bank.example.com")], [tcp(8080, 8090)])]) },
    rows: [
      ["tcp", OUT.far, 8080, true],
      ["tcp", OUT.far, 8085, true],
      ["tcp", OUT.far, 443, false],
      ["tcp", OUT.bank, 8085, false],
      ["ask", "bank.example.com", 8085, true],
      ["ask", "bank.example.com", 8080, true],
      ["ask", "bank.example.com", 443, false],
    ],
  },
  {
    name: "a name on any port and protocol",
    policies: { p: enforce([accept([names("bank.example.com")])]) },
    rows: [
      ["tcp", OUT.bank, 443, false],
      ["ask", "bank.example.com", 5432, true],
      ["ask", "bank.example.com", 443, true],
      ["udp", OUT.bank, 7000, true],
      ["ask", "far.example.com", 443, false],
    ],
  },
  {
    name: "a name on any TCP port: UDP is none",
    policies: { p: enforce([accept([names("bank.example.com")], [tcp()])]) },
    rows: [
      ["ask", "bank.example.com", 8080, true],
      ["udp", OUT.bank, 7000, false],
    ],
  },
  {
    name: "Deny beats Accept, whichever is written first",
    policies: { p: enforce([accept([ALL], [tcp(443), udp(7000)]), deny([nets(`${OUT.evil}/32`)])]) },
    rows: [
      ["tcp", OUT.stripe, 443, true],
      ["tcp", OUT.evil, 443, false],
      ["udp", OUT.evil, 7000, false],
      ["udp", OUT.far, 7000, true],
    ],
  },
  {
    name: "Deny of one policy beats Accept of another that selects the pod too",
    policies: { open: enforce([accept([ALL])]), closed: enforce([deny([nets("198.51.100.0/24")], [tcp()])]) },
    rows: [
      ["tcp", OUT.far, 443, true],
      ["tcp", OUT.bank, 443, false],
      ["udp", OUT.bank, 7000, true],
    ],
  },
  {
    name: "two policies add up",
    policies: {
      one: enforce([accept([names("bank.example.com")], [tcp(443)])]),
      two: enforce([accept([nets(`${OUT.far}/32`)], [tcp(5432)])]),
    },
    rows: [
      ["ask", "bank.example.com", 443, true],
      ["ask", "bank.example.com", 5432, false],
      ["tcp", OUT.far, 5432, true],
      ["tcp", OUT.far, 443, false],
    ],
  },
  {
    name: "Deny by name works on the query, and on what the pod knows already: a CNAME target closes an address that was open",
    policies: { p: enforce([accept([ALL]), deny([names("*.example.net")]), accept([names("alias.example.com", "bank.example.com")])]) },
    rows: [
      ["tcp", OUT.bank, 443, true],
      ["ask", "evil.example.net", 443, false],
      ["tcp", OUT.evil, 443, true],
      ["udp", OUT.evil, 7000, true],
      ["ask", "alias.example.com", 443, false],
      ["tcp", OUT.evil, 443, false],
      ["udp", OUT.evil, 7000, false],
      ["ask", "bank.example.com", 443, true],
    ],
  },
  {
    name: "the same on one port, which the kernel could decide alone",
    policies: { p: enforce([accept([ALL], [tcp(443)]), deny([names("*.example.net")])]) },
    rows: [
      ["tcp", OUT.evil, 443, true],
      ["ask", "alias.example.com", 443, false],
      ["tcp", OUT.evil, 443, false],
      ["tcp", OUT.stripe, 443, true],
    ],
  },
  {
    name: "nothing at all",
    policies: { p: enforce([]) },
    rows: [
      ["tcp", OUT.far, 443, false],
      ["ask", "api.stripe.com", 443, false],
      ["tcp", OUT.stripe6, 443, false],
      ["udp", OUT.far, 7000, false],
    ],
  },
  {
    name: "an Admin Deny cannot be overridden, an Admin Accept needs nobody's leave, Baseline is asked last",
    policies: { p: enforce([accept([nets("198.51.100.0/24")], [tcp(443), tcp(5432)]), deny([nets(`${OUT.bank}/32`)], [tcp(443)])]) },
    cluster: {
      guard: {
        mode: "Enforce",
        tier: "Admin",
        priority: 10,
        subject: { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "shop" } } },
        egress: [deny([nets(`${OUT.evil}/32`)]), accept([nets(`${OUT.bank}/32`)], [tcp(8080)])],
      },
      base: { mode: "Enforce", tier: "Baseline", egress: [accept([nets(`${OUT.far}/32`)], [tcp(443)])] },
    },
    rows: [
      ["tcp", OUT.stripe, 443, true],
      ["tcp", OUT.evil, 443, false],
      ["tcp", OUT.bank, 8080, true],
      ["tcp", OUT.bank, 443, false],
      ["tcp", OUT.far, 443, true],
      ["tcp", OUT.far, 5432, false],
    ],
  },
  {
    name: "Pass leaves the Admin tier, and the lower priority number is judged first",
    policies: { p: enforce([accept([nets("198.51.100.0/24")], [tcp(443)])]) },
    cluster: {
      first: {
        mode: "Enforce",
        tier: "Admin",
        priority: 1,
        egress: [{ action: "Pass", to: [nets(`${OUT.stripe}/32`)] }, accept([nets(`${OUT.evil}/32`)], [tcp(5432)])],
      },
      second: { mode: "Enforce", tier: "Admin", priority: 2, egress: [deny([nets("198.51.100.0/24")])] },
    },
    rows: [
      ["tcp", OUT.stripe, 443, true],
      ["tcp", OUT.stripe, 5432, false],
      ["tcp", OUT.bank, 443, false],
      ["tcp", OUT.evil, 5432, true],
      ["tcp", OUT.evil, 443, false],
    ],
  },
  {
    name: "subjects: another namespace, another service account, other labels select nothing",
    policies: { p: enforce([accept([ALL], [tcp(443)])]) },
    cluster: {
      elsewhere: {
        mode: "Enforce",
        subject: { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } } },
        egress: [deny([ALL])],
      },
      robots: { mode: "Enforce", subject: { serviceAccountNames: ["robot"] }, egress: [deny([ALL])] },
      labels: {
        mode: "Enforce",
        subject: { podSelector: { matchExpressions: [{ key: "app", operator: "NotIn", values: ["checkout"] }] } },
        egress: [deny([ALL])],
      },
      mine: { mode: "Enforce", subject: { serviceAccountNames: ["till"] }, egress: [deny([nets(`${OUT.far}/32`)])] },
    },
    rows: [
      ["tcp", OUT.stripe, 443, true],
      ["tcp", OUT.far, 443, false],
    ],
  },
];

test("what rules say is what the pod can do", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, {
    pods: [{ name: "checkout", serviceAccountName: "till" }],
    names: { ...NAMES, "alias.example.com": { cname: ["x.example.net"], A: [OUT.evil] } },
    args: ["--cluster-namespace", "namegate"],
  });
  const client = await it.client("checkout");
  for (const { name, policies, cluster = {}, rows } of CASES) {
    await t.test(name, async () => {
      for (const [id, spec] of Object.entries(policies)) await it.put(id, spec);
      for (const [id, spec] of Object.entries(cluster)) await it.put(id, spec, { kind: "ClusterEgressPolicy", namespace: "namegate" });
      const from = it.agent.events().length;
      for (const [what, where, port, ok] of rows) {
        if (what === "ask") {
          const { resolved, connected } = await client.resolveThenConnect({ name: where, port, send: "x" });
          assert.equal(connected?.ok ?? false, ok, `${where}:${port} by name: ${connected?.code ?? resolved.code}`);
        } else {
          const got =
            what === "tcp"
              ? await client.connect({ host: where, port, send: "x" })
              : await client.datagram({ host: where, port, send: "x", timeoutMs: 1000 });
          assert.equal(got.ok, ok, `${what} ${where}:${port}: ${got.code}`);
          if (!ok) assert.match(String(got.code), /ECONNREFUSED|EHOSTUNREACH|EACCES/, "denied at once");
          // (One that the kernel repeats from its cache has been spoken of before.)
          if (!ok)
            await it.agent.event("denial", (e) => e.verdict === "deny" && e.destination?.address === where && e.destination.port === port, {
              from,
            });
        }
      }
    });
    await t.test(`${name}: and without a policy everything goes`, async () => {
      for (const id of [...Object.keys(policies), ...Object.keys(cluster)]) await it.drop(id);
      assert.equal((await client.connect({ host: OUT.evil, port: 443, send: "x" })).data, "x");
    });
  }
});

test("a denied query is refused, or goes, as `dns.queries` says", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t);
  const client = await it.client("checkout");
  await it.put("p", enforce([accept([names("*.stripe.com")], [tcp(443)])], { dns: { queries: "AllowedOnly" } }));
  const from = it.agent.events().length;
  assert.equal((await client.resolve({ name: "evil.example.net" })).code, "EREFUSED");
  const refused = await it.agent.event("refused", (e) => e.type === "dns", { from });
  assert.deepEqual([refused.why, refused.destination?.names], ["name-not-allowed", ["evil.example.net"]]);
  assert.equal((await client.resolve({ name: "api.stripe.com" })).ok, true);
  await it.put(
    "p",
    enforce([accept(undefined), { name: "never", ...(deny([names("*.example.net")]) as object) }], { dns: { queries: "AllowedOnly" } }),
  );
  assert.equal((await client.resolve({ name: "evil.example.net" })).code, "EREFUSED", "Deny by name works on the query");
  const named = await it.agent.event("refused by a rule", (e) => e.type === "dns" && e.rule === "never", { from });
  assert.equal(named.why, "denied-by-rule");
  assert.equal((await client.resolve({ name: "bank.example.com" })).ok, true, "a rule for any destination allows any other name");
  await it.put("p", enforce([accept([names("*.stripe.com")], [tcp(443)])]));
  assert.equal((await client.resolve({ name: "evil.example.net" })).ok, true, "all names may be asked for by default");
});
