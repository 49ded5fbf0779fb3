import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv } from "ajv";
import fc from "fast-check";
import { bound, cut, TEXT_MAX } from "../../src/alerts/formats/bound.ts";
import { cef, cefHeader, cefValue } from "../../src/alerts/formats/cef.ts";
import { ecs } from "../../src/alerts/formats/ecs.ts";
import { formatOf } from "../../src/alerts/formats/format.ts";
import { leef } from "../../src/alerts/formats/leef.ts";
import { ocsf } from "../../src/alerts/formats/ocsf.ts";
import { octetCounted, syslogMessage } from "../../src/alerts/formats/syslog.ts";
import { severityOf } from "../../src/alerts/severity.ts";
import { FORMATS, OCSF_VERSIONS } from "../../src/model/alerts.ts";
import { ROOT } from "../support/need.ts";
import { anyEvent } from "./any-event.ts";
import { ORIGIN, samples } from "./events.ts";
import { ECS_FIELDS, ECS_TYPES, OCSF_SCHEMAS } from "./facts.ts";

/** An event has at most this many octets in any format: what the spool and a datagram have to hold. */
const OCTETS_MAX = 512 * 1024;
const RUNS = { numRuns: 150 };
const ajv = new Ajv({ allErrors: true, allowUnionTypes: true });

test("golden lines", () => {
  const lines = [...FORMATS, "syslog" as const].flatMap((name) => [
    `# ${name}`,
    ...samples().map(([, event]) =>
      name === "syslog"
        ? syslogMessage(event, ORIGIN.host, 77, "local0", formatOf("json", ORIGIN, "1.8.0")(event))
        : formatOf(name, ORIGIN, "1.8.0")(event),
    ),
  ]);
  const file = join(ROOT, "test", "alerts", "golden", "formats.txt");
  const text = `${lines.join("\n")}\n`;
  // A change of a format is a change for somebody's SIEM: remove the file to have it written anew, and read the difference.
  if (!existsSync(file)) writeFileSync(file, text);
  assert.equal(text, readFileSync(file, "utf8"));
});

test("JSON is what its schema says, whoever wrote the values", () => {
  const check = ajv.compile(JSON.parse(readFileSync(join(ROOT, "src", "model", "event.schema.json"), "utf8")) as object);
  const json = formatOf("json", ORIGIN, "1.8.0");
  const valid = (line: string): void => assert.ok(check(JSON.parse(line)), `${ajv.errorsText(check.errors)}: ${line}`);
  for (const [, event] of samples()) valid(json(event));
  fc.assert(
    fc.property(anyEvent, (event) => valid(json(bound(event)))),
    RUNS,
  );
  assert.equal(check({ ...samples()[0]?.[1], extra: 1 }), false);
});

test("OCSF has the classes, numbers and required fields of the schema", () => {
  const checks = new Map(Object.entries(OCSF_SCHEMAS).map(([uid, schema]) => [Number(uid), ajv.compile(schema)]));
  const valid = (found: Record<string, unknown>): void => {
    const check = checks.get(found["class_uid"] as number);
    assert.ok(check !== undefined, String(found["class_uid"]));
    assert.ok(check(JSON.parse(JSON.stringify(found))), `${ajv.errorsText(check.errors)}: ${JSON.stringify(found)}`);
    assert.equal(found["type_uid"], (found["class_uid"] as number) * 100 + (found["activity_id"] as number));
  };
  for (const [name, event] of samples()) {
    for (const version of OCSF_VERSIONS) {
      const found = ocsf(event, ORIGIN, version);
      valid(found);
      assert.equal((found["metadata"] as { version: string }).version, version, name);
    }
  }
  const of = (name: string): Record<string, unknown> => ocsf(samples().find(([one]) => one === name)?.[1] as never, ORIGIN, "1.8.0");
  const facts = (name: string): unknown[] =>
    ["class_uid", "activity_id", "action_id", "disposition_id", "is_alert"].map((field) => of(name)[field]);
  assert.deepEqual(facts("allowed"), [4001, 1, 1, 1, false]);
  assert.deepEqual(facts("denied"), [4001, 5, 2, 2, true]);
  assert.deepEqual(facts("wouldDeny"), [4001, 1, 1, 19, true]);
  assert.deepEqual(facts("refusedQuery"), [4003, 6, 2, 2, true]);
  assert.deepEqual(facts("spoofed"), [4001, 5, 2, 6, true]);
  // What went through, and is worth a look; and a connection that was stopped, which no REFUSED answered.
  assert.deepEqual(facts("resolver"), [4003, 1, 1, 19, true]);
  assert.deepEqual(facts("overTls"), [4003, 1, 2, 2, true]);
  assert.deepEqual(facts("tunnel"), [4003, 6, 2, 2, true]);
  assert.deepEqual(
    ["resolver", "overTls", "tunnel"].map((name) => [of(name)["query"], of(name)["rcode"]]),
    [
      [{ hostname: "api.example.com" }, undefined],
      [undefined, undefined],
      [{ hostname: "6a6b6c.evil.example" }, "Refused"],
    ],
  );
  assert.deepEqual(facts("policy"), [0, 99, undefined, undefined, undefined]);
  fc.assert(
    fc.property(anyEvent, (event) => valid(ocsf(bound(event), ORIGIN, "1.8.0"))),
    RUNS,
  );
});

test("ECS has no field that ECS does not have, and no value of another type", () => {
  const valid = (made: Record<string, unknown>): void => {
    const found = JSON.parse(JSON.stringify(made)) as Record<string, unknown>; // as it is sent: without what is undefined
    const { namegate: _, ...rest } = found;
    for (const [path, value] of leaves(rest)) {
      const type = ECS_FIELDS[path];
      assert.ok(type !== undefined, `${path} is no field of ECS`);
      const of = (one: unknown): boolean => (type.startsWith("ip") ? isIP(one as string) > 0 : typeof one === type.replace(/s$/, ""));
      assert.ok(type.endsWith("s") ? Array.isArray(value) && value.every(of) : of(value), `${path}: ${JSON.stringify(value)}`);
    }
    const { category, type } = found["event"] as { category: string[]; type: string[] };
    for (const one of type) assert.ok(ECS_TYPES[category[0] as string]?.includes(one), `${category[0]}: ${one}`);
  };
  for (const [, event] of samples()) valid(ecs(event, ORIGIN));
  fc.assert(
    fc.property(anyEvent, (event) => valid(ecs(bound(event), ORIGIN))),
    RUNS,
  );
});

test("CEF: who reads it as the guide says gets back what was written, and nothing that was not", () => {
  const { header, fields } = readCef(cef(samples().find(([name]) => name === "hostile")?.[1] as never, ORIGIN));
  assert.deepEqual(header.slice(0, 7), ["CEF:0", "namegate", "namegate", "0.1.0", "connection.wrong-identity", "Connection denied", "8"]);
  assert.equal(fields.get("dhost"), "a|b=c\\d e.example");
  assert.match(fields.get("msg") as string, /^CEF:0\|x\|y\\z=1\nLEEF:2\.0\|/);
  assert.equal(cefHeader("a|b\\c\nd"), "a\\|b\\\\c d");
  assert.equal(cefValue("a=b\\c\r\nd\re|f\0g", 100), "a\\=b\\\\c\\nd\\re|f g");
  fc.assert(
    fc.property(anyEvent, (event) => {
      const line = cef(bound(event), ORIGIN);
      assert.doesNotMatch(line, /\p{Cc}/u);
      const read = readCef(line);
      assert.equal(read.header.length, 7);
      for (const key of read.fields.keys()) assert.match(key, /^(?:[a-z][A-Za-z0-9]*)$/);
      assert.equal(read.fields.get("externalId"), event.id);
      assert.equal(read.fields.get("cnt"), String(event.count));
    }),
    RUNS,
  );
});

test("LEEF: header fields and attributes cannot be broken out of", () => {
  fc.assert(
    fc.property(anyEvent, (event) => {
      const line = leef(bound(event), ORIGIN);
      assert.doesNotMatch(line.replaceAll("\t", ""), /\p{Cc}/u);
      const [version, vendor, product, , , delimiter] = line.split("|");
      assert.deepEqual([version, vendor, product, delimiter], ["LEEF:2.0", "namegate", "namegate", "x09"]);
      const body = line.split("|").slice(6).join("|");
      const pairs = body.split("\t").map((pair) => pair.split("=")[0] as string);
      assert.equal(new Set(pairs).size, pairs.length);
      for (const key of pairs) assert.match(key, /^[A-Za-z0-9]+$/);
    }),
    RUNS,
  );
});

/** RFC 5424 §6: what may stand where; the structured data as one element of the ABNF. */
const SYSLOG =
  /^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([\x21-\x7e]{1,255}) ([\x21-\x7e]{1,48}) ([\x21-\x7e]{1,128}) ([\x21-\x7e]{1,32}) \[([\x21-\x7e]{1,32})((?: [\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] (.*)$/s;

test("syslog: header and structured data are those of RFC 5424, and the length counts octets", () => {
  fc.assert(
    fc.property(anyEvent, (event) => {
      const body = JSON.stringify(bound(event));
      const message = syslogMessage(bound(event), "nöde 1\n", 77, "local0", body);
      const found = SYSLOG.exec(message);
      assert.ok(found !== null, message);
      assert.equal(found[3], "n_de_1_");
      assert.equal(found[9], body);
      assert.doesNotMatch(message, /[\r\n]/);
      const framed = octetCounted(message);
      const blank = framed.indexOf(0x20);
      assert.equal(Number(framed.subarray(0, blank).toString()), framed.length - blank - 1);
    }),
    RUNS,
  );
  const [, denied] = samples()[1] as [string, never];
  assert.match(syslogMessage(denied, "n", 1, "authpriv", "x"), /^<84>1 /); // 10 * 8 + 4
});

test("what somebody altered or lowered has a title of its own, in every reason there is", () => {
  const header = (name: string): string | undefined =>
    readCef(cef(samples().find(([one]) => one === name)?.[1] as never, ORIGIN)).header[5];
  assert.deepEqual(["resolver", "overTls", "tunnel", "changed", "suggested"].map(header), [
    "DNS with an untrusted resolver allowed",
    "DNS over TLS or QUIC denied",
    "Signs of a DNS tunnel denied",
    "Mode of a policy lowered",
    "Connection denied",
  ]);
  const { fields } = readCef(cef(samples().find(([one]) => one === "suggested")?.[1] as never, ORIGIN));
  assert.equal(fields.get("flexString1Label"), "suggestion");
  assert.match(fields.get("flexString1") as string, /^# for spec\.egress of shop\/checkout\n- name: "allow-/);
});

test("whatever the values, a line is bounded, and it is one line", () => {
  const huge = "é\n".repeat(5000);
  const labels = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`${huge}${i}`, huge]));
  const [, base] = samples()[0] as [string, never];
  const event = bound({
    ...(base as object),
    message: huge,
    policies: Array(100).fill(huge),
    pod: { namespace: huge, name: huge, labels, serviceAccountName: huge },
  } as never);
  for (const name of FORMATS) {
    const line = formatOf(name, ORIGIN, "1.8.0")(event);
    assert.ok(Buffer.byteLength(line) < OCTETS_MAX, `${name}: ${Buffer.byteLength(line)}`);
    assert.doesNotMatch(line, /[\r\n]/, name);
  }
  assert.equal(cut(`${"a".repeat(TEXT_MAX - 2)}😀😀`, TEXT_MAX), `${"a".repeat(TEXT_MAX - 2)}…`);
  const same = samples()[1]?.[1] as never;
  assert.equal(bound(same), same); // not copied
});

test("every type and verdict has a severity, and a worse verdict is never less", () => {
  assert.deepEqual(
    samples().map(([name, event]) => `${name} ${severityOf(event)}`),
    [
      "allowed info",
      "denied medium",
      "wouldDeny medium",
      "refusedQuery medium",
      "spoofed critical",
      "policy high",
      "hostile high",
      "resolver medium",
      "overTls medium",
      "tunnel high",
      "changed high",
      "suggested medium",
    ],
  );
  assert.equal(severityOf({ type: "connection", verdict: "deny", why: "constructor" }), "medium");
  assert.equal(severityOf({ type: "agent", verdict: "info", why: "degraded" }), "high");
  const info = (why: string): string => severityOf({ type: "agent", verdict: "info", why });
  assert.deepEqual(["effective-mode", "effective-mode-lowered", "stopped", "started"].map(info), ["low", "critical", "low", "low"]);
  assert.equal(severityOf({ type: "rules", verdict: "info", why: "rules-contended" }), "critical");
});

function* leaves(value: object, path = ""): Generator<[string, unknown]> {
  for (const [key, one] of Object.entries(value)) {
    const at = path === "" ? key : `${path}.${key}`;
    if (typeof one === "object" && one !== null && !Array.isArray(one)) yield* leaves(one as object, at);
    else yield [at, one];
  }
}

/** As a receiver does it: pipes and backslashes of the header, then `key=` at the start and behind unescaped blanks. */
function readCef(line: string): { header: string[]; fields: Map<string, string> } {
  const header: string[] = [];
  let at = 0;
  let field = "";
  while (header.length < 7) {
    const c = line[at++];
    assert.ok(c !== undefined, `a header field is missing: ${line}`);
    if (c === "\\") field += line[at++];
    else if (c === "|") {
      header.push(field);
      field = "";
    } else field += c;
  }
  const fields = new Map<string, string>();
  const rest = line.slice(at);
  const starts = [...rest.matchAll(/(?:^| )([A-Za-z0-9]+)(?<!\\)=/g)];
  for (const [i, start] of starts.entries()) {
    const value = rest.slice(start.index + start[0].length, starts[i + 1]?.index ?? rest.length);
    assert.ok(!fields.has(start[1] as string), `${start[1]} twice: ${line}`);
    fields.set(
      start[1] as string,
      value.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c === "r" ? "\r" : c)),
    );
  }
  return { header, fields };
}
