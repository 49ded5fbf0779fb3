import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Link } from "../../src/attach/link.ts";
import { Locator } from "../../src/attach/locator.ts";
import { type Finding, type Located, type PodPlace, predictedNames } from "../../src/attach/place.ts";
import { FakeNetwork, ip, link, LO, OWN } from "./fake-network.ts";
import { plant, process as fake } from "./plant.ts";

const A = "aaaaaaaa-9b1c-4d8e-a7f3-5c2d4b6e8f90";
const B = "bbbbbbbb-9b1c-4d8e-a7f3-5c2d4b6e8f90";
const UPLINK = 4;

function place(uid: string, more: Partial<PodPlace> = {}): PodPlace {
  return { uid, namespace: "shop", name: uid.slice(0, 1), addresses: [], hostNetwork: false, ...more };
}

/** A node with an uplink, and pods that can be given processes and interfaces. */
class Node {
  readonly network = new FakeNetwork();
  readonly locator: Locator;
  readonly cgroup: string;
  readonly proc: string;
  readonly sys: string;
  now = 0;

  constructor(t: { after: (end: () => void) => void }) {
    const { folder, cgroup, proc } = plant(t, "cgroup/cgroup.controllers = cpu\ncgroup/kubepods/burstable/\nsys/");
    this.cgroup = cgroup;
    this.proc = proc;
    this.sys = join(folder, "sys");
    this.network.host.push(link(UPLINK, "eth0", { kind: "", peer: 0 }));
    this.locator = new Locator({ network: this.network, proc, cgroup, sys: this.sys });
  }

  /** A process of the pod in the namespace net:[net]; `space`: how the node numbers it. */
  run(uid: string, pid: number, net: number | null, space?: number, start = pid * 10): void {
    const folder = join(this.cgroup, "kubepods", "burstable", `pod${uid}`, `c${pid}`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "cgroup.procs"), `${pid}\n`);
    fake(this.proc, pid, { cgroup: `/kubepods/burstable/pod${uid}/c${pid}`, net, start });
    if (space !== undefined) this.network.spaces.set(pid, space);
  }

  /** The pod's processes and cgroup go. */
  stop(uid: string): void {
    rmSync(join(this.cgroup, "kubepods", "burstable", `pod${uid}`), { recursive: true });
  }

  look(...pods: PodPlace[]): Located[] {
    this.now += 10;
    assert.equal(this.locator.refresh(pods, this.now), undefined);
    return pods.map((pod) => this.locator.find(pod));
  }

  findings(): [Finding["what"], string][] {
    return this.locator.findings().map(({ what, why }) => [what, why]);
  }
}

const found = (one: Link, how: string): Located => ({ kind: "found", interface: one.name, index: one.index, how }) as Located;
const why = (located: Located | undefined): string =>
  located === undefined || located.kind === "found" ? `found ${located?.interface}` : `${located.kind}: ${located.why}`;

test("by its process: the interface that leads to its namespace, whatever it is called, before it has an address", (t) => {
  const node = new Node(t);
  node.network.veth(20, "veth0a1b2c3d", 5);
  const mine = node.network.veth(21, "anything0", 6);
  node.run(A, 100, 2000, 6);
  assert.deepEqual(node.look(place(A)), [found(mine, "process")]);
  assert.deepEqual(node.findings(), []);
});

test("a pod that was found costs nothing but a look at the table of links", (t) => {
  const node = new Node(t);
  node.network.veth(20, "cali1", 5);
  node.run(A, 100, 2000, 5);
  node.look(place(A, { addresses: [ip("10.1.0.1")] }));
  const { space, inside, route } = node.network.asked;
  for (let i = 0; i < 10; i++) node.look(place(A, { addresses: [ip("10.1.0.1")] }));
  assert.deepEqual([node.network.asked.space, node.network.asked.inside, node.network.asked.route], [space, inside, route]);
});

test("by the route to its address, by the CNI's name, by the bridge's tables: each alone", (t) => {
  const node = new Node(t);
  const [cali = ""] = predictedNames("shop", "b");
  const routed = node.network.veth(20, "veth0a1b2c3d", 5);
  const named = node.network.veth(21, cali, 6);
  node.network.routes.set(ip("10.1.0.1"), 20);
  node.network.routes.set(ip("10.1.0.3"), 30);
  node.network.host.push(link(30, "cni0", { kind: "bridge", peer: 0 }));
  const port = node.network.veth(31, "veth11111111", 7, { master: 30 });
  node.network.table = [{ index: 30, ip: ip("10.1.0.3"), mac: "0a0000000003" }];
  const net = join(node.sys, "class", "net");
  mkdirSync(join(net, "cni0"), { recursive: true });
  mkdirSync(join(net, port.name, "brport"), { recursive: true });
  writeFileSync(
    join(net, "cni0", "brforward"),
    Buffer.from(`0a0000000003${"02"}${"00"}${"00".repeat(8)}0a00000000ff0101${"00".repeat(8)}`, "hex"),
  );
  writeFileSync(join(net, port.name, "brport", "port_no"), "0x2\n");
  const pods = [
    place(A, { addresses: [ip("10.1.0.1")] }),
    place(B),
    place("cccccccc", { addresses: [ip("10.1.0.3")] }),
    place("dddddddd", { addresses: [ip("10.1.0.4")] }),
  ];
  const located = node.look(...pods);
  assert.deepEqual(located.slice(0, 3), [found(routed, "route"), found(named, "name"), found(port, "bridge")]);
  assert.equal(why(located[3]), "later: no process of it runs on this node");
  assert.deepEqual(
    node.findings().map(([what]) => what),
    ["bridge-netfilter"],
  );
});

test("a route to the uplink, to the bridge or to a pair on the node says nothing", (t) => {
  const node = new Node(t);
  node.network.host.push(link(30, "cni0", { kind: "bridge", peer: 0 }), link(31, "veth-node", { space: undefined }));
  for (const index of [UPLINK, 30, 31]) {
    node.network.routes.set(ip("10.1.0.1"), index);
    assert.equal(node.look(place(A, { addresses: [ip("10.1.0.1")] }))[0]?.kind, "later");
  }
});

test("the witnesses disagree: said, and the process is believed", (t) => {
  const node = new Node(t);
  const mine = node.network.veth(20, "veth0a1b2c3d", 5);
  node.network.veth(21, "veth11111111", 6);
  node.network.routes.set(ip("10.1.0.1"), 21);
  node.run(A, 100, 2000, 5);
  assert.deepEqual(node.look(place(A, { addresses: [ip("10.1.0.1")] })), [found(mine, "process")]);
  assert.deepEqual(node.findings(), [
    ["disagree", "its processes are behind veth0a1b2c3d, the route says veth11111111; the processes are believed"],
  ]);
});

test("a bridged pod: the route to its address is the bridge's, and that is no disagreement", (t) => {
  const node = new Node(t);
  node.network.host.push(link(30, "cni0", { kind: "bridge", peer: 0 }));
  const port = node.network.veth(31, "veth11111111", 7, { master: 30 });
  node.network.routes.set(ip("10.1.0.3"), 30);
  node.run(A, 100, 2000, 7);
  mkdirSync(join(node.proc, "sys", "net", "bridge"), { recursive: true });
  writeFileSync(join(node.proc, "sys", "net", "bridge", "bridge-nf-call-iptables"), "1\n");
  assert.deepEqual(node.look(place(A, { addresses: [ip("10.1.0.3")] })), [found(port, "process")]);
  assert.deepEqual(node.findings(), []);
  node.now += 10_000;
  node.look(place(A, { addresses: [ip("10.1.0.3"), ip("fd00::3")] }));
  assert.match(node.findings()[0]?.[1] ?? "", /cni0, and net\.bridge\.bridge-nf-call-ip6tables is not 1/);
});

test("re-created under the same name and address: the new pod does not inherit the old interface", (t) => {
  const node = new Node(t);
  const [cali = ""] = predictedNames("shop", "web-0");
  const as = { name: "web-0", addresses: [ip("10.1.0.1")] };
  const old = node.network.veth(20, cali, 5);
  node.network.routes.set(ip("10.1.0.1"), 20);
  node.run(A, 100, 2000, 5);
  assert.deepEqual(node.look(place(A, as)), [found(old, "process")]);
  // The API has the new pod already; the old one's processes still end.
  assert.match(
    why(node.look(place(B, as))[0]),
    new RegExp(`^later: no process of it runs on this node; the route says ${cali}, which is that of another pod \\(UID ${A}\\)`),
  );
  assert.deepEqual(
    node.findings().map(([what]) => what),
    ["claimed", "claimed"],
  );
  // They have gone, the interface is still there.
  node.stop(A);
  assert.equal(node.look(place(B, as))[0]?.kind, "later");
  // A new one of the same name, with the new pod's process behind it.
  node.network.remove(cali);
  const next = node.network.veth(22, cali, 6);
  node.network.routes.set(ip("10.1.0.1"), 22);
  assert.deepEqual(node.look(place(B, as)), [found(next, "route")]);
  node.run(B, 101, 2001, 6);
  assert.deepEqual(node.look(place(B, as)), [found(next, "process")]);
  assert.deepEqual(node.findings(), []);
});

test("a new sandbox of the same pod: the new interface, though name, address and UID are the same", (t) => {
  const node = new Node(t);
  node.network.veth(20, "cali1", 5);
  node.run(A, 100, 2000, 5);
  node.look(place(A));
  node.network.remove("cali1");
  node.stop(A);
  assert.equal(node.look(place(A))[0]?.kind, "later");
  const next = node.network.veth(23, "cali1", 5);
  node.run(A, 120, 2001, 5);
  assert.deepEqual(node.look(place(A)), [found(next, "process")]);
});

test("an interface of a pod that the API does not name yet is nobody else's", (t) => {
  const node = new Node(t);
  node.network.veth(20, "veth0a1b2c3d", 5);
  node.network.routes.set(ip("10.1.0.1"), 20);
  node.run(B, 100, 2000, 5);
  assert.match(why(node.look(place(A, { addresses: [ip("10.1.0.1")] }))[0]), /which is that of another pod/);
});

test("two pods claim one interface: the one whose process is older has it, and it is said", (t) => {
  const node = new Node(t);
  const one = node.network.veth(20, "cali1", 5);
  node.run(A, 100, 2000, 5);
  node.run(B, 90, 2000, 5, 5000);
  assert.deepEqual(node.look(place(A), place(B)).map(why), [why(found(one, "process")), "later: its interface cali1 is that of shop/a"]);
  assert.deepEqual(node.findings(), [["claimed", "its processes and those of shop/a are behind the same interface cali1"]]);
});

test("two pods claim one interface without a process: the first one keeps it", (t) => {
  const node = new Node(t);
  const one = node.network.veth(20, "veth0a1b2c3d", 5);
  node.network.routes.set(ip("10.1.0.1"), 20);
  const [first, second] = [place(A, { addresses: [ip("10.1.0.1")] }), place(B, { addresses: [ip("10.1.0.1")] })];
  for (const order of [
    [first, second],
    [second, first],
  ]) {
    const located = new Map(order.map((pod, i) => [pod.uid, node.look(...order)[i]]));
    assert.deepEqual(located.get(A), found(one, "route"));
    assert.match(why(located.get(B)), /^later: .*that of shop\/a/);
  }
});

test("an interface that has gone is nobody's: whoever gets its number next is not held up", (t) => {
  const node = new Node(t);
  node.network.veth(20, "veth0a1b2c3d", 5);
  node.network.routes.set(ip("10.1.0.1"), 20);
  const at = { addresses: [ip("10.1.0.1")] };
  assert.equal(node.look(place(A, at))[0]?.kind, "found");
  node.network.remove("veth0a1b2c3d");
  assert.equal(node.look(place(B, at))[0]?.kind, "later");
  const next = node.network.veth(20, "veth11111111", 6);
  assert.deepEqual(node.look(place(B, at)), [found(next, "route")]);
});

test("hostNetwork: unenforceable, and its processes are not asked", (t) => {
  const node = new Node(t);
  node.run(A, 100, 1);
  assert.equal(
    why(node.look(place(A, { hostNetwork: true }))[0]),
    "unenforceable: it is a hostNetwork pod: its packets are the node's own",
  );
  assert.equal(node.network.asked.space, 0);
});

test("processes in the node's own namespace are helpers or about to move: not the pod's word", (t) => {
  const node = new Node(t);
  node.run(A, 100, 1);
  assert.match(why(node.look(place(A))[0]), /^later: its processes are in the node's own network namespace/);
  const mine = node.network.veth(20, "cali1", 5);
  node.run(A, 101, 2000, 5);
  assert.deepEqual(node.look(place(A)), [found(mine, "process")]);
});

for (const [kind, inside, said] of [
  [
    "macvlan",
    link(2, "eth0", { kind: "macvlan", peer: UPLINK, space: OWN }),
    /^unenforceable: its eth0 is a macvlan on eth0: its packets do not cross this node's netfilter/,
  ],
  ["ipvlan", link(2, "eth0", { kind: "ipvlan", peer: UPLINK, space: OWN }), /^unenforceable: its eth0 is a ipvlan on eth0/],
  ["SR-IOV", link(2, "eth0", { kind: "", peer: 0 }), /^unenforceable: its eth0 is a device of its own/],
  ["loopback only", LO, /^later: no interface of the node leads to it yet/],
  ["a veth made after we looked", link(2, "eth0", { peer: 77, space: OWN }), /^later: its eth0 has just been made/],
  // What a pod with NET_ADMIN can make itself is no proof that it cannot be guarded.
  [
    "its own macvlan, on an interface in a further namespace of its own",
    link(2, "eth0", { kind: "macvlan", peer: 3, space: 44 }),
    /^later: no interface of the node leads to it yet/,
  ],
  ["its own dummy", link(2, "eth0", { kind: "dummy", peer: 0 }), /^later/],
] as const) {
  test(`${kind} in the pod`, (t) => {
    const node = new Node(t);
    node.run(A, 100, 2000);
    node.network.hidden.set(100, 8);
    node.network.insides.set(8, [LO, inside]);
    assert.match(why(node.look(place(A))[0]), said);
  });
}

test("a pod that looks like macvlan and has a routed interface is guarded, and it is said", (t) => {
  const node = new Node(t);
  node.run(A, 100, 2000);
  node.network.hidden.set(100, 8);
  node.network.insides.set(8, [LO, link(2, "eth0", { kind: "macvlan", peer: UPLINK, space: OWN })]);
  const real = node.network.veth(20, "cali1", 5);
  node.network.routes.set(ip("10.1.0.1"), 20);
  assert.deepEqual(node.look(place(A, { addresses: [ip("10.1.0.1")] })), [found(real, "route")]);
  assert.match(node.findings()[0]?.join() ?? "", /^disagree,its eth0 is a macvlan.*and yet the route says cali1, which is guarded/);
});

test("a pod's first process hides in a namespace of its own: the others, and the route, still tell", (t) => {
  const node = new Node(t);
  const real = node.network.veth(20, "cali1", 5);
  node.network.hidden.set(100, 8);
  node.network.insides.set(8, [LO]);
  node.run(A, 100, 3000);
  node.run(A, 101, 2000, 5);
  assert.deepEqual(node.look(place(A)), [found(real, "process")]);
  const other = new Node(t);
  const routed = other.network.veth(20, "cali1", 5);
  other.network.hidden.set(100, 8);
  other.network.insides.set(8, [LO]);
  other.run(A, 100, 3000);
  other.network.routes.set(ip("10.1.0.1"), 20);
  assert.deepEqual(other.look(place(A, { addresses: [ip("10.1.0.1")] })), [found(routed, "route")]);
});

test("a younger process in another pod's namespace (a privileged pod) takes nothing over", (t) => {
  const node = new Node(t);
  const [one, two] = [node.network.veth(20, "cali1", 5), node.network.veth(21, "cali2", 6)];
  node.run(A, 100, 2000, 5);
  node.run(A, 110, 2001, 6);
  node.run(B, 120, 2001, 6);
  assert.deepEqual(node.look(place(A), place(B)), [found(one, "process"), found(two, "process")]);
});

test("several interfaces: the routed one, else the other end of eth0; the others are said", (t) => {
  const node = new Node(t);
  node.network.veth(20, "vethnet1", 5, { peer: 3 });
  const eth0 = node.network.veth(21, "vetheth0", 5, { peer: 2 });
  node.network.insides.set(5, [
    LO,
    link(2, "eth0", { peer: 21, space: OWN }),
    link(3, "net1", { peer: 20, space: OWN }),
    link(4, "net2", { kind: "macvlan", peer: UPLINK, space: OWN }),
    link(5, "tunl0", { kind: "ipip", peer: 0 }),
  ]);
  node.run(A, 100, 2000, 5);
  assert.deepEqual(node.look(place(A)), [found(eth0, "process")]);
  assert.deepEqual(node.findings(), [["second", "only vetheth0 is guarded; it can also send by vethnet1, net2 (macvlan, in the pod)"]]);
  node.network.routes.set(ip("10.1.0.1"), 20);
  assert.equal(why(node.look(place(A, { addresses: [ip("10.1.0.1")] }))[0]), "found vethnet1");
});

for (const [kind, expected] of [
  ["openvswitch", "unenforceable"],
  ["bond", "unenforceable"],
  ["bridge", "found"],
  ["vrf", "found"],
] as const) {
  test(`a port of a ${kind} is ${expected}`, (t) => {
    const node = new Node(t);
    node.network.host.push(link(30, "master0", { kind, peer: 0 }));
    node.network.veth(31, "veth11111111", 7, { master: 30 });
    node.run(A, 100, 2000, 7);
    const [located] = node.look(place(A));
    assert.equal(located?.kind, expected);
    if (expected === "unenforceable") assert.match(why(located), new RegExp(`a port of master0 \\(${kind}\\)`));
  });
}

test("a static pod by the hash of its manifest; an annotation that is no hash is not believed", (t) => {
  const node = new Node(t);
  const hash = "99dcb84d2a34f7e338778606703258c4";
  const mine = node.network.veth(20, "cali1", 5);
  node.network.veth(21, "cali2", 6);
  node.run(hash, 100, 2000, 5);
  node.run(B, 101, 2001, 6);
  assert.deepEqual(node.look(place(A, { mirror: hash })), [found(mine, "process")]);
  assert.equal(node.look(place(A, { mirror: B }))[0]?.kind, "later");
  // Nor does a pod hide its own cgroup behind somebody's hash.
  const other = node.network.veth(22, "cali3", 7);
  node.run(A, 102, 2002, 7);
  assert.deepEqual(node.look(place(A, { mirror: hash })), [found(other, "process")]);
});

test("hostile UIDs find nothing, and break nothing", (t) => {
  const node = new Node(t);
  node.network.veth(20, "cali1", 5);
  node.run(A, 100, 2000, 5);
  for (const uid of ["", "..", "../burstable", `../burstable/pod${A}`, "a/b", "\0", "__proto__", "x".repeat(5000), `${A}\n`]) {
    assert.equal(node.look(place(uid, { name: "../../x", namespace: "\0" }))[0]?.kind, "later", JSON.stringify(uid).slice(0, 40));
  }
});

test("without the right to look at namespaces, the kernel's number of it is enough", (t) => {
  const node = new Node(t);
  const mine = node.network.veth(20, "cali1", 5);
  node.run(A, 100, null, 5);
  node.run(B, 101, null);
  const located = node.look(place(A), place(B));
  assert.deepEqual(located[0], found(mine, "process"));
  assert.match(why(located[1]), /^later: its network namespace cannot be looked at \(the agent lacks CAP_SYS_PTRACE\)/);
});

test("where the node's cgroup tree is not to be seen, /proc is read, once a second", (t) => {
  const node = new Node(t);
  const mine = node.network.veth(20, "cali1", 5);
  rmSync(join(node.cgroup, "kubepods"), { recursive: true });
  fake(node.proc, 100, { cgroup: `/../../pod${A}/c1`, net: 2000 });
  node.network.spaces.set(100, 5);
  assert.deepEqual(node.look(place(A)), [found(mine, "process")]);
  fake(node.proc, 101, { cgroup: `/../../pod${B}/c1`, net: 2001 });
  node.network.veth(21, "cali2", 6);
  node.network.spaces.set(101, 6);
  assert.equal(node.look(place(A), place(B))[1]?.kind, "later");
  node.now += 1000;
  assert.equal(why(node.look(place(A), place(B))[1]), "found cali2");
});

test("a process that ends while it is looked at says nothing", (t) => {
  const node = new Node(t);
  node.network.veth(20, "cali1", 5);
  node.run(A, 100, 2000, 5);
  node.network.spaceOf = () => {
    rmSync(join(node.proc, "100"), { recursive: true, force: true });
    return 5;
  };
  assert.match(why(node.look(place(A))[0]), /^later: its process ended while it was looked at/);
});

test("netlink fails: said, and what was found stays", (t) => {
  const node = new Node(t);
  const pod = place(A);
  assert.equal(why(node.locator.find(pod)), "later: it has not been looked for yet");
  node.network.broken = "EPERM";
  assert.equal(node.locator.refresh([pod], 1), "the interfaces of this node cannot be read: EPERM");
  assert.match(why(node.locator.find(pod)), /cannot be read: EPERM/);
  node.network.broken = undefined;
  const mine = node.network.veth(20, "cali1", 5);
  node.run(A, 100, 2000, 5);
  assert.deepEqual(node.look(pod), [found(mine, "process")]);
  node.network.broken = "ENOBUFS";
  node.locator.refresh([pod], 100);
  assert.deepEqual(node.locator.find(pod), found(mine, "process"));
});

test("predicted names are those of Calico, the AWS VPC CNI and Azure", () => {
  // Names seen in the projects' own tests and logs.
  assert.deepEqual(predictedNames("kube-system", "coredns-57ff979f67-qqbdh").slice(0, 2), ["calib5faff8a083", "enib5faff8a083"]);
  assert.equal(predictedNames("default", "sample-pod")[0], "calicc21c2d7785");
  assert.equal(predictedNames("default", "nginx")[2], "azvc440f455693");
  assert.equal(predictedNames("kube-system", "coredns-57ff979f67-8ns9b")[3], "vlan9571956a6cc");
});
