import assert from "node:assert/strict";
import { test } from "node:test";
import { openBrowser } from "../support/browser.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { CHECKOUT, OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

const AT = "127.0.0.1:9810";

test("the page of a running agent: what a pod is denied appears, is explained, and the page outlives a restart", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "chromium", "curl"] })) return;
  const args = ["--metrics", AT];
  const it = await shop(t, { policies: { checkout: CHECKOUT }, args });
  const browser = await openBrowser(t, ["ip", "netns", "exec", it.lab.ns("node")]);
  const tab = await browser.tab();
  await tab.goto(`http://${AT}/`);
  await tab.until("the mode", "document.querySelector('#mode').textContent === '✓ Enforce'");
  await tab.until("coverage", "/1 \\/ 1/.test(document.querySelector('#t-coverage')?.textContent)");
  await tab.until("the policy", "document.querySelector('#policies')?.textContent.includes('shop/checkout')");

  const client = await it.client("checkout");
  await client.resolve({ name: "evil.example.net" });
  assert.equal((await client.connect({ host: OUT.evil, port: 443 })).code, "ECONNREFUSED");
  await tab.until(
    "the denial",
    "[...document.querySelectorAll('.row.v-deny')].some((r) => /shop\\/checkout.*evil\\.example\\.net.*wrong-name/.test(r.textContent))",
  );
  await tab.click(".row.v-deny");
  await tab.until("the rule to paste", "/evil\\.example\\.net/.test(document.querySelector('#detail pre')?.textContent)");
  const said = await tab.eval<string>("document.querySelector('#detail').textContent");
  assert.match(said, /1 policy selects this podshop\/checkout/);
  assert.match(said, /Nearest: shop\/checkout\/stripe/);
  await tab.key("Escape");
  await tab.until(
    "the line in the picture",
    "document.querySelector('#picture .line.v-deny title')?.textContent.includes('shop/checkout → evil.example.net: denied')",
  );
  await tab.until("new today", "document.querySelector('#new').textContent.includes('evil.example.net')");
  assert.deepEqual(tab.errors, []);

  await it.agent.kill();
  await tab.until("it says that the agent is gone", "document.querySelector('#link').classList.contains('lost')");
  await it.start();
  await tab.until("it is back", "document.querySelector('#link').classList.contains('live')");
  await client.connect({ host: OUT.bank, port: 443 });
  await tab.until(
    "what the new agent says",
    `[...document.querySelectorAll('.row.v-deny')].some((r) => r.textContent.includes('${OUT.bank}'))`,
  );
  await tab.until(
    "what the one before said stays",
    "[...document.querySelectorAll('.row.v-deny')].some((r) => r.textContent.includes('evil.example.net'))",
  );
  for (const url of tab.requests) assert.ok(url.startsWith(`http://${AT}/`), url);

  const code = async (where: string, ...argv: string[]): Promise<string> =>
    (await it.lab.exec(where, ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", ...argv])).stdout;
  assert.equal(await code("node", `http://${AT}/data/status`), "200");
  assert.equal(await code("node", "-H", "Host: evil.example:9810", `http://${AT}/data/status`), "403");
  assert.equal(await code("checkout", `http://${AT}/`), "000", "a pod's loopback is its own");

  await it.agent.stop();
  const first = `http://${AT}/data/destinations`;
  await it.start();
  const kept = JSON.parse((await it.lab.exec("node", ["curl", "-s", first])).stdout) as { workloads: { edges: { to: string }[] }[] };
  assert.ok(
    kept.workloads.some(({ edges }) => edges.some(({ to }) => to === OUT.bank)),
    "first times outlive a stop",
  );
  await it.agent.stop();
  await it.start({ args: [...args, "--page", "off"] });
  assert.equal(await code("node", `http://${AT}/`), "404");
  assert.equal(await code("node", `http://${AT}/metrics`), "200");
});

test("metrics at an address of the node: the page is for its loopback only", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "curl"] })) return;
  const it = await shop(t, { policies: {}, args: ["--metrics", "0.0.0.0:9810"] });
  const node = await until(
    "an address of the node",
    async () => /inet (192\.0\.2\.\d+)/.exec((await it.lab.exec("node", ["ip", "-4", "addr"])).stdout)?.[1],
    5000,
  );
  const code = async (where: string, url: string, ...argv: string[]): Promise<string> =>
    (await it.lab.exec(where, ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", ...argv, url])).stdout;
  assert.equal(await code("node", "http://127.0.0.1:9810/"), "200");
  assert.equal(await code("node", `http://${node}:9810/`), "403");
  assert.equal(await code("node", `http://${node}:9810/`, "-H", "Host: localhost:9810"), "403");
  assert.equal(await code("node", `http://${node}:9810/metrics`), "200");
  assert.equal(await code("out", `http://${node}:9810/data/events`, "-H", "Host: localhost:9810"), "403");
  assert.equal(await code("out", `http://${node}:9810/metrics`), "200");
});
