import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ipText } from "../../src/base/address.ts";
import { NO_CONFIG, readConfig } from "../../src/inputs/config/read.ts";

const read = (text: string) => readConfig("config.yaml", text);
const lines = (text: string): string[] =>
  read(text).problems.map(
    ({ line, column, path, message, hint }) => `${line}:${column} ${path}: ${message}${hint === undefined ? "" : ` (${hint})`}`,
  );

test("an empty file, and one with only comments, are the defaults", () => {
  for (const text of ["", "# nothing\n", "---\n", "resolvers:\n", "{}"])
    assert.deepEqual(read(text), { settings: NO_CONFIG, problems: [] }, text);
  const { cluster } = NO_CONFIG;
  assert.equal(cluster.policySelector, "namegate.dev/policy=true");
  assert.equal(cluster.resolvers.podDnsConfig, "Ignore");
  assert.equal(cluster.startup.holdUnknownPods, true);
  assert.equal(cluster.startup.taint, undefined);
  assert.equal(cluster.interfacePrefixes, undefined);
});

test("every field is read", () => {
  const { settings, problems } = read(`
state: /var/lib/ng
socket: /run/ng.sock
metrics: 127.0.0.1:9811
page: false
logLevel: debug
iptables: legacy
markMask: 0xe00
queueBase: 5000
checkInterval: 1.5s
selfTestInterval: 1m
knownHellos: false
limits: { upcalls: 100, bindings: 1000, events: 5 }
dnsOverHttps: [ DNS.Example., "*.dns.example" ]
clusterNamespace: namegate
nodeName: worker-1.example
kubeconfig: /etc/kubeconfig
policySelector: "team=security,namegate.dev/policy in (true)"
clusterDomain: Cluster.Example.
searches: [ corp.example.com ]
interfacePrefixes: [ cali ]
cniConfigDir: /etc/cni/other
resolvers:
  override: [ "10.0.0.2", "[fd00::a]:5353" ]
  also: [ 10.0.0.3:53 ]
  namespaces: [ dns ]
  services: [ unbound ]
  nodeLocal: [ 169.254.20.11, "fd00::20" ]
  node: Never
  nodeFile: /run/systemd/resolve/resolv.conf
  podDnsConfig: Trust
startup: { apiWait: 500ms, holdUnknownPods: false, taint: namegate.dev/agent-not-ready }
kubernetesEvents: false
`);
  assert.deepEqual(problems, []);
  assert.ok(settings);
  const { cluster, ...rest } = settings;
  assert.deepEqual(rest, {
    policies: undefined,
    pods: undefined,
    state: "/var/lib/ng",
    socket: "/run/ng.sock",
    metrics: "127.0.0.1:9811",
    page: false,
    logLevel: "debug",
    iptables: "legacy",
    markMask: 3584,
    queueBase: 5e3,
    clusterNamespace: "namegate",
    checkMs: 1500,
    selfTestMs: 60_000,
    knownHellos: false,
    upcalls: 100,
    maxBindings: 1e3,
    events: 5,
    dnsOverHttps: ["dns.example", "*.dns.example"],
    alerts: undefined,
  });
  assert.deepEqual(
    cluster.resolvers.override?.map(({ address, port }) => `${ipText(address)} ${port}`),
    ["10.0.0.2 53", "fd00::a 5353"],
  );
  assert.deepEqual(cluster.resolvers.nodeLocal.map(ipText), ["169.254.20.11", "fd00::20"]);
  assert.deepEqual(cluster.startup, { apiWaitMs: 500, holdUnknownPods: false, taint: "namegate.dev/agent-not-ready" });
  assert.deepEqual([cluster.interfacePrefixes, cluster.cniConfigDir], [["cali"], "/etc/cni/other"]);
  assert.equal(cluster.clusterDomain, "cluster.example");
  assert.equal(cluster.kubernetesEvents, false);
});

test("every problem is named at once, where it is and with a hint", () => {
  assert.deepEqual(
    lines(`logLevl: debug
iptables: nftables
checkInterval: 3
queueBase: 70000
resolvers:
  override: [ "10.0.0.2:0" ]
  podDnsConfig: trust
  nodes: Never
startup: [ ]
searches: [ "a b" ]
`),
    [
      "1:1 logLevl: unknown field `logLevl` (did you mean `logLevel`?)",
      "2:11 iptables: is not one of the values (use auto, nft or legacy)",
      "3:16 checkInterval: must be a time with a unit (for example 500ms, 3s or 5m)",
      "4:12 queueBase: must be a whole number from 0 to 65529",
      '6:15 resolvers.override[0]: is not an address and port (write "10.96.0.10:53" or "[fd00::a]:53")',
      "7:17 resolvers.podDnsConfig: is not one of the values (did you mean `Trust`?)",
      "8:3 resolvers.nodes: unknown field `nodes` (did you mean `node`?)",
      "9:1 startup: must be a mapping (`key: value`)",
      "10:13 searches[0]: is not a domain name (for example cluster.local)",
    ],
  );
});

test("what is no YAML, or more than one document, is refused", () => {
  assert.match(lines("a: [ b").join(), /not YAML/);
  assert.match(lines("state: /a\n---\nstate: /b\n").join(), /a second document/);
  assert.match(lines("- a").join(), /must be a mapping/);
  assert.match(lines("state: /a\nstate: /b").join(), /the same key twice/);
  assert.match(lines(`state: ${"x".repeat(2 ** 20)}`).join(), /longer than/);
});

test("whatever the text, there are settings or problems, never both and never a throw", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      const { settings, problems } = read(text);
      assert.equal(settings === undefined, problems.length > 0);
    }),
    { numRuns: 300 },
  );
});
