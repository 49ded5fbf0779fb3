import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp, type Ip } from "../../src/base/address.ts";
import type { Iptables } from "../../src/firewall/iptables.ts";
import { NO_POD_RULES, RuleKeeper } from "../../src/firewall/keeper.ts";
import { marks } from "../../src/firewall/marks.ts";
import { drift, restoreText } from "../../src/firewall/plan.ts";
import { ALL_MATCHES, wantedRules } from "../../src/firewall/rules.ts";
import { readSaved } from "../../src/firewall/saved.ts";

const OPTIONS = { marks: marks(), queueBase: 4040, matches: ALL_MATCHES };
const DENY_JUMP = "-m connmark --mark 0x1040/0x3040 -j NG-DENY";
const BUILTIN: Readonly<Record<string, readonly string[]>> = {
  raw: ["PREROUTING", "OUTPUT"],
  mangle: ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
  filter: ["INPUT", "FORWARD", "OUTPUT"],
  security: ["INPUT", "FORWARD", "OUTPUT"],
};

/** iptables as we use it, with its own error rules: one commit is all or nothing, and a name must exist. */
class FakeIptables implements Iptables {
  readonly variant = "nft";
  readonly reason = "a fake";
  readonly tables = new Map<string, Map<string, string[]>>();
  commits = 0;

  table(family: number, table: string): Map<string, string[]> {
    const key = `${family}${table}`;
    const found = this.tables.get(key) ?? new Map((BUILTIN[table] as string[]).map((chain) => [chain, []]));
    this.tables.set(key, found);
    return found;
  }

  async save(family: 4 | 6, table: string): ReturnType<Iptables["save"]> {
    return { chains: new Map([...this.table(family, table)].map(([chain, rules]) => [chain, [...rules]])) };
  }

  async saveAll(): Promise<string> {
    return "";
  }

  async restore(family: 4 | 6, text: string): Promise<void> {
    let name = "";
    let next = new Map<string, string[]>();
    const chainOf = (chain: string): string[] => {
      const rules = next.get(chain);
      assert.ok(rules, `no chain ${chain} in ${name}`);
      return rules;
    };
    for (const line of text.split("\n")) {
      const [word = "", chain = "", ...rest] = line.split(" ");
      if (line.startsWith("*")) {
        name = line.slice(1);
        next = new Map([...this.table(family, name)].map(([key, rules]) => [key, [...rules]]));
      } else if (line.startsWith(":")) next.set(word.slice(1), []);
      else if (word === "-A") {
        const target = rest[rest.findIndex((one) => one === "-j" || one === "-g") + 1] as string;
        assert.ok(!target.startsWith("NG-") || next.has(target), `${chain} goes to ${target}, which is not there`);
        chainOf(chain).push(rest.join(" "));
      } else if (word === "-I") chainOf(chain).splice(Number(rest[0]) - 1, 0, rest.slice(1).join(" "));
      else if (word === "-D") {
        const at = chainOf(chain).indexOf(rest.join(" "));
        assert.ok(at >= 0, `nothing to delete: ${line}`);
        chainOf(chain).splice(at, 1);
      } else if (word === "-F") chainOf(chain).length = 0;
      else if (word === "-X") {
        for (const rules of next.values())
          for (const rule of rules) assert.ok(!new RegExp(`-[jg] ${chain}$`).test(rule), `${chain} is still referred to`);
        next.delete(chain);
      } else if (line === "COMMIT") {
        this.tables.set(`${family}${name}`, next);
        this.commits++;
      } else assert.equal(line, "");
    }
  }
}

test("install, and nothing differs; install again, and nothing doubles", async () => {
  const iptables = new FakeIptables();
  const keeper = new RuleKeeper(iptables, OPTIONS);
  await keeper.install();
  assert.deepEqual(await keeper.check(), []);
  const before = JSON.stringify([...iptables.tables].map(([key, chains]) => [key, [...chains]]));
  await new RuleKeeper(iptables, OPTIONS).install();
  assert.equal(
    JSON.stringify([...iptables.tables].map(([key, chains]) => [key, [...chains]])),
    before,
    "a restarted agent takes over what is there",
  );
  assert.deepEqual(iptables.table(4, "mangle").get("PREROUTING"), ["-j NG-ADMIT"]);
});

test("no jump waits for a connection: what is untracked or invalid has none, and must come to us all the same", () => {
  for (const family of [4, 6] as const)
    for (const { jumps } of wantedRules({ ...OPTIONS, family, queries: true, bridged: true, behind: true }))
      for (const { match = "" } of jumps) assert.doesNotMatch(match, /connmark !|conntrack !/);
});

const TAMPERING: readonly [string, (chains: Map<string, string[]>) => void, string][] = [
  ["a chain flushed", (c) => c.set("NG-ADMIT", []), "altered-chain"],
  ["a rule deleted", (c) => c.get("NG-ADMIT")?.splice(3, 1), "altered-chain"],
  ["a rule added", (c) => c.get("NG-VERDICT")?.unshift("-j ACCEPT"), "altered-chain"],
  ["rules in another order", (c) => c.get("NG-ADMIT")?.reverse(), "altered-chain"],
  ["a chain deleted", (c) => c.delete("NG-MONITOR"), "missing-chain"],
  ["our jump deleted", (c) => c.set("PREROUTING", []), "missing-jump"],
  ["a rule in front of our jump", (c) => c.get("PREROUTING")?.unshift("-j ACCEPT"), "shadowed-jump"],
  ["everything flushed", (c) => c.forEach((rules) => (rules.length = 0)), "missing-jump"],
];
for (const [what, tamper, kind] of TAMPERING) {
  test(`${what}: found, restored, and the rules of others stay`, async () => {
    const iptables = new FakeIptables();
    iptables.table(6, "mangle").get("PREROUTING")?.push("-p tcp -j TCPMSS --clamp-mss-to-pmtu");
    const keeper = new RuleKeeper(iptables, OPTIONS);
    await keeper.install();
    tamper(iptables.table(6, "mangle"));
    const foreign = iptables
      .table(6, "mangle")
      .get("PREROUTING")
      ?.filter((rule) => !rule.includes("NG-"));
    const found = await keeper.check();
    assert.ok(
      found.some((one) => one.kind === kind && one.family === 6 && one.table === "mangle"),
      JSON.stringify(found),
    );
    await keeper.restore(found);
    assert.deepEqual(await keeper.check(), []);
    assert.deepEqual(iptables.table(6, "mangle").get("PREROUTING"), ["-j NG-ADMIT", ...(foreign ?? [])]);
  });
}

test("the kernel's programs stand before the queue that they spare, where all of a connection comes by", () => {
  for (const family of [4, 6] as const) {
    const rules = (options: object): string[] =>
      wantedRules({ ...OPTIONS, family, queries: false, bridged: false, behind: false, ...options }).flatMap(({ chains }) =>
        chains.flatMap((chain) => chain.rules.map((rule) => `${chain.name} ${rule}`)),
      );
    const pinned = rules({ hellos: "/sys/fs/bpf/x" }).filter((rule) => rule.includes("--object-pinned"));
    assert.deepEqual(
      pinned.map((rule) => `${rule.split(" ")[0]} ${/pinned \/sys\/fs\/bpf\/x\/(\w+)/.exec(rule)?.[1]}`),
      ["NG-JUDGED early", "NG-JUDGED hello", "NG-JUDGED hello", "NG-VERDICT open", "NG-INSPECT answer"],
    );
    const judged = rules({ hellos: "/sys/fs/bpf/x" }).filter((rule) => rule.startsWith("NG-JUDGED"));
    assert.ok(judged.findIndex((rule) => rule.includes("NFQUEUE")) > judged.findLastIndex((rule) => rule.includes("pinned")));
    for (const rule of pinned.filter((one) => one.includes("/hello"))) assert.match(rule, /! --ctstate DNAT --ctdir ORIGINAL/);
    for (const options of [{}, { hellos: "/x", behind: true }]) assert.ok(!rules(options).some((rule) => rule.includes("pinned")));
  }
});

test("Calico's jump may stay in front of ours; anybody else's may not", () => {
  const wanted = wantedRules({ ...OPTIONS, family: 4, queries: true, bridged: false, behind: false }).find(
    ({ table }) => table === "filter",
  );
  assert.ok(wanted);
  const saved = readSaved(":FORWARD ACCEPT [0:0]\n-A FORWARD -m comment --comment cali:x -j cali-FORWARD\n-A FORWARD -j KUBE-FORWARD\n");
  assert.match(restoreText(wanted, saved), /^-I FORWARD 2 -m connmark --mark 0x1040\/0x3040 -j NG-DENY$/m);
  const installed = new Map(wanted.chains.map(({ name, rules }) => [name, rules] as const));
  const chains = (forward: string[]) => ({
    chains: new Map<string, readonly string[]>([...installed, ["INPUT", [DENY_JUMP]], ["FORWARD", forward]]),
  });
  assert.deepEqual(drift(wanted, chains(["-m comment --comment cali:x -j cali-FORWARD", DENY_JUMP]), installed), []);
  assert.deepEqual(
    drift(wanted, chains(["-j KUBE-FORWARD", DENY_JUMP]), installed).map(({ kind }) => kind),
    ["shadowed-jump"],
  );
});

test("bridged pods fill one chain, and leave it again; without any of them nobody goes by it", async () => {
  const iptables = new FakeIptables();
  const keeper = new RuleKeeper(iptables, OPTIONS);
  await keeper.install();
  const asked = (): boolean[] =>
    ([4, 6] as const).map((of) => iptables.table(of, "mangle").get("NG-ADMIT")?.includes("-j NG-BRIDGE") ?? false);
  assert.deepEqual(asked(), [false, false]);
  await keeper.change({ ...NO_POD_RULES, bridged: [{ port: "veth1", addresses: [parseIp("10.1.0.5") as Ip, parseIp("fd00::5") as Ip] }] });
  assert.match(
    (iptables.table(4, "mangle").get("NG-BRIDGE") ?? []).join("\n"),
    /-s 10\.1\.0\.5\/32 -m physdev --physdev-in veth1 -j RETURN/,
  );
  assert.doesNotMatch((iptables.table(4, "mangle").get("NG-BRIDGE") ?? []).join("\n"), /fd00/);
  assert.match((iptables.table(6, "mangle").get("NG-BRIDGE") ?? []).join("\n"), /-s fd00::5\/128/);
  assert.deepEqual(asked(), [true, true]);
  assert.deepEqual(await keeper.check(), []);
  const commits = iptables.commits;
  await keeper.change({ ...NO_POD_RULES, bridged: [{ port: "veth2", addresses: [parseIp("10.1.0.6") as Ip] }] });
  assert.equal(iptables.commits, commits + 2, "another bridged pod: one chain of each family");
  assert.match((iptables.table(4, "mangle").get("NG-BRIDGE") ?? []).join("\n"), /10\.1\.0\.6/);
  assert.deepEqual(asked(), [true, true]);
  await keeper.change(NO_POD_RULES);
  assert.deepEqual(iptables.table(4, "mangle").get("NG-BRIDGE"), []);
  assert.deepEqual(asked(), [false, false]);
  assert.deepEqual(await keeper.check(), []);
});

test("a bridge change that failed is found by the next check", async () => {
  const iptables = new FakeIptables();
  const keeper = new RuleKeeper(iptables, OPTIONS);
  await keeper.install();
  const restore = iptables.restore.bind(iptables);
  iptables.restore = () => Promise.reject(new Error("the lock is taken"));
  await assert.rejects(keeper.change({ ...NO_POD_RULES, bridged: [{ port: "veth1", addresses: [parseIp("10.1.0.5") as Ip] }] }));
  iptables.restore = restore;
  await keeper.restore(await keeper.check());
  for (const of of [4, 6] as const) {
    const mangle = iptables.table(of, "mangle");
    assert.equal(mangle.get("NG-BRIDGE")?.length, of === 4 ? 4 : 3);
    assert.ok(mangle.get("NG-ADMIT")?.includes("-j NG-BRIDGE"));
  }
});

test("the hook that reads queries is there only while some pod is restricted", async () => {
  const iptables = new FakeIptables();
  const keeper = new RuleKeeper(iptables, OPTIONS);
  await keeper.install();
  const entry = (): readonly string[] => iptables.table(4, "raw").get("PREROUTING") ?? [];
  assert.deepEqual(entry(), []);
  await keeper.change({ ...NO_POD_RULES, queries: true });
  assert.deepEqual(entry(), ["-j NG-RAW"]);
  assert.deepEqual(await keeper.check(), []);
  await keeper.change(NO_POD_RULES);
  assert.deepEqual(entry(), []);
  assert.ok(!iptables.table(4, "raw").has("NG-RAW"));
  assert.deepEqual(await keeper.check(), []);
});

test("what an older version left behind goes when this one installs", async () => {
  const iptables = new FakeIptables();
  const mangle = iptables.table(4, "mangle");
  mangle.set("NG-OLD", ["-j NG-OLDER"]).set("NG-OLDER", []).get("FORWARD")?.push("-j NG-OLD", "-j KUBE-FORWARD");
  await new RuleKeeper(iptables, OPTIONS).install();
  const after = iptables.table(4, "mangle");
  assert.deepEqual(after.get("FORWARD"), ["-j KUBE-FORWARD"]);
  assert.ok(!after.has("NG-OLD") && !after.has("NG-OLDER"));
});

test("uninstall leaves nothing of ours and everything of others", async () => {
  const iptables = new FakeIptables();
  iptables.table(4, "filter").get("FORWARD")?.push("-j KUBE-FORWARD");
  const keeper = new RuleKeeper(iptables, OPTIONS);
  await keeper.install();
  await keeper.remove();
  await keeper.remove(); // nothing left to remove is no error
  const left = JSON.stringify([...iptables.tables.values()].map((chains) => [...chains]));
  assert.doesNotMatch(left, /NG-/);
  assert.match(left, /KUBE-FORWARD/);
});
