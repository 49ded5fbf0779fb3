import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { stamper } from "../src/alerts/stamp.ts";
import type { Lab } from "../src/cli/lab-types.ts";
import type { Event } from "../src/model/event.ts";
import { Destinations } from "../src/page/destinations.ts";
import { day, draft, random, RUN, status } from "../test/page/sample.ts";
import { servePage } from "../test/page/server.ts";
import { startAgent } from "../test/support/agent.ts";
import { openBrowser, type Tab } from "../test/support/browser.ts";
import { onPath } from "../test/support/need.ts";
import { benchNode, POLICY } from "./support/node.ts";
import { usageOf } from "./support/pods.ts";
import { putPolicy } from "../test/support/agent.ts";
import { type Figure, interleave, median, report } from "./support/report.ts";

const WORKLOAD =
  "The page when nobody looks: an agent with it and one without (resident after 10 s, three rounds), and the heap of a full table of destinations (1000 pairs, strings of their own). " +
  "When somebody looks, in headless Chromium 1440 × 900: 10 000 events from the navigation to the list, a filter on them until it is drawn, and what the page " +
  "needs while 2000 more events a second come for 5 s. On the clock also counts whatever else the machine does";
const PAIRS = 1000;
const SECONDS = 5;
const RATE = 2000;

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

function tableKb(): { kb: number; pushUs: number } {
  const stamp = stamper("b");
  const made = (i: number): Event => {
    const pod = { namespace: "shop", name: `app-${i % 100}`, labels: {}, serviceAccountName: "default" };
    // Not shared with anything else, as strings from another thread are.
    const name = Buffer.from(`host-${i}.some.example.com`).toString();
    const destination = { address: "198.51.100.1", port: 443, protocol: "TCP", names: [name] };
    return stamp({ type: "connection", verdict: "deny", why: "no-rule", pod, destination }, 0);
  };
  const tables: Destinations[] = [];
  const sizes: number[] = [];
  for (let round = 0; round < 7; round++) {
    gc();
    const before = process.memoryUsage().heapUsed;
    const table = new Destinations(0);
    tables.push(table);
    for (let i = 0; i < PAIRS; i++) table.push(made(i), i);
    gc();
    sizes.push((process.memoryUsage().heapUsed - before) / 1024);
  }
  const table = tables[0] as Destinations;
  const events = Array.from({ length: 50_000 }, (_, i) => made(i % PAIRS));
  const from = performance.now();
  for (const event of events) table.push(event, 1);
  return { kb: median(sizes), pushUs: ((performance.now() - from) / events.length) * 1000 };
}

async function residentMb(lab: Lab, page: "on" | "off"): Promise<number> {
  const agent = await startAgent(lab, { args: ["--metrics", "127.0.0.1:9810", "--page", page] });
  await sleep(10_000);
  const { residentMb: mb } = usageOf(agent.child.pid as number);
  await agent.stop();
  return mb;
}

async function agents(): Promise<Figure[]> {
  const node = await benchNode();
  try {
    putPolicy(node, "bench.yaml", POLICY);
    const mb = await interleave(3, { off: () => residentMb(node, "off"), on: () => residentMb(node, "on") });
    return [
      { what: "resident, agent without the page", value: median(mb.off), unit: "MB" },
      { what: "resident, agent with it, nobody looks", value: median(mb.on), unit: "MB" },
    ];
  } finally {
    await node.close();
  }
}

/** Milliseconds of CPU that the page's thread has taken since the navigation: scripts, styles, layout and painting of its own. */
async function cpuMs(tab: Tab): Promise<number> {
  const { metrics } = (await tab.send("Performance.getMetrics")) as { metrics: { name: string; value: number }[] };
  return (metrics.find(({ name }) => name === "TaskDuration")?.value ?? Number.NaN) * 1000;
}

async function filterMs(tab: Tab, filter: string): Promise<number> {
  return tab.eval(
    `new Promise((done) => { const from = performance.now(); location.hash = ${JSON.stringify(filter)}; addEventListener("hashchange", () => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - from))), { once: true }); })`,
  );
}

async function browser(): Promise<Figure[]> {
  if (!onPath("chromium")) {
    console.log("page: chromium is not here: nothing is measured in it (npm test as root installs it)");
    return [];
  }
  const ending: (() => unknown)[] = [];
  const scope = { after: (done: () => unknown) => void ending.unshift(done) };
  try {
    const now = Date.now();
    const { history, events } = day(10_000, now);
    const server = await servePage(scope, { history, events, status: async () => status(now) });
    const tab = await (await openBrowser(scope)).tab();
    await tab.send("Performance.enable", { timeDomain: "threadTicks" });
    const loads: { ms: number; cpu: number }[] = [];
    for (let i = 0; i < 3; i++) {
      const from = performance.now();
      await tab.goto(server.url);
      await tab.until("all events", "document.querySelector('#count').textContent.startsWith('10\\u202f000')");
      loads.push({ ms: performance.now() - from, cpu: await cpuMs(tab) });
    }
    const filters: { ms: number; cpu: number }[] = [];
    for (const filter of ["v=deny", "q=stripe", "v=deny&q=paste+checkout", "ns=shop&why=wrong-port", ""]) {
      const before = await cpuMs(tab);
      const ms = await filterMs(tab, filter);
      filters.push({ ms, cpu: (await cpuMs(tab)) - before });
    }
    const stamp = stamper(RUN);
    for (let i = 0; i < 10_000; i++) stamp({ type: "agent", verdict: "info" }, 0);
    const next = random(5);
    const before = await cpuMs(tab);
    const from = performance.now();
    for (let i = 0; i < SECONDS * 20; i++) {
      for (let j = 0; j < RATE / 20; j++) {
        const event = stamp(draft(next), Date.now());
        history.push(event);
        server.page.push(event);
      }
      await sleep(50);
    }
    await tab.until("the last one", `document.querySelector('[aria-posinset="1"]').id === 'e-${RUN}-${10_000 + SECONDS * RATE}'`);
    const [busy, took] = [(await cpuMs(tab)) - before, performance.now() - from];
    const heap = await tab.eval<number>("performance.memory.usedJSHeapSize");
    return [
      {
        what: "navigation until 10 000 events are listed: CPU of the page's thread",
        value: median(loads.map(({ cpu }) => cpu)),
        unit: "ms",
      },
      { what: "… on the clock", value: median(loads.map(({ ms }) => ms)), unit: "ms" },
      { what: "a filter on 10 000 events until it is drawn: CPU", value: median(filters.map(({ cpu }) => cpu)), unit: "ms" },
      { what: "… on the clock (two frames)", value: median(filters.map(({ ms }) => ms)), unit: "ms" },
      { what: `${RATE} more events a second: CPU of the page's thread`, value: (busy / took) * 100, unit: "%" },
      { what: "heap of the tab with 10 000 events", value: heap / 2 ** 20, unit: "MB" },
    ];
  } finally {
    for (const done of ending) await done();
  }
}

const { kb, pushUs } = tableKb();
const inBrowser = await browser();
report("page", WORKLOAD, [
  ...(await agents()),
  { what: `heap of a table of ${PAIRS} pairs`, value: kb, unit: "kB", target: { most: 512 } },
  { what: "an event into the table", value: pushUs, unit: "µs" },
  ...inBrowser,
]);
