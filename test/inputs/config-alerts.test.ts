import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { readConfig } from "../../src/inputs/config/read.ts";
import type { AlertSettings } from "../../src/model/alerts.ts";

const lines = (text: string): string[] =>
  readConfig("c", text).problems.map(
    ({ line, column, path, message, hint }) => `${line}:${column} ${path}: ${message}${hint === undefined ? "" : ` (${hint})`}`,
  );
function read(text: string): AlertSettings {
  const { settings, problems } = readConfig("c", text);
  assert.deepEqual(problems, []);
  assert.ok(settings?.alerts !== undefined);
  return settings.alerts;
}

test("no section: nothing changes; an empty one: folded, to stdout", () => {
  assert.equal(readConfig("c", "").settings?.alerts, undefined);
  assert.equal(readConfig("c", "alerts:\n").settings?.alerts, undefined);
  const { sinks, fold } = read("alerts: {}");
  assert.deepEqual(
    sinks.map(({ name, format, target }) => [name, format, target.kind]),
    [["stdout", "json", "stdout"]],
  );
  assert.deepEqual(fold, { windowMs: 60_000, podPerSecond: 20, nodePerSecond: 500 });
});

test("every field of every type is read", () => {
  const { sinks, fold, cluster } = read(`
alerts:
  cluster: prod
  fold: { window: 0s, podPerSecond: 1, nodePerSecond: 2 }
  sinks:
  - type: stdout
  - { type: file, name: f, path: /var/log/ng.log, size: 1Mi, keep: 2, format: leef, filter: { severity: low, types: [dns], verdicts: [deny], namespaces: [shop], policies: [shop/a, guardrails] } }
  - { type: syslog, name: s1, address: "[2001:db8::1]:514", transport: udp, facility: authpriv, spool: 2Mi }
  - { type: syslog, name: s2, address: "siem.example:6514", format: cef, tls: { caFile: /ca, certFile: /cert, keyFile: /key, serverName: siem } }
  - { type: syslog, name: s3, address: "127.0.0.1:601", transport: tcp, framing: newline }
  - { type: splunk, url: "https://hec.example:8088", tokenFile: /t, index: main, sourcetype: ng, ack: true, batch: { events: 10, bytes: 64Ki, linger: 1s, timeout: 5s } }
  - { type: elastic, url: "https://es.example/prefix", index: ng, apiKeyFile: /k }
  - { type: otlp, url: "http://otel.monitoring:4318", format: ocsf, ocsfVersion: 1.6.0 }
  - { type: webhook, url: "http://hook.example/x", secretFile: /s }
`);
  assert.deepEqual([cluster, fold], ["prod", { windowMs: 0, podPerSecond: 1, nodePerSecond: 2 }]);
  const none = { caFile: undefined, certFile: undefined, keyFile: undefined, serverName: undefined };
  const syslog = { kind: "syslog", facility: "local0", framing: "octet-counting", tls: none };
  assert.deepEqual(
    sinks.map(({ target }) => target),
    [
      { kind: "stdout" },
      { kind: "file", path: "/var/log/ng.log", maxBytes: 2 ** 20, keep: 2 },
      { ...syslog, transport: "udp", host: "2001:db8::1", port: 514, facility: "authpriv" },
      {
        ...syslog,
        transport: "tls",
        host: "siem.example",
        port: 6514,
        tls: { caFile: "/ca", certFile: "/cert", keyFile: "/key", serverName: "siem" },
      },
      { ...syslog, transport: "tcp", host: "127.0.0.1", port: 601, framing: "newline" },
      { kind: "splunk", url: "https://hec.example:8088", tls: none, tokenFile: "/t", index: "main", sourcetype: "ng", ack: true },
      { kind: "elastic", url: "https://es.example/prefix", tls: none, index: "ng", apiKeyFile: "/k", basicFile: undefined },
      { kind: "otlp", url: "http://otel.monitoring:4318", tls: none, authorizationFile: undefined },
      { kind: "webhook", url: "http://hook.example/x", tls: none, secretFile: "/s" },
    ],
  );
  assert.deepEqual(sinks[1]?.filter, {
    severity: "low",
    types: ["dns"],
    verdicts: ["deny"],
    namespaces: ["shop"],
    policies: ["shop/a", "guardrails"],
  });
  assert.deepEqual(sinks[5]?.batch, { events: 10, bytes: 65_536, lingerMs: 1000, timeoutMs: 5000 });
  assert.deepEqual(
    sinks.map(({ spoolBytes }) => spoolBytes / 2 ** 20),
    [64, 64, 2, 64, 64, 64, 64, 64, 64],
  );
  assert.deepEqual(
    sinks.map(({ format }) => format),
    ["json", "leef", "json", "cef", "json", "json", "ecs", "ocsf", "json"],
  );
  assert.equal(sinks[7]?.ocsfVersion, "1.6.0");
});

test("every problem is named at once, with its place", () => {
  assert.deepEqual(
    lines(`alerts:
  fold: { window: 2h, podPerSecond: 0 }
  sinks:
  - { type: splunk, url: "https://u:p@hec.example" }
  - { type: syslg, address: x }
  - { address: x }
  - { type: file, path: relative, ack: true }
  - { type: syslog, address: "siem.example", transport: tcp }
  - { type: syslog, address: "siem.example:99999", transport: udp, tls: { certFile: /c } }
  - { type: elastic, url: "http://es.example", apiKeyFile: /k, basicFile: /b, ocsfVersion: 1.8.0, filter: { severity: hgh } }
  - { type: otlp, url: "ftp://x", spool: 1Ki }
`),
    [
      "2:19 alerts.fold.window: must be a time with a unit (for example 500ms, 3s or 5m)",
      "2:37 alerts.fold.podPerSecond: must be a whole number from 1 to 100000",
      "4:5 alerts.sinks[0]: `tokenFile` is missing (a sink of type splunk needs it)",
      "4:26 alerts.sinks[0].url: has a secret in it (secrets come from files: tokenFile, basicFile and so on)",
      "5:13 alerts.sinks[1].type: is no type of sink (one of stdout, file, syslog, splunk, elastic, otlp, webhook)",
      "6:5 alerts.sinks[2]: has no `type` (one of stdout, file, syslog, splunk, elastic, otlp, webhook)",
      "7:25 alerts.sinks[3].path: `relative` is not of the right form (an absolute path)",
      "7:35 alerts.sinks[3].ack: unknown field `ack` (known are: name, type, format, ocsfVersion, filter, path, size, keep)",
      "8:30 alerts.sinks[4].address: `siem.example` is not of the right form (HOST:PORT, for example siem.example.com:6514 or [2001:db8::1]:514)",
      "9:30 alerts.sinks[5].address: has a port that there is not",
      "9:68 alerts.sinks[5].tls: `certFile` and `keyFile` are needed both, or neither",
      "9:68 alerts.sinks[5].tls: needs `transport: tls`",
      "10:27 alerts.sinks[6].url: would send apiKeyFile in the clear (use https)",
      "10:27 alerts.sinks[6].url: would send basicFile in the clear (use https)",
      "10:64 alerts.sinks[6].basicFile: `apiKeyFile` is given too (remove one of them)",
      "10:79 alerts.sinks[6].ocsfVersion: needs `format: ocsf`",
      "10:119 alerts.sinks[6].filter.severity: is not one of the values (did you mean `high`?)",
      "11:24 alerts.sinks[7].url: is no URL of http or https (for example https://siem.example.com:8088)",
      "11:42 alerts.sinks[7].spool: must be from 1048576 to 17179869184 bytes",
    ],
  );
  assert.deepEqual(lines("alerts:\n  sinks:\n  - { type: syslog, address: 'a:1', framing: newline }"), [
    "3:46 alerts.sinks[0].framing: TLS has octet counting only (RFC 5425) (remove it)",
  ]);
  assert.deepEqual(
    lines("alerts: { sinks: [ { type: file, path: /a }, { type: file, path: /a }, { type: stdout, name: file } ] }").length,
    3,
  );
});

test("whatever the text, there are settings or problems, never a throw", () => {
  const value = fc.oneof(
    fc.string(),
    fc.integer(),
    fc.constantFrom("syslog", "http://[", "https://a", "a:1", "/x", "1Mi", "5s", null, true),
    fc.constant([]),
    fc.constant({}),
  );
  const sink = fc.dictionary(
    fc.constantFrom("type", "name", "url", "address", "path", "tls", "filter", "batch", "spool", "tokenFile", "transport", "x"),
    value,
  );
  const typed = fc
    .tuple(fc.constantFrom("stdout", "file", "syslog", "splunk", "elastic", "otlp", "webhook"), sink)
    .map(([type, rest]) => ({ ...rest, type }));
  fc.assert(
    fc.property(fc.array(fc.oneof(sink, typed), { maxLength: 4 }), (sinks) => {
      const { settings, problems } = readConfig("c", JSON.stringify({ alerts: { sinks } }));
      assert.equal(settings === undefined, problems.length > 0);
    }),
    { numRuns: 300 },
  );
});
