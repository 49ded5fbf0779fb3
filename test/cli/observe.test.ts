import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { stamper } from "../../src/alerts/stamp.ts";
import { readEvent } from "../../src/cli/event-read.ts";
import { eventText } from "../../src/cli/event-text.ts";
import { observe } from "../../src/cli/observe.ts";
import { Top } from "../../src/cli/observe-top.ts";
import { openView } from "../../src/cli/observe-view.ts";
import { painter } from "../../src/cli/terminal.ts";
import { Usage } from "../../src/cli/usage.ts";
import type { Event } from "../../src/model/event.ts";
import { anyEvent } from "../alerts/any-event.ts";
import { DRAFTS, NOW } from "../alerts/events.ts";
import { MAIN } from "../support/agent.ts";

const stamp = stamper("run");
const EVENTS: readonly Event[] = Object.values(DRAFTS).map((draft, i) => stamp(draft, NOW + i * 1000));
const lines = (events: readonly Event[]): string => events.map((event) => `${JSON.stringify(event)}\n`).join("");

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "namegate-observe-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

async function run(argv: readonly string[]): Promise<{ out: string; err: string }> {
  const said = { out: "", err: "" };
  const status = await observe(argv, {
    stdout: { write: (text) => void (said.out += text) },
    stderr: { write: (text) => void (said.err += text) },
  });
  assert.equal(status, 0);
  return said;
}
const ids = (out: string): number[] =>
  out
    .split("\n")
    .slice(0, -1)
    .map((line) => (JSON.parse(line) as Event).seq);

test("a file with what was rotated away from it, plain and gzip, and lines that are no events", async (t) => {
  const file = join(folder(t), "events.jsonl");
  const [a, b, c, d, e] = EVENTS as [Event, Event, Event, Event, Event];
  writeFileSync(`${file}.10.gz`, gzipSync(lines([a])));
  writeFileSync(`${file}.2`, lines([b]));
  writeFileSync(`${file}.1`, `${lines([c])}{"level":30,"msg":"a log line"}\nnot JSON\n\n{"x":"${"y".repeat(2_000_000)}"}\n`);
  writeFileSync(`${file}.bak`, "nonsense\n");
  writeFileSync(file, `${lines([d])}${JSON.stringify(e)}`); // the last line has no end yet
  const { out, err } = await run(["--file", file, "--file", `${file}.2`, "-o", "json"]);
  assert.deepEqual(
    ids(out),
    [a, b, c, d, e].map(({ seq }) => seq),
  );
  assert.equal(err, "namegate observe: 3 lines are no events, and were left out\n");
  assert.deepEqual(ids((await run(["--file", file, "-o", "json", "--last", "2"])).out), [d.seq, e.seq]);
  assert.equal((await run(["--file", file, "--last", "0"])).out, "");
  assert.deepEqual(ids((await run(["--file", file, "-o", "json", "--not", "--verdict", "allow", "--last", "1"])).out), [e.seq]);
  writeFileSync(`${file}.10.gz`, gzipSync(lines(EVENTS)).subarray(0, 40));
  await assert.rejects(run(["--file", file]), /events\.jsonl\.10\.gz cannot be read/);
  await assert.rejects(run(["--file", join(file, "..", "none")]), /there is no file/);
});

test("the standard input, as a user runs it", () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [MAIN, "observe", "--file", "-", "--verdict", "deny", "--why", "wrong-port"],
    {
      input: `starting\n${lines(EVENTS)}`,
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "" },
    },
  );
  assert.equal(status, 0, stderr);
  assert.equal(
    stdout.replace(/^\S+ (?=\S+ DENY)/, ""),
    "10:00:01.123 DENY       shop/checkout-0 → api.stripe.com [2001:db8::7]:8443/TCP wrong-port (nearest: shop/checkout/stripe, its port does not match) ×17 since 09:59:00 id run-2\n",
  );
});

test("the line says what an engineer on call needs", () => {
  const text = Object.fromEntries(Object.entries(DRAFTS).map(([name, draft], i) => [name, eventText(EVENTS[i] ?? stamp(draft, NOW))]));
  assert.match(
    text["allowed"] ?? "",
    /^10:00:00\.123 ALLOW {6}shop\/checkout-0 → api\.stripe\.com 203\.0\.113\.7:443\/TCP \[tls, server name api\.stripe\.com\] by shop\/checkout\/stripe$/,
  );
  assert.match(text["wouldDeny"] ?? "", /WOULD-DENY shop\/checkout-0 → 198\.51\.100\.9:53\/UDP denied-by-rule by guardrails\/never$/);
  assert.match(
    text["refusedQuery"] ?? "",
    /→ exfil\.example\.net 10\.96\.0\.10:53\/UDP \[query\] name-not-allowed \(no rule of shop\/checkout comes near\)$/,
  );
  assert.match(text["spoofed"] ?? "", /DENY {7}- → 192\.0\.2\.1:80\/TCP spoofed-source from 10\.244\.9\.9 on veth9$/);
  assert.match(text["policy"] ?? "", /INFO {7}- policy-invalid shop\.yaml:3:5: spec\.mode: must be one of the values/);
  const wrong = stamp(
    {
      ...(DRAFTS["denied"] as object),
      type: "connection",
      verdict: "deny",
      why: "evasion",
      message:
        "x 1.2.3.4:443/TCP: evasion: saw tls (segments that overlap and differ); no rule wants it (3 events of this pod were held back before this one)",
    },
    NOW,
  );
  assert.match(eventText(wrong), /evasion \(saw tls \(segments that overlap and differ\)/);
  const ping = stamp(
    {
      type: "connection",
      verdict: "deny",
      why: "no-rule",
      destination: { address: "2001:db8::1", port: 128 << 8, protocol: "ICMPv6", names: ["a.example", "b.example"] },
    },
    NOW,
  );
  assert.match(eventText(ping), /→ a\.example \(\+1 names\) 2001:db8::1 ICMPv6 type 128 code 0 no-rule$/);
});

test("nothing in an event reaches the terminal as a control, whatever the event is", () => {
  const CONTROLS = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u;
  fc.assert(
    fc.property(anyEvent, (event) => {
      assert.doesNotMatch(eventText(event), CONTROLS);
      const top = new Top(["pod", "name", "rule", "why"], "all");
      top.take(event);
      assert.doesNotMatch(top.text(5).replaceAll("\n", ""), CONTROLS);
    }),
    { numRuns: 300 },
  );
});

test("any JSON is an event that can be shown, or none", () => {
  const twisted = anyEvent.chain((event) =>
    fc
      .tuple(fc.constant(event), fc.constantFrom(...Object.keys(event)), fc.jsonValue())
      .map(([one, key, value]) => ({ ...one, [key]: value })),
  );
  fc.assert(
    fc.property(fc.oneof(twisted, fc.jsonValue()), (value) => {
      const event = readEvent(JSON.parse(JSON.stringify(value)));
      if (event !== undefined) assert.ok(eventText(event).length > 0);
    }),
    { numRuns: 500 },
  );
  const event = EVENTS[1] as Event;
  assert.deepEqual(readEvent(JSON.parse(JSON.stringify(event))), event);
});

test("colour on a terminal only, and not with NO_COLOR", () => {
  const at = (isTTY: boolean, environment: Record<string, string>): string => painter({ write: () => true, isTTY }, environment)(31, "x");
  assert.equal(at(true, {}), "\u001b[31mx\u001b[0m");
  assert.equal(at(true, { NO_COLOR: "1" }), "x");
  assert.equal(at(true, { TERM: "dumb" }), "x");
  assert.equal(at(false, {}), "x");
});

test("top: counts by what is asked for, bounded, and nothing is lost from the sums", async (t) => {
  const file = join(folder(t), "e");
  writeFileSync(file, lines(EVENTS));
  const { out } = await run(["--file", file, "--top", "why,verdict", "-o", "json", "--rows", "2"]);
  const rows = JSON.parse(out) as Record<string, unknown>[];
  assert.equal(rows.length, 2);
  assert.deepEqual([rows[0]?.["why"], rows[0]?.["denied"], rows[0]?.["events"]], ["wrong-port", 17, 17]);
  const top = new Top(["name"], "denied");
  const denial = EVENTS[1] as Event;
  const named = (name: string): Event => ({
    ...denial,
    count: 1,
    destination: { address: null, port: null, protocol: null, names: [name] },
  });
  for (let i = 0; i < 30_000; i++) {
    top.take(named(`n${i}.example`));
    if (i % 10 === 0) top.take(named("often.example"));
  }
  const text = top.text(1).split("\n");
  assert.match(text[1] ?? "", /^often\.example +3000 +0 +3000 /);
  const others = /^\((\d+) others\) +(\d+) /.exec(text[2] ?? "");
  assert.deepEqual([Number(others?.[1]), Number(others?.[2])], [30_000, 30_000]);
});

test("top on a terminal: drawn anew, no longer than the screen", () => {
  let text = "";
  const stdout = { isTTY: true, rows: 6, write: (more: string) => void (text += more) };
  const view = openView({ top: "why" }, "", { stdout, stderr: stdout }, { live: true });
  for (const event of EVENTS) view.take(event, event);
  view.end();
  const CLEARED = "\u001b[H\u001b[2J";
  assert.ok(text.startsWith(CLEARED));
  assert.match(text.slice(CLEARED.length), /^WHY +DENIED/);
  assert.equal(text.split("\n").length, 1 + 3 + 1 + 1, "the head, three groups, the others");
});

test("an agent that knows no filters: what comes is sorted out here", async (t) => {
  const path = join(folder(t), "old.sock");
  const asked: unknown[] = [];
  const server = createServer((socket) => {
    socket.once("data", (data) => {
      asked.push(JSON.parse(String(data)));
      socket.end(lines(EVENTS));
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => server.close());
  const { out } = await run([
    "--socket",
    path,
    "--no-follow",
    "-o",
    "json",
    "--not",
    "--type",
    "connection",
    "--pod",
    "shop/",
    "--since",
    "2026-11-26T00:00:00Z",
  ]);
  assert.deepEqual(
    ids(out),
    EVENTS.filter(({ type, pod }) => type !== "connection" && pod?.namespace === "shop").map(({ seq }) => seq),
  );
  assert.deepEqual(asked, [
    {
      command: "observe",
      last: 1_000_000,
      follow: false,
      filter: [
        { kind: "type", value: "connection", not: true },
        { kind: "pod", value: "shop/" },
        { kind: "since", value: "2026-11-26T00:00:00Z" },
      ],
    },
  ]);
  await assert.rejects(run(["--socket", path]), /the agent has ended the stream/);
});

test("wrong usage", async () => {
  const rows: readonly (readonly [string[], RegExp])[] = [
    [["extra"], /"extra": filters are options/],
    [["--not"], /no filter comes behind it/],
    [["--not", "--not", "--pod", "a"], /once is enough/],
    [["--follow", "--no-follow"], /--follow or --no-follow/],
    [["--file", "x", "--follow"], /a file is read to its end/],
    [["--last", "-1"], /--last/],
    [["--last", "1.5"], /--last 1\.5/],
    [["-o", "xml"], /-o xml: known formats are compact, table and json/],
    [["--top", ""], /--top "": known are/],
    [["--rows", "3"], /go with --top/],
    [["--top", "pod", "--rows", "0"], /--rows 0/],
    [["--top", "pod", "--sort", "x"], /--sort x/],
    [["--since", "5 minutes"], /--since "5 minutes"/],
  ];
  for (const [argv, says] of rows)
    await assert.rejects(
      observe(argv, { stdout: { write: () => true }, stderr: { write: () => true } }),
      (error) => error instanceof Usage && says.test(error.message),
      argv.join(" "),
    );
});
