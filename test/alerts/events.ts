import { bound, type BoundedEvent } from "../../src/alerts/formats/bound.ts";
import type { Origin } from "../../src/alerts/formats/format.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { EventDraft } from "../../src/model/event.ts";

export const ORIGIN: Origin = { host: "node-1.example", version: "0.1.0", cluster: "prod" };
export const NOW = Date.parse("2026-11-26T10:00:00.123Z");

const pod = {
  namespace: "shop",
  name: "checkout-0",
  labels: { app: "checkout", "team.example/owner": "pay" },
  serviceAccountName: "checkout",
};
const source = { address: "10.244.0.11", port: 40_312, interface: "veth1a2b" };

/** What a day brings. */
export const DRAFTS: Readonly<Record<string, EventDraft>> = {
  allowed: {
    type: "connection",
    verdict: "allow",
    mode: "Enforce",
    pod,
    policies: ["shop/checkout"],
    policy: "shop/checkout",
    rule: "stripe",
    destination: { address: "203.0.113.7", port: 443, protocol: "TCP", names: ["api.stripe.com"] },
    source,
    evidence: {
      dns: [{ name: "api.stripe.com", via: "asked", fresh: true }],
      serverName: "api.stripe.com",
      application: "tls",
      ja4: "t13d1516h2_8daaf6152771_b186095e22b6",
      alpn: ["h2"],
      version: "1.3",
    },
    message: "api.stripe.com 203.0.113.7:443/TCP: first use of shop/checkout/stripe",
  },
  denied: {
    type: "connection",
    verdict: "deny",
    mode: "Enforce",
    why: "wrong-port",
    pod,
    policies: ["guardrails", "shop/checkout"],
    nearest: { policy: "shop/checkout", rule: "stripe", clause: "port" },
    destination: { address: "2001:db8::7", port: 8443, protocol: "TCP", names: ["api.stripe.com"] },
    source: { ...source, address: "fd00:10:244::b" },
    evidence: { dns: [{ name: "api.stripe.com", via: "asked", fresh: true }], serverName: null, application: null, ja4: null },
    message: "api.stripe.com [2001:db8::7]:8443/TCP: wrong-port",
    count: 17,
    folded: { first: "2026-11-26T09:59:00.000Z", last: "2026-11-26T09:59:58.500Z" },
  },
  wouldDeny: {
    type: "connection",
    verdict: "would-deny",
    mode: "Monitor",
    why: "denied-by-rule",
    pod,
    policies: ["guardrails"],
    policy: "guardrails",
    rule: "never",
    destination: { address: "198.51.100.9", port: 53, protocol: "UDP", names: [] },
    source,
    evidence: { dns: [], serverName: null, application: null, ja4: null },
    message: "198.51.100.9:53/UDP: denied-by-rule",
  },
  refusedQuery: {
    type: "dns",
    verdict: "deny",
    mode: "Enforce",
    why: "name-not-allowed",
    pod,
    policies: ["shop/checkout"],
    destination: { address: "10.96.0.10", port: 53, protocol: "UDP", names: ["exfil.example.net"] },
    source,
    message: "the query for exfil.example.net was answered with REFUSED",
  },
  spoofed: {
    type: "spoofed",
    verdict: "deny",
    mode: "Enforce",
    why: "spoofed-source",
    destination: { address: "192.0.2.1", port: 80, protocol: "TCP", names: [] },
    source: { address: "10.244.9.9", port: 1234, interface: "veth9" },
    message: "a packet left veth9 with a source address that is not its pod's",
  },
  policy: {
    type: "policy",
    verdict: "info",
    why: "policy-invalid",
    policy: "shop/checkout",
    message: "shop.yaml:3:5: spec.mode: must be one of the values (1 problem); its last good version stays in force",
  },
  hostile: {
    type: "connection",
    verdict: "deny",
    mode: "Enforce",
    why: "wrong-identity",
    pod: { ...pod, labels: { app: 'a"b\\c]d|e=f\n<13>1 - fake', unicode: "żółć\u202e\u2028\ud800" } },
    policies: ["shop/checkout"],
    nearest: { policy: "shop/checkout", rule: "db", clause: "identity" },
    destination: { address: "203.0.113.8", port: 5432, protocol: "TCP", names: ["db.example.com"] },
    source,
    evidence: {
      dns: [{ name: "db.example.com", via: "asked", fresh: true }],
      serverName: "a|b=c\\d\te.example",
      application: "postgresql",
      ja4: null,
      fields: { user: "root\\x00", database: "x".repeat(255) },
    },
    message: `CEF:0|x|y\\z=1\r\nLEEF:2.0|\t\u0000\u001b[31m "]\u009b ${"é".repeat(1500)}`,
  },
};

/** What is said beside denials, and what goes with a denial. */
const NOTICES: Readonly<Record<string, EventDraft>> = {
  resolver: {
    type: "dns",
    verdict: "allow",
    mode: "Enforce",
    why: "untrusted-resolver",
    pod,
    policies: ["shop/checkout"],
    policy: "shop/checkout",
    rule: "rogue",
    destination: { address: "198.51.100.53", port: 5353, protocol: "UDP", names: ["dns.example.net"] },
    source,
    evidence: { dns: [], serverName: "api.example.com", application: "dns", ja4: null, fields: { query: "api.example.com" } },
    message: "DNS with dns.example.net 198.51.100.53:5353/UDP, about api.example.com: it is no trusted resolver",
  },
  overTls: {
    type: "dns",
    verdict: "deny",
    mode: "Enforce",
    why: "dns-over-tls",
    pod,
    policies: ["shop/checkout"],
    destination: { address: "2001:db8::853", port: 853, protocol: "TCP", names: [] },
    source: { ...source, address: "fd00:10:244::b" },
    evidence: { dns: [], serverName: null, application: null, ja4: null },
    message: "DNS with [2001:db8::853]:853/TCP: what is asked and answered cannot be seen",
  },
  tunnel: {
    type: "dns",
    verdict: "deny",
    mode: "Enforce",
    why: "dns-tunnel",
    pod,
    policies: ["shop/checkout"],
    policy: "shop/checkout",
    destination: { address: "10.96.0.10", port: 53, protocol: "UDP", names: ["6a6b6c.evil.example"] },
    source,
    exceeded: { limit: "names", most: 1000, found: 1001, domain: "evil.example" },
    count: 3,
    message: "names below evil.example may carry data: 1001 different ones in a minute (at most 1000)",
  },
  changed: {
    type: "policy",
    verdict: "info",
    mode: "Monitor",
    why: "policy-mode-lowered",
    policy: "shop/checkout",
    change: {
      source: "configmap/shop/policies:checkout.yaml",
      digest: `sha256:${"0".repeat(64)}`,
      version: "4711",
      by: "kubectl-edit (Update)",
      at: "2026-11-26T09:59:59.000Z",
      what: ["mode: Enforce → Monitor"],
    },
    message: "shop/checkout: mode: Enforce → Monitor (written by kubectl-edit (Update) at 2026-11-26T09:59:59.000Z)",
  },
  suggested: {
    type: "connection",
    verdict: "deny",
    mode: "Enforce",
    why: "no-rule",
    pod,
    policies: ["shop/checkout"],
    destination: { address: "203.0.113.9", port: 443, protocol: "TCP", names: [] },
    source,
    evidence: { dns: [], serverName: null, application: null, ja4: null },
    suggestion:
      '# for spec.egress of shop/checkout\n- name: "allow-203.0.113.9-443"\n  action: Accept\n  to:\n  - networks: ["203.0.113.9"]\n  ports:\n  - { protocol: TCP, port: 443 }\n',
    message: "203.0.113.9:443/TCP: no-rule",
  },
};

export function samples(): [string, BoundedEvent][] {
  const stamp = stamper("mb2k9x");
  return Object.entries({ ...DRAFTS, ...NOTICES }).map(([name, draft]) => [name, bound(stamp(draft, NOW))]);
}
