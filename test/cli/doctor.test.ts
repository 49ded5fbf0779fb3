import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { doctor } from "../../src/cli/doctor.ts";
import type { Finding } from "../../src/cli/doctor-finding.ts";
import { culprits } from "../../src/cli/doctor-trial.ts";
import { insideNamespace, run } from "../firewall/netns.ts";

interface Answer {
  readonly able: boolean;
  readonly kernel: string;
  readonly checks: readonly Finding[];
}

async function ask(...argv: string[]): Promise<{ code: number; stdout: string }> {
  let stdout = "";
  const code = await doctor(argv, { stdout: { write: (part) => (stdout += part) }, stderr: { write: () => undefined } });
  return { code, stdout };
}
async function examine(...argv: string[]): Promise<{ code: number; answer: Answer; of: (check: string) => Finding | undefined }> {
  const { code, stdout } = await ask("-o", "json", "--socket", "/nonexistent/agent.sock", ...argv);
  const answer = JSON.parse(stdout) as Answer;
  return { code, answer, of: (check) => answer.checks.find((finding) => finding.check === check) };
}

test("usage", async () => {
  for (const argv of [["x"], ["--what"], ["-o", "xml"], ["--iptables", "ebtables"], ["--queue-base", "-1"], ["--queue-base", "65530"]]) {
    await assert.rejects(ask(...argv), { name: "Error" }, argv.join(" "));
  }
  await assert.rejects(ask("--mark-mask", "0x3"), { code: "mark-mask" });
});

test("which modules are lacking", () => {
  const refused = [
    '-p tcp -m connmark --mark 0x1/0x7 -m bpf --bytecode "1,6 0 0 1" -j NFQUEUE --queue-num 1',
    "-m bpf -j RETURN",
    "-j SET --map-set a src",
  ];
  assert.deepEqual(culprits(refused, ["-m connmark --mark 0x1 -g NG-CLEAR", "-j NFQUEUE --queue-num 2"]), ["xt_bpf", "xt_set"]);
  assert.deepEqual(culprits([], ["-m set -j DROP"]), []);
});

if (insideNamespace(import.meta.url, ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ipset", "setpriv", "tc"])) {
  const state = (): string =>
    ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"]
      .map((command) => run(command))
      .concat(run("ipset", "save"))
      .join("\n")
      .replace(/^#.*$|\[\d+:\d+\]/gm, "");

  test("a good node is able, in both variants, and nothing of it is changed", async () => {
    await examine(); // looking at a legacy table makes the kernel show it
    const before = state();
    for (const variant of ["nft", "legacy"]) {
      const { code, answer, of } = await examine("--iptables", variant);
      assert.deepEqual(
        answer.checks.filter(({ status }) => status === "failed"),
        [],
      );
      assert.deepEqual([code, answer.able], [0, true]);
      assert.match(of("iptables")?.found ?? "", new RegExp(`iptables-${variant}`));
      for (const check of [
        "privilege",
        "addon",
        "ipset",
        "sets",
        "rules IPv4",
        "rules IPv6",
        "queues",
        "conntrack",
        "packets",
        "interfaces",
        "raw sockets",
        "marks",
        "leftovers",
        "agent",
      ]) {
        assert.equal(of(check)?.status, "ok", check);
      }
      assert.match(of("rules IPv6")?.found ?? "", /^all \d+ rules of raw, mangle, filter, security are taken$/);
    }
    assert.equal(state(), before);
  });

  test("text ends with the verdict", async () => {
    const { code, stdout } = await ask("--socket", "/nonexistent/agent.sock");
    assert.equal(code, 0);
    assert.match(stdout, /^namegate \d.*Linux/);
    assert.match(stdout, /\nok {6}rules IPv4 {3,}all /);
    assert.match(stdout, /\n\nthis node can enforce.*\n$/);
  });

  test("a mark that somebody else uses", async () => {
    run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "CONNMARK", "--set-xmark", "0x40/0x40");
    try {
      const { code, of } = await examine("--iptables", "nft");
      assert.deepEqual([code, of("marks")?.status], [1, "failed"]);
      assert.match(of("marks")?.found ?? "", /sets connmark bits 0x40/);
      assert.match(
        (await ask("--iptables", "nft", "--socket", "/nonexistent")).stdout,
        /\nFAILED {2}marks .*\n +fix: choose three other bits.*\n/,
      );
      // Another mask has no quarrel; the other variant's rules are only worth a warning.
      assert.equal((await examine("--iptables", "nft", "--mark-mask", "0xe00")).code, 0);
      assert.equal((await examine("--iptables", "legacy")).of("marks")?.status, "warn");
    } finally {
      run("iptables-nft", "-t", "mangle", "-D", "PREROUTING", "1");
    }
  });

  test("leftovers of an agent that is gone", async () => {
    run("iptables-nft", "-t", "mangle", "-N", "NG-ADMIT");
    run("ipset", "create", "ng-deny4", "hash:ip,port,ip", "timeout", "0");
    try {
      const { code, of } = await examine("--iptables", "nft");
      assert.deepEqual([code, of("leftovers")?.status], [0, "warn"]);
      assert.match(of("leftovers")?.found ?? "", /^1 chains in iptables-nft, 1 sets, and no agent/);
      assert.match((await examine("--iptables", "legacy")).of("leftovers")?.found ?? "", /second time/);
    } finally {
      run("iptables-nft", "-t", "mangle", "-X", "NG-ADMIT");
      run("ipset", "destroy", "ng-deny4");
    }
  });

  test("a tc filter that takes a pod's packets past netfilter", async () => {
    run("ip", "link", "add", "veth7", "type", "veth", "peer", "name", "veth8");
    run("tc", "qdisc", "add", "dev", "veth7", "clsact");
    const redirect = "ingress protocol all u32 match u32 0 0 action mirred egress redirect dev veth8".split(" ");
    run("tc", "filter", "add", "dev", "veth7", ...redirect);
    try {
      const { code, of } = await examine();
      assert.deepEqual([code, of("interfaces")?.status], [1, "failed"]);
      assert.match(of("interfaces")?.found ?? "", /^veth7: a tc filter that redirects to veth8\n/);
    } finally {
      run("ip", "link", "del", "veth7");
    }
    assert.equal((await examine()).of("interfaces")?.status, "ok");
  });

  test("a queue number that somebody else holds", async () => {
    const addon = new URL("../../src/base/addon.js", import.meta.url).href;
    const options = {
      queue: 4042,
      copyRange: 64,
      maxLength: 8,
      receiveBuffer: 65_536,
      batch: 1,
      gso: true,
      failOpen: true,
      deadlineMs: 1000,
      deadlineVerdict: 1,
    };
    const code = `import { addon } from "${addon}"; new (addon().PacketQueue)(${JSON.stringify(options)}).start(() => {}, () => {}); console.log("bound");`;
    const holder = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      await once(holder.stdout, "data");
      const { code: exit, of } = await examine();
      assert.deepEqual([exit, of("queue numbers")?.status], [1, "failed"]);
      assert.match(of("queue numbers")?.found ?? "", /^4042 are held/);
      assert.equal((await examine("--queue-base", "5000")).code, 0);
    } finally {
      holder.kill();
      await once(holder, "exit");
    }
  });

  test("an iptables without the bpf match: which rules, and what is lacking", async () => {
    const folder = mkdtempSync(join(tmpdir(), "namegate-doctor-"));
    const path = process.env["PATH"];
    const real = run("which", "iptables-nft-restore").trim();
    const script = `#!/bin/sh\nt=$(cat)\ncase "$t" in *"-m bpf"*) echo "Couldn't load match \\\`bpf'" >&2; exit 2;; esac\necho "$t" | exec ${real} "$@"\n`;
    writeFileSync(join(folder, "iptables-nft-restore"), script, { mode: 0o755 });
    process.env["PATH"] = `${folder}:${path}`;
    try {
      const { code, of } = await examine("--iptables", "nft");
      assert.deepEqual([code, of("rules IPv4")?.status, of("rules IPv6")?.status], [1, "failed", "ok"]);
      assert.match(of("rules IPv4")?.found ?? "", /^\d of \d+ rules are refused: .*bpf/s);
      assert.match(of("rules IPv4")?.fix ?? "", /lacks xt_bpf: /);
    } finally {
      process.env["PATH"] = path;
      rmSync(folder, { recursive: true });
    }
  });

  test("an agent that does not do what the policies ask for", async () => {
    const folder = mkdtempSync(join(tmpdir(), "namegate-doctor-"));
    const socket = join(folder, "agent.sock");
    let effectiveMode = "None";
    const server = createServer((client) =>
      client.on("data", () => client.end(`${JSON.stringify({ ready: true, mode: "Enforce", effectiveMode })}\n`)),
    );
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      assert.match((await ask("--socket", socket)).stdout, /\nFAILED {2}agent .*mode Enforce, in effect None\n/);
      effectiveMode = "Enforce";
      assert.equal((await ask("--socket", socket)).code, 0);
    } finally {
      server.close();
      rmSync(folder, { recursive: true });
    }
  });

  test("without the capabilities it says so and tries nothing", () => {
    const url = new URL("../../src/cli/doctor.js", import.meta.url).href;
    const code = `import { doctor } from "${url}"; console.log(await doctor(["--socket", "/nonexistent"], process));`;
    const stdout = run("setpriv", "--bounding-set=-net_admin", process.execPath, "--input-type=module", "-e", code);
    assert.match(stdout, /\nFAILED {2}privilege +this process lacks CAP_NET_ADMIN\n +fix: /);
    assert.match(stdout, /this node can NOT enforce: .*\n1\n$/);
  });
}
