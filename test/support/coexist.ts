import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodOptions } from "../../src/cli/lab-types.ts";
import { namegate, socketOf } from "./agent.ts";
import type { Client } from "./client.ts";
import { until } from "./lab.ts";
import { need } from "./need.ts";
import { serve } from "./servers.ts";
import { NAMES, OUT, SHOP_NEEDS, type Shop, shop } from "./shop.ts";

/**
 * Our rules beside another component's. A component is a small file that writes its rules as that component really does;
 * this harness proves with packets that both hold: the component first and then the agent, the agent first and then the
 * component, and after the component has rewritten what is its own, on top of ours.
 */
export interface Component {
  readonly name: string;
  /** The iptables variants that it writes. Default both. */
  readonly variants?: readonly Variant[];
  readonly commands?: readonly string[];
  /** Default `checkout` (guarded) and `plain` (no policy selects it), both routed. */
  readonly pods?: readonly PodOptions[];
  /** Names beside the shop's, and addresses of `out` for them. */
  readonly names?: Parameters<typeof shop>[1] extends infer O | undefined ? NonNullable<O extends { names?: infer N } ? N : never> : never;
  /** Pods that answer on port 80. */
  readonly echo?: readonly string[];
  /** It translates these ClusterIPs itself: `dns`, or `web` too. The lab's own rules for them are left out. */
  readonly services?: "dns" | "all";
  /** What this kernel lacks for it, that no package can bring. */
  readonly unable?: () => string | undefined;
  /** Further rules of checkout's policy. */
  readonly egress?: readonly unknown[];
  /** The table, as `family name`, that it has in nf_tables beside iptables. */
  readonly nftTables?: readonly string[];
  /** What it has beside rules: interfaces, addresses, sets, daemons. */
  readonly prepare?: (n: Neighbour) => Promise<void>;
  /** Writes its rules, as at its start. */
  readonly install: (n: Neighbour) => Promise<void>;
  /** What the agent must have noticed when it comes after us (a `rules-restored` event) before everything holds. */
  readonly noticed?: RegExp;
  /** What it does again and again, in the worst case: its jumps on top of whatever is there. */
  readonly refresh: (n: Neighbour) => Promise<void>;
  /** Does it still do what it is there for? */
  readonly works: (n: Neighbour) => Promise<void>;
}

type Variant = "nft" | "legacy";
type Family = 4 | 6;
export const FAMILIES = [4, 6] as const;

export interface Neighbour {
  readonly shop: Shop;
  readonly checkout: Client;
  readonly plain: Client;
  readonly variant: Variant;
  run(...argv: string[]): Promise<string>;
  /** `iptables-restore --noflush` of one table. */
  restore(family: Family, table: string, text: string): Promise<void>;
  /** Takes these rules of a built-in chain (`PREROUTING -j X`) away and puts them on top again, in this order. */
  toTop(family: Family, table: string, rules: readonly string[]): Promise<void>;
  /** How often the rules whose text has `part` have matched, in all. */
  hits(family: Family, table: string, part: string): Promise<number>;
}

/** A TLS service of the cluster, in every lab: its ClusterIPs, its port, and the endpoint outside that they mean. */
export const WEB = { name: "web.shop.svc.cluster.local", 4: "10.96.0.20", 6: "fd00:10:96::14", port: 8443 } as const;
export const WEB_ENDPOINT = { 4: OUT.bank, 6: OUT.evil6, port: 443 } as const;

/** Default deny; TLS by name, a plain port by name, and no other name may be asked for. */
const policyOf = (more: readonly unknown[], ports: readonly number[] = [443, 5432]) => ({
  mode: "Enforce",
  subject: { podSelector: { matchLabels: { app: "checkout" } } },
  dns: { queries: "AllowedOnly" },
  egress: [
    ...ports.map((port) => ({
      name: port === 443 ? "stripe" : "plain",
      action: "Accept",
      to: [{ domainNames: ["*.stripe.com"] }],
      ports: [{ protocol: "TCP", port }],
      ...(port === 443 ? { application: "tls" } : {}),
    })),
    { name: "web", action: "Accept", to: [{ domainNames: [WEB.name] }], ports: [{ port: WEB.port }], application: "tls" },
    ...more,
  ],
});

/** A refusal that comes at once, milliseconds: not a time-out of anybody. */
const AT_ONCE_MS = 1000;
const REVOKED_MS = 3000;
/** Two endpoints by chance: one is missed in all of them once in 2^16 runs. */
const SERVICE_TRIES = 8;

/** Registers the tests of one component. */
export function coexists(component: Component): void {
  for (const variant of component.variants ?? (["nft", "legacy"] as const)) {
    test(`${component.name} (iptables-${variant})`, async (t) => {
      if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, ...(component.commands ?? [])] })) return;
      const unable = component.unable?.();
      if (unable !== undefined) return t.skip(unable);
      const it = await shop(t, {
        iptables: variant,
        agent: false,
        pods: component.pods ?? [{ name: "checkout" }, { name: "plain" }],
        names: { ...NAMES, [WEB.name]: { A: [WEB[4]], AAAA: [WEB[6]] }, ...component.names },
        listen: [
          { kind: "https", port: 443 },
          { kind: "echo", port: 5432 },
          { kind: "echo", port: 80 },
          { kind: "udp-echo", port: 7000 },
        ],
        policies: { checkout: policyOf(component.egress ?? []) },
        args: ["--check-interval", "0.5"],
      });
      for (const pod of component.echo ?? []) await serve(it.lab, pod, [{ kind: "echo", port: 80 }]);
      const n = neighbour(it, variant, await it.client("checkout"), await it.client("plain"));
      if (component.services !== undefined) for (const family of FAMILIES) await n.restore(family, "nat", "-F PREROUTING\n-F OUTPUT");
      for (const family of component.services === "all" ? [] : FAMILIES)
        await it.lab.service({
          address: WEB[family],
          port: WEB.port,
          target: WEB_ENDPOINT[family],
          targetPort: WEB_ENDPOINT.port,
          protocols: ["tcp"],
        });
      await component.prepare?.(n);
      const empty = await savedOf(n, component);

      let alone = "";
      await t.test("the component is there first", async () => {
        await component.install(n);
        await component.refresh(n);
        alone = await savedOf(n, component);
        const open = await openConnection(n);
        await it.start();
        await proofs(n, component, open);
      });
      await t.test("it rewrites its rules on top of ours", async () => {
        const open = await openConnection(n);
        await component.refresh(n);
        await proofs(n, component, open);
      });
      await t.test("uninstalled: its rules are as they were, byte for byte", async () => {
        await it.agent.stop();
        await component.refresh(n);
        assert.equal((await namegate(it.lab, "uninstall", "--socket", socketOf(it.lab))).status, 0);
        assert.equal(await savedOf(n, component), alone);
        await component.works(n);
      });
      await t.test("the agent is there first", async () => {
        await removeAll(n, component, empty);
        await it.start();
        const open = await openConnection(n);
        const from = it.agent.events().length;
        await component.install(n);
        const { noticed } = component;
        if (noticed !== undefined)
          await it.agent.event("noticed", (e) => e.why === "rules-restored" && noticed.test(e.message ?? ""), { from });
        await proofs(n, component, open);
        await component.refresh(n);
      });
      await t.test("uninstalled again", async () => {
        await it.agent.stop();
        assert.equal((await namegate(it.lab, "uninstall", "--socket", socketOf(it.lab))).status, 0);
        assert.equal(await savedOf(n, component), alone);
        await component.works(n);
      });
    });
  }
}

function neighbour(it: Shop, variant: Variant, checkout: Client, plain: Client): Neighbour {
  const tool = (family: Family, what: string): string => `${family === 4 ? "iptables" : "ip6tables"}-${variant}${what}`;
  const n: Neighbour = {
    shop: it,
    checkout,
    plain,
    variant,
    run: (...argv) => it.lab.run("node", argv),
    restore: async (family, table, text) => {
      const lines = text.split("\n").flatMap((line) => (line.trim() === "" ? [] : [line.trim()]));
      const file = it.lab.file(`rules-${family}`, `*${table}\n${lines.join("\n")}\nCOMMIT\n`);
      await it.lab.run("node", [tool(family, "-restore"), "-w", "5", "--noflush", file]);
    },
    toTop: (family, table, rules) =>
      n.restore(family, table, [...rules.map((rule) => `-D ${rule}`), ...rules.toReversed().map((rule) => `-I ${rule}`)].join("\n")),
    hits: async (family, table, part) => {
      const text = await it.lab.run("node", [tool(family, "-save"), "-c", "-t", table]);
      const counts = text.split("\n").flatMap((line) => (line.includes(part) ? [Number(/^\[(\d+):/.exec(line)?.[1] ?? 0)] : []));
      return counts.reduce((sum, count) => sum + count, 0);
    },
  };
  return n;
}

/** Everybody else's rules, tables of nf_tables and sets, without counters and comments; built-in chains without rules say nothing. */
async function savedOf(n: Neighbour, component: Component): Promise<string> {
  const parts: string[] = [];
  for (const family of FAMILIES) {
    const text = await n.run(`${family === 4 ? "iptables" : "ip6tables"}-${n.variant}-save`);
    for (const table of text.split(/^\*/m).slice(1)) {
      const lines = table.split("\n").filter((line) => line !== "" && !line.startsWith("#") && line !== "COMMIT");
      if (lines.slice(1).some((line) => !/^:[A-Z]+ ACCEPT /.test(line)))
        parts.push(`${family} ${lines.map((line) => line.replace(/ \[\d+:\d+\]/, "")).join("\n")}`);
    }
  }
  for (const table of component.nftTables ?? [])
    parts.push((await n.shop.lab.exec("node", ["nft", "list", "table", ...table.split(" ")])).stdout.replace(/packets \d+ bytes \d+/g, ""));
  const sets = (await n.run("ipset", "save")).split("\n").filter((line) => !/^(create|add) ng-/.test(line));
  return [...parts.sort(), ...sets].join("\n");
}

/** Takes the component's rules away: what was before it is put back. */
async function removeAll(n: Neighbour, component: Component, empty: string): Promise<void> {
  for (const table of component.nftTables ?? []) await n.shop.lab.exec("node", ["nft", "delete", "table", ...table.split(" ")]);
  for (const family of FAMILIES) {
    for (const table of ["raw", "mangle", "nat", "filter", "security"]) {
      const before = empty.split(/^(?=[46] )/m).find((part) => part.startsWith(`${family} ${table}\n`));
      const chains = { raw: "PO", mangle: "PIFOQ", nat: "PIOQ", filter: "IFO", security: "IFO" }[table] ?? "";
      const names: Record<string, string> = { P: "PREROUTING", I: "INPUT", F: "FORWARD", O: "OUTPUT", Q: "POSTROUTING" };
      const text =
        before
          ?.split("\n")
          .slice(1)
          .filter((line) => /^[:-]/.test(line)) ?? [...chains].map((one) => `:${names[one]} ACCEPT`);
      const whole = text.map((line) => (line.startsWith(":") ? `${line} [0:0]` : line)).join("\n");
      const file = n.shop.lab.file(`rules-${family}`, `*${table}\n${whole}\nCOMMIT\n`);
      await n.run(`${family === 4 ? "iptables" : "ip6tables"}-${n.variant}-restore`, "-w", "5", file);
    }
  }
}

/** A server outside calls a pod of the node, and gets no answer. */
export async function closedToOutside(n: Neighbour): Promise<void> {
  const pod = n.shop.lab.pods.find(({ name }) => name === "plain");
  const came = await n.shop.lab.exec("out", ["ping", "-c", "1", "-W", "0.3", "-I", OUT.far, pod?.v4 as string]);
  assert.equal(came.status, 1, "the firewall lets nobody in");
}

/** The pods' own sources are hidden from the outside. */
export async function masquerades({ plain, shop: it }: Neighbour): Promise<void> {
  const from = it.out.seen().length;
  for (const host of [OUT.evil, OUT.evil6]) assert.equal((await plain.connect({ host, port: 80, send: "x" })).data, "x");
  const sources = await until("both calls are told", () => {
    const told = it.out
      .seen()
      .slice(from)
      .flatMap((seen) => (seen.port === 80 ? [seen.from] : []));
    return told.length === 2 ? told : undefined;
  });
  for (const source of sources) assert.doesNotMatch(source, /^(10\.244\.|fd00:10:244:)/, "masqueraded");
}

/** `shop.shop.svc.cluster.local` at `address`, with an endpoint `backend` on this node and one outside: both pods reach both. */
export async function serviceWorks({ checkout, plain, shop: it }: Neighbour, address: string, port: number): Promise<void> {
  const type = address.includes(":") ? "AAAA" : "A";
  const from = it.out.seen().length;
  const first = await checkout.resolveThenConnect({ name: "shop.shop.svc.cluster.local", type, port, send: "x" });
  assert.equal(first.connected?.data, "x", `a ClusterIP by name: ${JSON.stringify(first)}`);
  for (const client of [checkout, plain])
    for (let i = 0; i < SERVICE_TRIES; i++) assert.equal((await client.connect({ host: address, port, send: "x" })).data, "x");
  const outside = it.out.seen().slice(from).length;
  assert.ok(outside > 0 && outside < 2 * SERVICE_TRIES + 1, `both endpoints have a share: ${outside} went outside`);
}

/** A connection of the unguarded pod, to a place that checkout may not reach. */
async function openConnection({ plain }: Neighbour): Promise<number> {
  const open = await plain.connect({ host: OUT.evil, port: 5432, send: "hi", expect: 2, hold: true });
  assert.equal(open.data, "hi", "the unguarded pod connects");
  return open.hold as number;
}

/** What must hold whoever else is there. `open`: the unguarded pod's connection from before. */
async function proofs(n: Neighbour, component: Component, open: number): Promise<void> {
  const { shop: it, checkout, plain } = n;
  const TYPES = ["A", "AAAA"] as const;
  for (const type of TYPES) {
    const first = await checkout.resolveThenConnect({ name: "api.stripe.com", type, port: 5432, send: "x" });
    const said = `${JSON.stringify(first)}, after ${JSON.stringify(it.agent.events().slice(-3))}`;
    assert.equal(first.connected?.data, "x", `${type}: the first packet to an allowed name passes: ${said}`);
    assert.ok((first.connected?.connectMs ?? Infinity) < AT_ONCE_MS, `${type}: without a retransmission`);
    const host = type === "A" ? OUT.stripe : OUT.stripe6;
    const tls = await checkout.connect({ host, port: 443, serverName: "api.stripe.com" });
    assert.equal(tls.code, null, `${type}: the right server name passes`);
    const wrong = await checkout.connect({ host, port: 443, serverName: "paste.example.net" });
    assert.equal(wrong.code, "ECONNRESET", `${type}: a wrong server name is reset: ${JSON.stringify(wrong)}`);
    assert.ok(wrong.ms < AT_ONCE_MS, `${type}: at once: ${wrong.ms}`);
    const service = await checkout.resolveThenConnect({ name: WEB.name, type, port: WEB.port, serverName: WEB.name });
    assert.equal(service.connected?.code, null, `${type}: a ClusterIP is judged by its own address: ${JSON.stringify(service)}`);
    const lie = await checkout.connect({ host: type === "A" ? WEB[4] : WEB[6], port: WEB.port, serverName: "paste.example.net" });
    assert.equal(lie.code, "ECONNRESET", `${type}: and a wrong server name there is reset: ${JSON.stringify(lie)}`);
    assert.ok(lie.ms < AT_ONCE_MS, `${type}: at once: ${lie.ms}`);
    const other = await checkout.connect({ host: type === "A" ? OUT.evil : OUT.evil6, port: 5432 });
    assert.equal(other.code, "ECONNREFUSED", `${type}: another address is refused`);
    assert.ok(other.ms < AT_ONCE_MS, `${type}: at once: ${other.ms}`);
    const name = await checkout.resolve({ name: "evil.example.net", type });
    assert.equal(name.code, "EREFUSED", `${type}: another name is refused`);
    assert.equal((await plain.resolve({ name: "evil.example.net", type })).ok, true, `${type}: the unguarded pod asks for any`);
    const free = await plain.connect({ host: type === "A" ? OUT.evil : OUT.evil6, port: 5432, send: "x" });
    assert.equal(free.data, "x", `${type}: the unguarded pod goes anywhere`);
  }
  await component.works(n);
  await revoked(n, component);
  assert.equal(
    (await plain.talk({ hold: open, send: "on", expect: 2 })).data,
    "on",
    "an established connection of the unguarded pod goes on",
  );
  const status = await it.agent.status();
  assert.deepEqual([status.mode, status.effectiveMode], ["Enforce", "Enforce"]);
}

/** A policy that no longer has port 5432 ends the connections to it. */
async function revoked({ shop: it, checkout }: Neighbour, component: Component): Promise<void> {
  const live = await checkout.connect({ host: OUT.stripe, port: 5432, send: "x", hold: true });
  assert.equal(live.data, "x");
  await it.put("checkout", policyOf(component.egress ?? [], [443]));
  const hold = live.hold as number;
  const ended = await until(
    "the live connection is revoked",
    async () => {
      const talk = await checkout.talk({ hold, send: "x", timeoutMs: 300 });
      return talk.code === null ? undefined : talk;
    },
    REVOKED_MS,
  );
  assert.notEqual(ended.code, "ETIMEDOUT", "reset, not left hanging");
  await it.put("checkout", policyOf(component.egress ?? []));
  assert.equal((await checkout.connect({ host: OUT.stripe, port: 5432, send: "x" })).data, "x", "and allowed again");
}
