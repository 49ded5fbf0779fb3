import assert from "node:assert/strict";
import { test } from "node:test";
import { filterBypass, ingressOf, judged } from "../../src/selftest/bypass.ts";
import { linksOf } from "../../src/selftest/links.ts";

/** What iproute2 6.1 prints, as rows. */

const FILTERS: readonly (readonly [what: string, text: string, kind: string | undefined, says: RegExp])[] = [
  ["nothing", "", undefined, /^$/],
  ["an empty list", "[ ]", undefined, /^$/],
  ["a filter's head without options", '[{"protocol":"all","pref":1,"kind":"bpf","chain":0}]', undefined, /^$/],
  [
    "a redirect to the uplink",
    '[{"kind":"u32","options":{"actions":[{"order":1,"kind":"mirred","mirred_action":"redirect","direction":"egress","to_dev":"eth0"}]}}]',
    "redirects",
    /redirects to eth0$/,
  ],
  [
    "a redirect behind others, of matchall",
    '[{"kind":"flower","options":{"actions":[{"kind":"gact"}]}},{"kind":"matchall","actions":[{"kind":"gact"},{"kind":"mirred","mirred_action":"redirect","to_dev":"ifb0"}]}]',
    "redirects",
    /redirects to ifb0$/,
  ],
  [
    "a mirror only copies",
    '[{"kind":"matchall","options":{"actions":[{"kind":"mirred","mirred_action":"mirror","to_dev":"mon0"}]}}]',
    undefined,
    /^$/,
  ],
  [
    "Cilium's program",
    '[{"kind":"bpf","options":{"handle":"0x1","bpf_name":"cil_from_container-lxc1","direct-action":true,"prog":{"id":7}}}]',
    "program",
    /cil_from_container-lxc1/,
  ],
  [
    "a program and a redirect: the worse counts",
    '[{"kind":"bpf","options":{"bpf_name":"x"}},{"kind":"u32","options":{"actions":[{"kind":"mirred","mirred_action":"redirect","to_dev":"e"}]}}]',
    "redirects",
    /redirects to e$/,
  ],
  [
    "an action that is a program",
    '[{"kind":"u32","options":{"actions":[{"kind":"bpf","bpf_name":"act"}]}}]',
    "program",
    /action of eBPF \(act\)/,
  ],
  [
    "a name that is not plain",
    `[{"kind":"bpf","options":{"bpf_name":"a\\u001b[31m${"b".repeat(200)}"}}]`,
    "program",
    /^a tc program of eBPF \(a\?\[31mb{1,80}\)$/,
  ],
  ["no JSON", "Error: …", undefined, /^$/],
  ["another shape", '{"kind":"bpf"}', undefined, /^$/],
  ["values of other types", '[null, 3, {"kind":"u32","options":[{"actions":3}],"actions":{"kind":"mirred"}}]', undefined, /^$/],
];

for (const [what, text, kind, says] of FILTERS)
  test(`filters: ${what}`, () => {
    const found = filterBypass(text);
    assert.equal(found?.kind, kind);
    assert.match(found?.what ?? "", says);
  });

test("interfaces with a hook at their ingress", () => {
  const text =
    '[{"kind":"noqueue","dev":"lo"},{"kind":"clsact","handle":"ffff:","dev":"cali1"},{"kind":"ingress","dev":"cali2"},{"kind":"clsact"},7]';
  assert.deepEqual(ingressOf(text), ["cali1", "cali2"]);
  assert.deepEqual(ingressOf("nonsense"), []);
});

test("interfaces as iproute2 prints them", () => {
  const text =
    '[{"ifindex":4,"ifname":"cali1","address":"ee:ee:ee:ee:ee:0f","xdp":{"mode":1,"prog":{"id":3}}},{"ifindex":5,"ifname":"nk1","linkinfo":{"info_kind":"netkit"}},' +
    '{"ifindex":6,"ifname":"cali2","linkinfo":{"info_kind":"veth"}},{"ifname":"without a number"},{"ifindex":7,"linkinfo":3},3]';
  assert.deepEqual(
    [...linksOf(text)],
    [
      ["cali1", { index: 4, mac: [0xee, 0xee, 0xee, 0xee, 0xee, 15], driver: undefined, program: "an XDP program" }],
      ["nk1", { index: 5, mac: [], driver: "netkit", program: "a netkit device, whose packets go through eBPF" }],
      ["cali2", { index: 6, mac: [], driver: "veth", program: undefined }],
    ],
  );
  for (const nonsense of ["", "Error: …", "{}", "[null]"]) assert.equal(linksOf(nonsense).size, 0);
});

test("a shaper gives packets back: what it does is for the canary to tell", () => {
  const links = linksOf(
    '[{"ifindex":1,"ifname":"bwp1","linkinfo":{"info_kind":"ifb"}},{"ifindex":2,"ifname":"eth0"},{"ifindex":3,"ifname":"v","linkinfo":{"info_kind":"veth"}}]',
  );
  const of = (to: string): string => judged({ kind: "redirects", what: "x", to }, links).kind;
  assert.deepEqual([of("bwp1"), of("eth0"), of("v"), of("gone")], ["program", "redirects", "redirects", "redirects"]);
});
