import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { cgroupUid, podOfPath, podOfProcess } from "../../src/attach/cgroup-path.ts";
import { CgroupTree } from "../../src/attach/cgroups.ts";
import { Processes, startOf } from "../../src/attach/processes.ts";
import { ROOT } from "../support/need.ts";
import { plant, plantFile, process as fake, stat } from "./plant.ts";

const UID = "0e6f1a52-9b1c-4d8e-a7f3-5c2d4b6e8f90";
const OTHER = "77777777-9b1c-4d8e-a7f3-5c2d4b6e8f90";
const HASH = "99dcb84d2a34f7e338778606703258c4";
const LOW = UID.replaceAll("-", "_");
const ID = "f".repeat(64);

for (const file of readdirSync(join(ROOT, "test", "attach", "fixtures")).sort()) {
  const name = file.replace(/\.tree$/, "");
  test(`${name}: each pod and its processes, by the tree and by a scan of /proc`, (t) => {
    const { cgroup, proc, expected } = plantFile(t, name);
    assert.ok(expected.size > 0);
    const tree = new CgroupTree(cgroup);
    const processes = new Processes(proc);
    const found = tree.pods(0);
    assert.deepEqual([...found.keys()].sort(), [...expected.keys()].sort());
    const scan = processes.scan();
    for (const [uid, pids] of expected) {
      const own = cgroupUid(uid);
      assert.ok(own !== undefined);
      const byTree = tree.pids(found.get(own) ?? []);
      assert.deepEqual(new Set(byTree), new Set(pids), uid);
      for (const pid of byTree) assert.equal(processes.look(pid, own)?.pid, pid, `${pid} is a process of ${uid}`);
      // Only a scan sees conmon, which is in the pod's folder; it is told by its network namespace.
      for (const pid of pids) assert.ok(scan.get(own)?.includes(pid), `${pid} of ${uid}`);
    }
    assert.deepEqual(
      [...scan.keys()].filter((uid) => !expected.has(uid)),
      [],
    );
    assert.deepEqual(tree.pods(1), found, "nothing is forgotten when it is read again");
  });
}

const paths: readonly (readonly [path: string, uid: string | undefined])[] = [
  [`/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${LOW}.slice/cri-containerd-${ID}.scope`, UID],
  [`/kubepods.slice/kubepods-pod${LOW}.slice/crio-${ID}.scope/container`, UID],
  [
    `/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${HASH}.slice/docker-${ID}.scope`,
    HASH,
  ],
  [`/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-besteffort.slice/a-b-kubepods-besteffort-pod${LOW}.slice/x`, UID],
  [`/kubepods/pod${UID}/${ID}`, UID],
  [`/docker/${ID}/kubelet/kubepods/besteffort/pod${UID}/${ID}/nested/deeper`, UID],
  [`/system.slice/containerd.service/kubepods-besteffort-pod${LOW}.slice:cri-containerd:${ID}`, UID],
  [`/kubepods-besteffort-pod${LOW}.slice:cri-containerd:${ID}`, UID],
  // Out of a private cgroup namespace.
  [`/../../pod${UID}/${ID}`, UID],
  [`/../../../kubepods-burstable.slice/kubepods-burstable-pod${LOW}.slice/cri-containerd-${ID}.scope`, UID],
  // The outermost counts.
  [`/kubepods/burstable/pod${UID}/${ID}/kubepods/pod${OTHER}/${ID}`, UID],
  [`/kubepods/burstable/pod${UID}/${ID}/kubepods-pod${OTHER.replaceAll("-", "_")}.slice`, UID],
  [`/kubepods.slice/kubepods-burstable.slice`, undefined],
  [`/pod${UID}/${ID}`, undefined],
  [`/docker/pod${UID}`, undefined],
  [`/libpod_parent/libpod-${ID}`, undefined],
  [`/kubepods/pod../../x`, undefined],
  [`/kubepods/pod${"a".repeat(65)}`, undefined],
  [`/kubepods/pod`, undefined],
  [`/xkubepods/pod${UID}`, undefined],
  [`/xkubepods-pod${LOW}.slice`, undefined],
  [`/${"kubepods-".repeat(3000)}pod${UID}.slice`, undefined],
  ["", undefined],
];
for (const [path, uid] of paths) {
  test(`${path.slice(0, 100)} is ${uid ?? "no pod's"}`, () => {
    assert.equal(podOfPath(path), uid);
    assert.equal(podOfProcess(`12:cpu,cpuacct:/\n3:name=systemd:${path}\n0::${path}\n`), uid);
  });
}

test("lines that name different pods name none; a path may hold colons", () => {
  assert.equal(podOfProcess(`1:cpu:/kubepods/pod${UID}\n2:pids:/kubepods/pod${OTHER}\n`), undefined);
  assert.equal(podOfProcess(`0::/a:b/kubepods/pod${UID}/c:d`), UID);
  assert.equal(podOfProcess("nonsense\n:\n::\n"), undefined);
});

test("a UID is letters, digits and dashes: nothing that could be a path", () => {
  for (const good of [UID, HASH, "a", "A1", LOW]) assert.equal(cgroupUid(good), good.replaceAll("_", "-"));
  for (const bad of ["", "..", ".", "a/b", "../x", "-a", "a.slice", "a b", "a\0", "a\n", "ä", "x".repeat(65)])
    assert.equal(cgroupUid(bad), undefined, bad);
});

test("whatever a path is, its pod is one that could have a folder", () => {
  const part = fc.oneof(
    fc.constantFrom("kubepods", "burstable", "..", "", `pod${UID}`, `kubepods-pod${LOW}.slice`, "kubepods.slice"),
    fc.string({ maxLength: 40 }),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
      const uid = podOfPath(parts.join("/"));
      assert.ok(uid === undefined || cgroupUid(uid) === uid);
    }),
  );
});

test("start time: whatever the command is called; the dead have none", () => {
  for (const command of ["pause", "a b", ") S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21", "((", "x)", ""])
    assert.equal(startOf(stat(7, { command, start: 4711 })), 4711, command);
  assert.equal(startOf(stat(7, { state: "Z" })), undefined);
  for (const bad of ["", "7", "7 (x)", "7 (x) S 1 2", stat(7, {}).replace(" 70 ", " x ")]) assert.equal(startOf(bad), undefined, bad);
});

test("a number that another process has got is not believed", (t) => {
  const { proc } = plant(t, "");
  const own = cgroupUid(UID);
  assert.ok(own !== undefined);
  const processes = new Processes(proc);
  const cgroup = `/kubepods/pod${UID}/${ID}`;
  fake(proc, 50, { cgroup, start: 1000 });
  const first = processes.look(50, own);
  assert.ok(first !== undefined && processes.same(first));
  assert.equal(first.netns, "net:[1050]");
  fake(proc, 50, { cgroup, start: 2000 });
  assert.equal(processes.same(first), false);
  fake(proc, 50, { cgroup: `/kubepods/pod${OTHER}/${ID}`, start: 1000 });
  assert.equal(processes.look(50, own), undefined);
  rmSync(join(proc, "50"), { recursive: true });
  assert.equal(processes.look(50, own), undefined);
  assert.equal(processes.same(first), false);
});

test("hostile sizes: a huge cgroup.procs, a thousand folders, a deep one; and a pod's first process is still seen", (t) => {
  const { cgroup } = plant(t, "cgroup/cgroup.controllers = cpu");
  const pod = join(cgroup, "kubepods", `pod${UID}`);
  mkdirSync(join(pod, ID), { recursive: true });
  writeFileSync(join(pod, ID, "cgroup.procs"), Array.from({ length: 500_000 }, (_, i) => `${i + 1}\n`).join(""));
  for (let i = 0; i < 1000; i++) mkdirSync(join(pod, ID, `x${i}`));
  let deep = join(pod, "deep");
  for (let i = 0; i < 100; i++) deep = join(deep, "d");
  mkdirSync(deep, { recursive: true });
  const tree = new CgroupTree(cgroup);
  const started = performance.now();
  const folders = [...tree.pods(0).values()].flat();
  const pids = tree.pids(folders);
  assert.ok(performance.now() - started < 1000);
  assert.equal(folders.length, 1);
  assert.ok(pids.length > 0 && pids.length <= 24 && pids.includes(1));
});

test("pods that come and go are seen at once, a kubelet that starts later within a second", (t) => {
  const { cgroup } = plant(t, "cgroup/cgroup.controllers = cpu\ncgroup/system.slice/");
  const tree = new CgroupTree(cgroup);
  assert.equal(tree.pods(0).size, 0);
  const add = (uid: string): void =>
    void mkdirSync(join(cgroup, "kubepods.slice", "kubepods-burstable.slice", `kubepods-burstable-pod${uid.replaceAll("-", "_")}.slice`), {
      recursive: true,
    });
  add(UID);
  assert.equal(tree.pods(500).size, 0);
  assert.deepEqual([...tree.pods(1000).keys()], [UID]);
  add(OTHER);
  assert.deepEqual([...tree.pods(1001).keys()].sort(), [UID, OTHER].sort());
  rmSync(join(cgroup, "kubepods.slice"), { recursive: true });
  assert.equal(tree.pods(1002).size, 0);
});

test("no tree at all is no pod", () => {
  assert.equal(new CgroupTree("/nonexistent/cgroup").pods(0).size, 0);
  assert.deepEqual(new CgroupTree("/nonexistent").pids(["/nonexistent/a"]), []);
});
