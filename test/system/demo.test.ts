import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { Child, execute } from "../../src/cli/lab-process.ts";
import { MAIN } from "../support/agent.ts";
import { LAB_COMMANDS } from "../support/lab.ts";
import { need } from "../support/need.ts";

const NEEDS = { root: true, addon: true, commands: [...LAB_COMMANDS, "openssl"] } as const;
const DEMO = [process.execPath, MAIN, "demo"];

/** What a demo with this process id left: namespaces, folders, processes in its namespaces. */
async function left(pid: number): Promise<string[]> {
  const prefix = `namegate-lab-${pid.toString(36)}-`;
  const names = ["/run/netns", "/etc/netns", tmpdir()].flatMap((folder) => {
    try {
      return readdirSync(folder).filter((name) => name.startsWith(prefix));
    } catch {
      return [];
    }
  });
  const { stdout } = await execute(["ps", "-eo", "pid,args"]);
  return [...names, ...stdout.split("\n").filter((line) => line.includes(prefix))];
}

test("the demo plays every scene as it should be, and leaves nothing", async (t) => {
  if (!need(t, NEEDS)) return;
  const child = new Child(DEMO);
  t.after(() => child.kill("SIGKILL"));
  const status = await child.exited;
  const text = child.out.join("\n");
  assert.equal(status, 0, `${text}\n${child.err.join("\n")}`);
  assert.equal(child.err.join("\n"), "");
  for (const wanted of [
    /evil\.example\.net\n +ok +connected in .*\n/,
    /the agent starts, as on a real node: ready after \d+ ms/,
    /right behind the DNS reply\n +ok +connected in .*\n.* ALLOW .*\[tls, server name api\.stripe\.com\] by shop\/checkout\/stripe/,
    /over IPv6 .*\n +ok +connected/,
    /on another port\n +ok +refused in .*\n.* DENY .* wrong-port/,
    /no DNS reply named\n +ok +refused in .*\n.* DENY .* no-name/,
    /same CDN address .*\n +ok +reset .*\n.* DENY .*\[tls, server name paste\.example\.net\] wrong-server-name/,
    /SSH tunnel .*\n +ok +reset .*\n.* DENY .* wrong-protocol/,
    /smuggled .*\n +ok +the query was answered with REFUSED .*\n.* DENY .* name-not-allowed/,
    /shop\/frontend: evil\.example\.net.*\n +ok +refused .*\n.* DENY .* wrong-name/,
    /that shop\/checkout has learned\n +ok +refused .*\n.* DENY .* no-name/,
    /in Monitor mode.*\n +ok +connected .*\n.* WOULD-DENY/,
    /kill -9 of the agent\n +ok +the open PostgreSQL connection goes on: answered/,
    /to an address that no reply named: waits/,
    /bindings read back/,
    /the open connection: reset \d+ ms after the file was written/,
    /16 scenes in [\d.]+ s, all as they should be/,
  ]) {
    assert.match(text, wanted);
  }
  assert.doesNotMatch(text, /\bBAD\b|undefined|NaN/);
  assert.ok(!text.includes("\x1b"), "no colours without a terminal");
  assert.deepEqual(await left(child.pid as number), []);
});

test("a demo that is interrupted, while it is built or while it plays, leaves nothing", async (t) => {
  if (!need(t, NEEDS)) return;
  for (const [signal, at] of [
    ["SIGINT", "namegate demo"],
    ["SIGTERM", "on another port"],
  ] as const) {
    const child = new Child(DEMO);
    t.after(() => child.kill("SIGKILL"));
    await child.line((line) => line.includes(at), { timeoutMs: 20_000 });
    process.kill(child.pid as number, signal); // it alone, as the group of its children is another
    assert.equal(await child.exited, 130, child.err.join("\n"));
    assert.match(child.out.join("\n"), /interrupted; cleaning up/);
    assert.deepEqual(await left(child.pid as number), [], `${signal} at ${at}`);
  }
});

test("demo --keep says how to look around, and what it says works", async (t) => {
  if (!need(t, NEEDS)) return;
  const child = new Child([...DEMO, "--keep"]);
  t.after(() => child.kill("SIGKILL"));
  await child.line((line) => line.includes("left running until Ctrl-C"), { timeoutMs: 30_000 });
  const command = await child.line((line) => /what is enforced +(.*)$/.exec(line)?.[1]);
  const { status, stdout } = await execute(command.split(" "));
  assert.equal(status, 0, stdout);
  assert.match(stdout, /shop\/checkout +Enforce +yes/);
  assert.match(stdout, /shop\/reports +Monitor/);
  process.kill(child.pid as number, "SIGINT");
  assert.equal(await child.exited, 0, child.err.join("\n"));
  assert.deepEqual(await left(child.pid as number), []);
});

test("wrong usage of the demo is said, and help is help", async () => {
  const help = await execute([...DEMO, "--help"]);
  assert.deepEqual([help.status, help.stderr], [0, ""]);
  assert.match(help.stdout, /--keep/);
  assert.equal((await execute([...DEMO, "--kept"])).status, 2);
});
