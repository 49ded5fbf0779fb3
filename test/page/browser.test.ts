import assert from "node:assert/strict";
import { after, test, type TestContext } from "node:test";
import { History } from "../../src/alerts/history.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { EventDraft } from "../../src/model/event.ts";
import { type Browser, openBrowser, type Tab } from "../support/browser.ts";
import { need } from "../support/need.ts";
import { day, draft, HOST, HOSTILE, hostileDraft, random, RUN, status } from "./sample.ts";
import { type PageServer, servePage } from "./server.ts";

/** The page in headless Chromium, behind the server of the metrics. */
const NEEDS = { commands: ["chromium"] } as const;
const ROWS = "document.querySelectorAll('#rows .row:not([hidden])').length";

const atEnd: (() => unknown)[] = [];
after(async () => {
  for (const done of atEnd) await done();
});
let opened: Promise<Browser> | undefined;
/** One for all tests of this file. */
const browserOfAll = (): Promise<Browser> => (opened ??= openBrowser({ after: (done) => void atEnd.push(done) }));

interface Shown {
  readonly tab: Tab;
  readonly history: History;
  readonly server: PageServer;
  /** A new event; returns its id. */
  readonly push: (one: EventDraft) => string;
}

async function shown(t: TestContext, count: number, size?: Parameters<Browser["tab"]>[0]): Promise<Shown> {
  const now = Date.now();
  const { history, events } = day(count, now);
  const server = await servePage(t, { history, events, status: async () => status(now) });
  const tab = await (await browserOfAll()).tab(size);
  t.after(() => tab.send("Page.close"));
  await tab.goto(server.url);
  await tab.until("all events", `document.querySelector('#count').textContent.replace(/\\D/g, '') === '${Math.min(count, 10_000)}'`);
  await tab.until("the status", "document.querySelector('#t-coverage')");
  const stamp = stamper(RUN);
  for (let i = 0; i < count; i++) stamp({ type: "agent", verdict: "info" }, 0);
  const push = (one: EventDraft): string => {
    const event = stamp(one, Date.now());
    history.push(event);
    server.page.push(event);
    return event.id;
  };
  return { tab, history, server, push };
}

/** Nothing went wrong, and nothing was asked of anybody else. */
function clean({ tab, server }: Pick<Shown, "tab" | "server">): void {
  assert.deepEqual(tab.errors, []);
  assert.ok(tab.requests.length > 10);
  for (const url of tab.requests) assert.ok(url.startsWith(server.url), url);
}

const text = (tab: Tab, selector: string): Promise<string> =>
  tab.eval(`document.querySelector(${JSON.stringify(selector)})?.textContent ?? ""`);

test("mode, coverage, verdicts, picture, what is new, policies", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 400);
  const { tab } = it;
  assert.equal(await text(tab, "#mode"), "✓ Enforce");
  assert.equal(await text(tab, "#host"), HOST);
  assert.match(await text(tab, "#t-coverage"), /11 \/ 12/);
  assert.match(await text(tab, "#policies"), /billing\/invoices invalid, the last good version is in force/);
  await tab.until(
    "lines of each verdict",
    "['deny','would-deny','allow'].every((v) => document.querySelector(`#picture .line.v-${v} .ink`))",
  );
  const line = (verdict: string): Promise<{ stroke: string; dash: string }> =>
    tab.eval(
      `(() => { const s = getComputedStyle(document.querySelector('#picture .line.v-${verdict} .ink')); return { stroke: s.stroke, dash: s.strokeDasharray }; })()`,
    );
  assert.deepEqual(await line("deny"), { stroke: "rgb(179, 32, 26)", dash: "none" }, "denied is red");
  assert.deepEqual(await line("would-deny"), { stroke: "rgb(201, 130, 0)", dash: "6px, 4px" }, "would be denied is amber, and dashed");
  assert.ok((await tab.eval<number>("document.querySelectorAll('#new .item').length")) > 3);
  assert.equal(await tab.eval("document.querySelector('#new .icon').getAttribute('aria-label') !== null"), true);
  clean(it);
});

test("live: what happens appears at once, on top; who reads further down keeps his place; pause holds", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 300);
  const { tab, push } = it;
  const next = random(7);
  let id = push(draft(next));
  await tab.until("the new one on top", `document.querySelector('[aria-posinset="1"]').id === 'e-${id}'`);
  await tab.eval("void (document.querySelector('#list').scrollTop = 2000)");
  await tab.until("rows further down", `document.querySelector('#rows .row:not([hidden])').getAttribute('aria-posinset') > 20`);
  const top = `[...document.querySelectorAll('#rows .row:not([hidden])')].find((r) => r.getBoundingClientRect().top >= document.querySelector('#list').getBoundingClientRect().top).id`;
  const before = await tab.eval<string>(top);
  for (let i = 0; i < 5; i++) push(draft(next));
  await tab.until("it says how many are new", "document.querySelector('#newer').textContent === '▲ 5 new'");
  assert.equal(await tab.eval(top), before);
  await tab.click("#newer");
  await tab.until("the top again", "document.querySelector('#list').scrollTop === 0");
  await tab.click("#pause");
  id = push(draft(next));
  await tab.until("it is held", "document.querySelector('#newer').textContent === '▲ 1 new'");
  assert.equal(await tab.eval(`document.querySelector('#e-${id}') === null`), true);
  await tab.click("#pause");
  await tab.until("it is shown", `document.querySelector('#e-${id}')`);
  clean(it);
});

test("filters: verdict, search, namespace, policy, why; kept in the address", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 500);
  const { tab, server } = it;
  const count = async (): Promise<number> => Number(/^(\d+) of/.exec(await text(tab, "#count"))?.[1] ?? -1);
  await tab.click(".chipbutton.v-deny");
  await tab.until("only denied", `${ROWS} > 0 && document.querySelectorAll('#rows .row:not([hidden]):not(.v-deny)').length === 0`);
  const denied = await count();
  assert.ok(denied > 20 && denied < 500, String(denied));
  assert.equal(await tab.eval("document.querySelector('.chipbutton.v-deny').getAttribute('aria-pressed')"), "true");
  await tab.key("/");
  await tab.type("api.stripe.com shop/");
  await tab.until("fewer", `document.querySelector('#count').textContent.startsWith('${denied} ') === false`);
  assert.ok((await count()) < denied);
  const rows = await tab.eval<string[]>("[...document.querySelectorAll('#rows .row:not([hidden])')].map((r) => r.textContent)");
  assert.ok(rows.length > 0);
  for (const row of rows) assert.match(row, /shop\/.*api\.stripe\.com.*wrong-port/);
  const hash = await tab.eval<string>("location.hash");
  assert.equal(hash, "#v=deny&q=api.stripe.com+shop%2F");
  const pick = (id: string, value: string): Promise<void> =>
    tab.eval(
      `(() => { const s = document.querySelector('#${id}'); s.value = ${JSON.stringify(value)}; if (s.value !== ${JSON.stringify(value)}) throw new Error(s.textContent); s.dispatchEvent(new Event('change')); })()`,
    );
  await tab.click("#clear");
  await tab.until("all", "document.querySelector('#count').textContent === '500 events'");
  await pick("namespace", "billing");
  await pick("why", "no-rule");
  await pick("policy", "billing/ledger");
  await tab.until(
    "billing only",
    `${ROWS} > 0 && [...document.querySelectorAll('#rows .row:not([hidden]) .pod')].every((p) => p.textContent.startsWith('billing/ledger'))`,
  );
  await pick("why", "evasion").then(
    () => assert.fail("a why that never was can be chosen"),
    () => undefined,
  );
  await tab.goto("about:blank");
  await tab.goto(`${server.url}${hash}`);
  await tab.until(
    "the view from the address",
    "document.querySelector('#search').value === 'api.stripe.com shop/' && / of 500/.test(document.querySelector('#count').textContent)",
  );
  await tab.key("/");
  await tab.type("zzzz");
  await tab.until(
    "it says that nothing passes",
    "/No event passes/.test(document.querySelector('#empty').textContent) && !document.querySelector('#empty').hidden",
  );
  assert.deepEqual(tab.errors, []);
});

test("a click explains: an event with the rule to paste, a pair, a policy, coverage; all by keyboard too", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 300);
  const { tab, push } = it;
  const id = push({
    type: "connection",
    verdict: "deny",
    mode: "Enforce",
    why: "wrong-port",
    pod: { namespace: "shop", name: "checkout", labels: { app: "checkout" }, serviceAccountName: "pay" },
    policies: ["guardrails", "shop/checkout"],
    nearest: { policy: "shop/checkout", rule: "stripe", clause: "port" },
    destination: { address: "203.0.113.7", port: 8443, protocol: "TCP", names: ["api.stripe.com"] },
    source: { address: "10.244.0.11", port: 40_312, interface: "cali1" },
    evidence: { dns: [{ name: "api.stripe.com", via: "asked", fresh: true }], serverName: null, application: null, ja4: null },
  });
  await tab.until("it", `document.querySelector('#e-${id}')`);
  await tab.click(`#e-${id}`);
  await tab.until("a suggestion", "/allow-.*8443/s.test(document.querySelector('#detail pre')?.textContent ?? '')");
  const detail = await text(tab, "#detail");
  for (const words of [
    "shop/checkout → api.stripe.com",
    "A rule has this destination, but not this protocol and port.",
    "This pod resolved a name to this address",
    "guardrails, shop/checkout",
    "Nearest: shop/checkout/stripe",
    "Its clause “port” failed",
    "into spec.egress of shop/checkout",
    "203.0.113.7:8443/TCP",
    "10.244.0.11:40312 (cali1)",
    "app=checkout",
    id,
  ])
    assert.ok(detail.includes(words), `${words} is not in: ${detail}`);
  await tab.key("Escape");
  assert.equal(await tab.eval("document.querySelector('#detail').hidden"), true);
  await tab.eval("document.querySelector('#list').focus()");
  await tab.key("Home");
  await tab.key("ArrowDown");
  await tab.key("Enter");
  await tab.until("the second row", "!document.querySelector('#detail').hidden");
  const second = await tab.eval<string>("document.querySelector('[aria-posinset=\"2\"]').id.slice(2)");
  assert.ok((await text(tab, "#detail")).includes(second));
  assert.equal(await tab.eval("document.querySelector('#list').getAttribute('aria-activedescendant')"), `e-${second}`);
  await tab.key("ArrowDown");
  await tab.until("arrows go on explaining", `!document.querySelector('#detail').textContent.includes('${second}')`);
  await tab.key("Escape");
  await tab.click("#policies .item");
  assert.match(
    await text(tab, "#detail"),
    /billing\/invoices.*Invalid; its last good version is in force.*12:9: spec\.egress.*stripe.*orders-db/s,
  );
  await tab.key("Escape");
  await tab.click("#picture .nodes.from button");
  assert.match(await text(tab, "#detail"), /^[a-z]+\/[a-z]+✕\d+ destinations?Show the verdicts/);
  await tab.click("#detail .rowlist .item");
  assert.match(await text(tab, "#detail"), /Workload.*Destination.*First seen/);
  assert.ok(await tab.eval("document.querySelector('#picture .line.on') !== null"));
  await tab.key("Escape");
  await tab.click("#t-coverage");
  assert.match(await text(tab, "#detail"), /11 of 12 guarded pods enforced.*hostNetwork/s);
  clean(it);
});

test("hostile text in every place is text", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 20);
  const { tab, push } = it;
  const id = push(hostileDraft());
  await tab.until("the row", `document.getElementById('e-${id}')`);
  await tab.eval(`void document.getElementById('e-${id}').click()`);
  await tab.until("the detail", "document.querySelector('#detail dl')");
  await tab.until(
    "the pair in the picture",
    `[...document.querySelectorAll('#picture button')].some((b) => b.textContent.includes('<script>'))`,
    20_000,
  );
  const seen = await text(tab, "#detail");
  assert.ok(seen.includes("<img src=x onerror="), "it is shown as it is");
  assert.ok(seen.includes("\\u{202e}\\u{7}"), "and what cannot be seen is written out");
  assert.ok(!(await tab.eval<string>("document.body.innerText")).includes("\u202e"));
  assert.ok(HOSTILE.includes("\u202e"));
  const names = JSON.stringify([HOSTILE, '"><b>']);
  await tab.eval(`void (location.hash = new URLSearchParams({ q: ${names}[0], ns: ${names}[1] }).toString())`);
  await tab.until("a hostile address", "document.querySelector('#namespace').value === '\"><b>'");
  assert.equal(await tab.eval("window.pwned === undefined"), true);
  assert.equal(await tab.eval("document.querySelectorAll('img').length === 1 && document.querySelectorAll('script').length === 1"), true);
  clean(it);
});

test("markup out of text cannot run even if the page had such a fault", async (t) => {
  if (!need(t, NEEDS)) return;
  const { tab } = await shown(t, 5);
  const stopped = (code: string): Promise<boolean> => tab.eval(`(() => { try { ${code}; return false; } catch { return true; } })()`);
  assert.ok(await stopped("document.body.innerHTML = '<b>x</b>'"), "Trusted Types");
  assert.equal(
    await tab.eval(
      "new Promise((done) => { document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective), { once: true }); const i = document.createElement('img'); i.src = 'http://192.0.2.1/x'; document.body.append(i); })",
    ),
    "img-src",
  );
  assert.ok(tab.errors.length > 0, "and this test would see it in others");
});

test("10 000 events: few elements, and the page answers while more come", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 12_000);
  const { tab, push } = it;
  assert.ok((await tab.eval<number>("document.querySelectorAll('*').length")) < 1500);
  assert.ok((await tab.eval<number>(ROWS)) < 60);
  const next = random(3);
  for (let i = 0; i < 3000; i++) push(draft(next));
  await tab.until("the last one", `document.querySelector('[aria-posinset="1"]').id === 'e-${RUN}-15000'`);
  assert.ok((await tab.eval<number>("Number(document.querySelector('#count').textContent.replace(/\\D/g, ''))")) <= 10_500);
  await tab.eval("document.querySelector('#list').focus()");
  await tab.key("End");
  await tab.until(
    "the oldest that is kept",
    "Number(document.querySelector('[aria-selected=\"true\"]')?.getAttribute('aria-posinset')) >= 10000",
  );
  clean(it);
});

test("the agent restarts: the page says so, comes back by itself, and shows both runs", async (t) => {
  if (!need(t, NEEDS)) return;
  const it = await shown(t, 50);
  const { tab, server } = it;
  const { port, state } = server;
  await server.close();
  await tab.until("connection lost", "document.querySelector('#link').classList.contains('lost')");
  const history = new History();
  const stamp = stamper("second00");
  history.push(stamp(draft(random(11)), Date.now()));
  const again = await servePage(t, {
    history,
    status: async () => ({ ...status(Date.now()), effectiveMode: "None", ready: false }),
    run: "second00",
    port,
    state,
  });
  assert.equal(again.port, port);
  await tab.until("live again", "document.querySelector('#link').classList.contains('live')");
  await tab.until("the new run's event", "document.querySelector('#e-second00-1')");
  await tab.until(
    "what is wrong now",
    "/NOT READY/.test(document.querySelector('#mode').textContent) && /Not what the policies ask for/.test(document.querySelector('#warnings').textContent)",
  );
  assert.equal(await text(tab, "#count"), "51 events");
  for (const url of tab.requests) assert.ok(url.startsWith(server.url), url);
  // A refused connection is an entry of the browser's log, and the only one.
  for (const error of tab.errors) assert.match(error, /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET/);
});

for (const dark of [false, true])
  test(`360 px wide, ${dark ? "dark" : "light"}: nothing sticks out, and text can be read`, async (t) => {
    if (!need(t, NEEDS)) return;
    const it = await shown(t, 200, { width: 360, height: 740, dark });
    const { tab } = it;
    assert.equal(await tab.eval("document.documentElement.scrollWidth"), 360);
    await tab.click("#rows .row");
    await tab.until("the detail", "!document.querySelector('#detail').hidden");
    assert.equal(await tab.eval("document.documentElement.scrollWidth"), 360);
    const poor = await tab.eval<string[]>(CONTRAST);
    assert.deepEqual(poor, []);
    clean(it);
  });

/** Texts with a contrast below 4.5:1 to what is behind them (WCAG 2 §1.4.3), as `text: ratio`. */
const CONTRAST = `(() => {
  const rgb = (c) => (c.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; } return [255, 255, 255]; };
  const found = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim() !== '') || e.closest('[hidden], svg, noscript, .hidden')) continue;
    const s = getComputedStyle(e);
    const [a, b] = [light(rgb(s.color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.add(e.className + ' ' + e.textContent.slice(0, 30) + ': ' + ratio.toFixed(2));
  }
  return [...found];
})()`;
