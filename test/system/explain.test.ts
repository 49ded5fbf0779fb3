import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { explanationText } from "../../src/cli/explain-text.ts";
import { unpainted } from "../../src/cli/terminal.ts";
import type { Explanation } from "../../src/control/explain.ts";
import type { Event } from "../../src/model/event.ts";
import { explained, MAIN, namegate, socketOf } from "../support/agent.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

const HTTPS = [{ protocol: "TCP", port: 443 }];
const SUBJECT = { podSelector: { matchLabels: { app: "checkout" } } };
const POLICY = {
  mode: "Enforce",
  subject: SUBJECT,
  egress: [
    { name: "stripe", action: "Accept", to: [{ domainNames: ["*.stripe.com"] }], ports: HTTPS },
    {
      name: "web",
      action: "Accept",
      to: [{ domainNames: ["web.example.com"] }],
      ports: [{ protocol: "TCP", port: 8443 }],
      application: "tls",
    },
    { name: "echo", action: "Accept", to: [{ networks: ["203.0.113.0/24"] }], ports: [{ protocol: "UDP", port: 7000 }] },
    { name: "bank", action: "Accept", to: [{ domainNames: ["bank.example.com"] }], ports: HTTPS },
    { name: "never", action: "Deny", to: [{ networks: [`${OUT.evil}/32`] }] },
  ],
};
const SHORT = {
  mode: "Enforce",
  subject: SUBJECT,
  dns: { minTtl: "1s", grace: "0s" },
  egress: [{ name: "far", action: "Accept", to: [{ domainNames: ["far.example.com"] }], ports: HTTPS }],
};
const NAMES = {
  "api.stripe.com": { A: [OUT.stripe], AAAA: [OUT.stripe6], cname: ["edge.example.net"], ttl: 60 },
  "web.example.com": { A: [OUT.stripe], AAAA: [OUT.stripe6] },
  "other.example.net": { A: [OUT.bank] },
  "far.example.com": { A: [OUT.far], ttl: 1 },
  "evil.example.net": { A: [OUT.evil] },
  "rebound.stripe.com": { A: ["169.254.169.254"] },
};

const made = (t: Parameters<typeof shop>[0]): Promise<Shop> =>
  shop(t, {
    pods: [
      { name: "checkout" },
      { name: "free", labels: { app: "free" } },
      { name: "watched", labels: { app: "watched" } },
      { name: "heard", labels: { app: "heard" } },
    ],
    names: NAMES,
    listen: [
      { kind: "echo", port: 443 },
      { kind: "https", port: 8443 },
      { kind: "udp-echo", port: 7000 },
    ],
    policies: {
      checkout: POLICY,
      short: SHORT,
      watched: { mode: "Monitor", subject: { podSelector: { matchLabels: { app: "watched" } } }, egress: [] },
      heard: { mode: "Discover", subject: { podSelector: { matchLabels: { app: "heard" } } }, egress: [] },
    },
  });

interface Asked {
  readonly answer: Explanation;
  readonly text: string;
}
type Ask = (request: Parameters<typeof explained>[1]) => Promise<Asked>;

const asker =
  ({ lab }: Shop): Ask =>
  async (request) => {
    const answer = await explained(lab, request);
    return { answer, text: explanationText(answer, unpainted) };
  };

/** The verdict, and why or by which rule. */
const said = ({ answer }: Asked): string => {
  const one = answer.now?.cases[0];
  return `${one?.verdict} ${one?.why ?? one?.rule ?? (one?.resolver === true ? "resolver" : "")}`.trim();
};

test("explain says what happens, before it happens, and changes nothing", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "openssl", "conntrack"] })) return;
  const it = await made(t);
  const explain = asker(it);
  const client = await it.client("checkout");
  for (const name of Object.keys(NAMES)) if (name !== "far.example.com") await client.resolve({ name });
  await client.resolve({ name: "api.stripe.com", type: "AAAA" });

  const sets = async (): Promise<string> => await it.lab.run("node", ["sh", "-c", "ipset save | sed 's/timeout [0-9]*//' | sort"]);
  const before = [await sets(), it.agent.events().length, (await it.agent.status()).counters];
  const rows: readonly (readonly [to: string, says: string, host: string, port: number])[] = [
    ["api.stripe.com:443", "allow stripe", OUT.stripe, 443],
    [`${OUT.stripe}:443`, "allow stripe", OUT.stripe, 443],
    [`[${OUT.stripe6}]:443`, "allow stripe", OUT.stripe6, 443],
    ["api.stripe.com:8080", "deny wrong-port", OUT.stripe, 8080],
    ["other.example.net:443", "deny wrong-name", OUT.bank, 443],
    [`[${OUT.evil6}]:443`, "deny no-name", OUT.evil6, 443],
    [`${OUT.far}:443`, "deny wrong-port", OUT.far, 443],
    [`${OUT.evil}:443`, "deny denied-by-rule", OUT.evil, 443],
    ["evil.example.net:443", "deny denied-by-rule", OUT.evil, 443],
    [`${OUT.bank}:1234`, "deny no-rule", OUT.bank, 1234],
  ];
  const answers = new Map<string, Asked>();
  for (const [to, says] of rows) {
    const asked = await explain({ pod: "shop/checkout", to: to });
    assert.equal(said(asked), says, `${to}\n${asked.text}`);
    answers.set(to, asked);
  }
  assert.equal(said(await explain({ pod: "shop/checkout", to: `${OUT.far}:7000/udp` })), "allow echo");
  assert.equal(said(await explain({ pod: "shop/checkout", to: `${OUT.far}:7001/udp` })), "deny wrong-port");
  assert.equal(said(await explain({ pod: "shop/checkout", to: `${OUT.stripe}/icmp` })), "deny wrong-port");
  assert.equal(said(await explain({ pod: "shop/checkout", to: `${it.dnsAddress.v4}:53/udp` })), "allow resolver");
  assert.deepEqual([await sets(), it.agent.events().length, (await it.agent.status()).counters], before, "nothing was changed");

  await t.test("and then it happens", async () => {
    for (const [to, says, host, port] of rows) {
      const { code } = await client.connect({ host, port, ...(says.startsWith("allow") ? { send: "x" } : {}) });
      assert.equal(code, says.startsWith("allow") ? null : "ECONNREFUSED", to);
    }
    assert.equal((await client.datagram({ host: OUT.far, port: 7000, send: "x" })).ok, true);
  });

  await t.test("DNS with its age, TTL, resolver and chain; the binding; the rule to paste", () => {
    const allowed = answers.get("api.stripe.com:443") as Asked;
    const [heard] = allowed.answer.now?.heard ?? [];
    assert.deepEqual([heard?.name, heard?.answered?.ttl, heard?.answered?.chain], ["api.stripe.com", 60, ["edge.example.net"]]);
    assert.match(allowed.text, /^shop\/checkout → api\.stripe\.com:443\/TCP: allow by shop\/checkout\/stripe$/m);
    assert.match(allowed.text, /^DNS .*\n +api\.stripe\.com: answered \d+ s ago by [\d.]+, TTL 60 s, by the CNAMEs edge\.example\.net$/m);
    assert.match(allowed.text, /is api\.stripe\.com, \d+ s left \(a reply lasts its TTL, at least 30 s, and 30 s more\)/);
    assert.match(allowed.text, /=> shop\/checkout\/stripe decides: Accept \*\.stripe\.com, TCP 443/);
    assert.doesNotMatch(allowed.text, /To allow it/);
    const denied = answers.get("other.example.net:443") as Asked;
    assert.match(denied.text, /x {2}shop\/checkout\/stripe: names do not match: Accept \*\.stripe\.com, TCP 443/);
    assert.match(
      denied.text,
      /\nTo allow it, under spec\.egress of shop\/checkout:\n- name: "allow-other\.example\.net-443"\n {2}action: Accept\n/,
    );
  });

  await t.test("a wrong server name: asked, supposed, and as an event", async () => {
    const asked = await explain({ pod: "shop/checkout", to: "web.example.com:8443" });
    assert.equal(said(asked), "inspect web");
    assert.match(asked.text, /allow by shop\/checkout\/web, if the first bytes agree/);
    const place = { pod: "shop/checkout", to: "web.example.com:8443" };
    assert.equal(said(await explain({ ...place, serverName: "web.example.com" })), "allow web");
    assert.equal(said(await explain({ ...place, serverName: "paste.example.net" })), "deny wrong-server-name");
    const from = it.agent.events().length;
    await client.connect({ host: OUT.stripe, port: 8443, serverName: "paste.example.net", send: "x" });
    const event = await it.agent.event("wrong server name", (e) => e.why === "wrong-server-name", { from });
    const told = await explain({ id: event.id });
    assert.equal(told.answer.event?.id, event.id);
    assert.deepEqual([told.answer.replay?.cases[0]?.verdict, told.answer.replay?.cases[0]?.why], ["deny", "wrong-server-name"]);
    assert.match(told.text, /shop\/checkout\/web: the first bytes do not \(wrong-server-name\): Accept web/);
    assert.doesNotMatch(told.text, /not what the event says/);
  });

  await t.test("stale-dns", async () => {
    // What is open to that address would keep its name.
    await it.lab.run("node", ["conntrack", "-D", "-d", OUT.far]);
    await client.resolve({ name: "far.example.com" });
    await until(
      "stale",
      async () => said(await explain({ pod: "shop/checkout", to: "far.example.com:443" })) === "deny stale-dns",
      9000,
      500,
    );
    await client.connect({ host: OUT.far, port: 443 });
    const event = await it.agent.event("stale", (e) => e.why === "stale-dns");
    const asked = await explain({ pod: "shop/checkout", to: "far.example.com:443" });
    assert.equal(said(asked), "deny stale-dns");
    assert.match(asked.text, /is far\.example\.com, too old since \d+ s/);
    assert.match(asked.text, /nearest: shop\/short\/far, its name matches, but the DNS answer is too old/);
    assert.match(asked.text, /No rule to paste: .*dns\.grace/);
    await client.resolve({ name: "far.example.com" });
    await client.closeAll();
    const told = await explain({ id: event.id });
    assert.equal(told.answer.replay?.cases[0]?.why, "stale-dns", "as it was");
    assert.match(told.text, /^now +/m, "and as it is");
  });

  await t.test("a name that was never resolved, and one that there is not", async () => {
    const allowed = await explain({ pod: "shop/checkout", to: "new.stripe.com:443" });
    assert.equal(said(allowed), "allow stripe");
    assert.equal(allowed.answer.now?.cases[0]?.assumed, true);
    assert.match(allowed.text, /it has not resolved the name, as far as is known; what follows supposes that it does/);
    const denied = await explain({ pod: "shop/checkout", to: "new.example.org:443" });
    assert.equal(said(denied), "deny wrong-name");
    assert.match(denied.text, /domainNames: \["new\.example\.org"\]/);
    const rebound = await explain({ pod: "shop/checkout", to: "rebound.stripe.com:443" });
    assert.equal(said(rebound), "deny no-name", "it has been resolved, and opens nothing");
    assert.match(rebound.text, /169\.254\.169\.254: it has resolved nothing to this address: no name opens such an address/);
    await client.resolve({ name: "nowhere.stripe.com" });
    assert.match((await explain({ pod: "shop/checkout", to: "nowhere.stripe.com:443" })).text, /ago [\d.]+ said NXDOMAIN/);
  });

  await t.test("pods that nobody guards, that Monitor watches, that Discover hears, and that there are not", async () => {
    const free = await explain({ pod: "shop/free", to: `${OUT.bank}:443` });
    assert.match(free.text, /no policy selects it: it may go anywhere/);
    assert.equal(free.answer.now, null);
    assert.match((await explain({ pod: "shop/heard", to: `${OUT.bank}:443` })).text, /only Discover policies select it/);
    const watched = await explain({ pod: "shop/watched", to: `${OUT.bank}:443` });
    assert.equal(said(watched), "would-deny no-rule");
    assert.match(watched.text, /allow, and Monitor says would-deny: no-rule/);
  });

  await t.test("an event when its policy has changed", async () => {
    const event = it.agent.events().find((e) => e.why === "no-rule" && e.pod?.name === "checkout") as Event;
    await it.put("all", { mode: "Enforce", subject: SUBJECT, egress: [{ name: "all", action: "Accept" }] });
    const told = await explain({ id: event.id });
    assert.equal(told.answer.replay?.cases[0]?.rule, "all");
    assert.match(told.text, /this is not what the event says \(no-rule\): the policies have changed since/);
    await it.drop("all");
  });

  await t.test("the command: text, JSON, and what it refuses", async () => {
    const argv = ["explain", "--pod", "shop/checkout", "--to", "api.stripe.com:443", "--socket", socketOf(it.lab)];
    assert.match(
      (await namegate(it.lab, ...argv)).stdout,
      /^shop\/checkout → api\.stripe\.com:443\/TCP: allow by shop\/checkout\/stripe\n/,
    );
    const json = JSON.parse((await namegate(it.lab, ...argv, "-o", "json")).stdout) as Explanation;
    assert.deepEqual([json.to?.host, json.now?.cases[0]?.rule], ["api.stripe.com", "stripe"]);
    const rows: readonly (readonly [string[], RegExp])[] = [
      [["--pod", "shop/nobody", "--to", "a.example:1"], /no pod "shop\/nobody" on this node\n {2}fix: .*kubectl namegate/],
      [["zzz-1"], /no event "zzz-1" in this agent's memory \(it goes back to 20.*\)\n {2}fix: .*--file/],
    ];
    for (const [more, says] of rows) {
      const got = await namegate(it.lab, "explain", ...more, "--socket", socketOf(it.lab));
      assert.equal(got.status, 2, got.stdout);
      assert.match(got.stderr, says);
    }
  });

  await t.test("an event of a file, without an agent", async () => {
    const file = join(it.lab.dir, "events.jsonl");
    const events = it.agent.events();
    writeFileSync(file, `${events.map((event) => JSON.stringify(event)).join("\n")}\n`);
    await it.agent.stop();
    const event = events.find((e) => e.why === "wrong-port") as Event;
    const told = await namegate(it.lab, "explain", event.id, "--file", file);
    assert.equal(told.status, 0, told.stderr);
    assert.match(
      told.stdout,
      /DENY +shop\/checkout → api\.stripe\.com .*:8080\/TCP wrong-port[\s\S]*\nTo allow it, under spec\.egress of shop\/checkout:/,
    );
    const seen = await namegate(
      it.lab,
      "observe",
      "--file",
      file,
      "--why",
      "wrong-port",
      "--port",
      "8080",
      "--pod",
      "shop/check",
      "--last",
      "1",
    );
    assert.match(seen.stdout, new RegExp(`^(\\S+ )?\\S+ DENY .*id ${event.id}\n$`));
  });
});

test("with AllowedOnly a name that no rule has is refused as a query already", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: { ...POLICY, dns: { queries: "AllowedOnly" } } } });
  const explain = asker(it);
  const asked = await explain({ pod: "shop/checkout", to: "paste.example.net:443" });
  assert.equal(asked.answer.now?.query?.action, "refuse");
  assert.match(asked.text, /^shop\/checkout → paste\.example\.net:443\/TCP: its query would be refused$/m);
  assert.match(asked.text, /answered with REFUSED: name-not-allowed/);
  assert.match(asked.text, /domainNames: \["paste\.example\.net"\]/);
  const client = await it.client("checkout");
  await client.resolve({ name: "paste.example.net" });
  const event = await it.agent.event("refused query", (e) => e.type === "dns" && e.why === "name-not-allowed");
  const told = await explain({ id: event.id });
  assert.match(told.text, /name-not-allowed/);
  assert.equal(told.answer.now?.query?.action, "refuse");
});

test("observe: the agent filters, and --last counts what passes", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, { policies: { checkout: POLICY } });
  const client = await it.client("checkout");
  await client.connect({ host: OUT.evil, port: 443 });
  for (let port = 9000; port < 9020; port++) await client.connect({ host: OUT.bank, port });
  await it.agent.event("the last one", (e) => e.destination?.port === 9019);
  const observe = async (...argv: string[]): Promise<string[]> => {
    const got = await namegate(it.lab, "observe", "--no-follow", ...argv, "--socket", socketOf(it.lab));
    assert.equal(got.status, 0, got.stderr);
    return got.stdout.split("\n").slice(0, -1);
  };
  assert.equal((await observe("--to", `${OUT.evil}/32`, "--last", "1")).length, 1, "it lies further back than the last one");
  assert.equal((await observe("--port", "9000-9004", "--verdict", "deny", "--last", "50")).length, 5);
  assert.equal((await observe("--type", "connection", "--not", "--port", "9000-9018", "--not", "--to", OUT.evil)).length, 1);
  assert.match((await observe("--top", "pod,why")).join("\n"), /^POD +WHY +DENIED .*\nshop\/checkout +no-rule +20 +0 +20 /);
  assert.match((await observe("-o", "table", "--port", "9001"))[1] ?? "", /deny +shop\/checkout +- +198\.51\.100\.12:9001\/TCP +no-rule/);
  const bad = await namegate(it.lab, "observe", "--to", "nonsense", "--socket", socketOf(it.lab));
  assert.equal(bad.status, 2);
  assert.match(bad.stderr, /--to "nonsense": it is neither an address nor a network/);

  const live = it.lab.spawn("node", [process.execPath, MAIN, "observe", "-o", "json", "--port", "9100-9199", "--socket", socketOf(it.lab)]);
  await until("live", async () => {
    await client.connect({ host: OUT.bank, port: 9100 + (Math.floor(performance.now()) % 100) });
    return live.out[0];
  });
  assert.ok(live.out.every((line) => (JSON.parse(line) as Event).destination?.port !== undefined && !line.includes(OUT.evil)));
});
