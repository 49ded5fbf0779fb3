import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { folderFor, IMAGE_COMMANDS, imageOf, manifestCapabilities } from "../support/image.ts";
import { need, ROOT } from "../support/need.ts";

/**
 * There is no Docker engine where these tests run. What they do: read the Dockerfile, copy what it copies, run the build stage's
 * commands on it (with this machine's Node and node_modules, without apt-get and npm ci), gather what the final stage copies, and
 * run its last commands where nothing else of this machine is but /usr and /etc. What stays unproved: that the images and Debian
 * packages it names exist, `npm ci` inside, and arm64.
 */
interface Instruction {
  readonly word: string;
  readonly text: string;
}

/** Stages in order; ARGs before the first FROM are stage 0's. */
const stages = read(readFileSync(join(ROOT, "daemonset", "Dockerfile"), "utf8"));
const [args, build, final] = stages as [Instruction[], Instruction[], Instruction[]];
const of = (stage: readonly Instruction[], word: string): string[] => stage.filter((one) => one.word === word).map(({ text }) => text);
const ignored = ignoreRules(readFileSync(join(ROOT, ".dockerignore"), "utf8"));
/** What the build stage copies: [from, to]. */
const copies = of(build, "COPY").flatMap((text) => {
  const words = text.split(/\s+/);
  const to = words.pop() as string;
  return words.map((from) => [from, to] as const);
});

test("two stages, on images with a version", () => {
  assert.equal(stages.length, 3);
  const images = Object.fromEntries(of(args, "ARG").map((text) => text.split("=") as [string, string]));
  assert.match(images["NODE_IMAGE"] ?? "", /^node:\d+\.\d+\.\d+-[a-z]+-slim$/);
  assert.match(images["BASE_IMAGE"] ?? "", /^debian:[a-z]+-slim$/);
  assert.equal(images["NODE_IMAGE"]?.split("-")[1], images["BASE_IMAGE"]?.replace("debian:", "").split("-")[0], "one release of Debian");
  assert.deepEqual(of(build, "FROM"), ["${NODE_IMAGE} AS build"]);
  assert.deepEqual(of(final, "FROM"), ["${BASE_IMAGE}"]);
});

test("what is copied is there, and .dockerignore lets it through and nothing else of the top level", () => {
  for (const [from] of copies) {
    assert.ok(existsSync(join(ROOT, from)), from);
    assert.ok(!ignored(from), `${from} is ignored`);
  }
  const passed = readdirSync(ROOT).filter((name) => !ignored(name));
  assert.deepEqual(passed.sort(), [...new Set(copies.map(([from]) => from))].sort());
  for (const path of ["node_modules", "native/build", "native/test", "test", ".git"]) assert.ok(ignored(path), path);
});

test("the final stage has no compiler, and starts what the manifest starts", () => {
  const installed = of(final, "RUN").flatMap(
    (text) => /apt-get install -y --no-install-recommends ([^&]+)/.exec(text)?.[1]?.trim().split(/\s+/) ?? [],
  );
  assert.deepEqual(installed, ["iproute2", "iptables", "libpcap0.8t64", "libstdc++6"]);
  assert.deepEqual(of(final, "USER"), ["0:0"]);
  const start = [
    ...(JSON.parse(of(final, "ENTRYPOINT")[0] as string) as string[]),
    ...(JSON.parse(of(final, "CMD")[0] as string) as string[]),
  ];
  assert.deepEqual(start, ["namegate", "agent", "--config=/etc/namegate/config.yaml"]);
  const install = readFileSync(join(ROOT, "daemonset", "install.yaml"), "utf8");
  for (const word of start.slice(1)) assert.ok(install.includes(`- ${word}\n`), word);
  assert.ok(
    of(final, "COPY").every((text) => text.startsWith("--from=build ")),
    "nothing of the checkout",
  );
});

test("every program that the agent and its commands run is in the image", () => {
  const packages = new Set(["iproute2", "iptables"]);
  const bringsIt: Readonly<Record<string, string>> = { ip: "iproute2", tc: "iproute2", iptables: "iptables", ip6tables: "iptables" };
  /** Of Debian's essential packages. */
  const essential = new Set(["unshare", "sleep"]);
  const programs = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
    // The lab and the demo are for checkouts, the plugin is for an operator's machine.
    .filter((file) => file.endsWith(".ts") && !/^cli\/(lab|demo|kubectl)/.test(file))
    .flatMap((file) => {
      const text = readFileSync(join(ROOT, "src", file), "utf8");
      return [...text.matchAll(/(?<![.\w])(?:execFile|spawn|spawnSync|runTool|has|execute)\(\s*\[?"([a-z0-9-]+)"/g)].map(
        ([, name = ""]) => [name, file] as const,
      );
    });
  assert.ok(programs.length > 3, "the pattern finds what there is");
  for (const [name, file] of programs) {
    const plain = name.replace(/-(nft|legacy)(-save)?$/, "");
    assert.ok(
      essential.has(name) || packages.has(bringsIt[plain] ?? ""),
      `${name} of ${file}: add its package to the Dockerfile, and here`,
    );
  }
});

test("the stages' commands, replayed", async (t) => {
  if (!need(t, { root: true, addon: true, commands: ["g++", "make", "python3", ...IMAGE_COMMANDS] })) return;
  const folder = folderFor(t);
  const source = join(folder, "src");
  mkdirSync(source);
  for (const [from, to] of copies)
    cpSync(join(ROOT, from), to.endsWith("/") ? join(source, to, from) : join(source, to), {
      recursive: true,
      filter: (path) => !ignored(path.slice(ROOT.length + 1)),
    });
  symlinkSync(join(ROOT, "node_modules"), join(source, "node_modules"));
  const commands = of(build, "RUN").filter((text) => !/^(apt-get|npm ci|case) /.test(text));
  assert.equal(commands.length, 1, "every other RUN is replayed");
  for (const command of commands) {
    const done = spawnSync("sh", ["-ec", command], { cwd: source, encoding: "utf8", timeout: 170_000 });
    assert.equal(done.status, 0, `${command}\n${done.stdout}${done.stderr}`);
  }

  const image = join(folder, "final");
  for (const text of of(final, "COPY")) {
    const [, from = "", to = ""] = text.split(/\s+/);
    if (from === "/usr/local/bin/node") continue; // imageOf brings this machine's
    assert.ok(to.startsWith("/opt/namegate"), to);
    mkdirSync(dirname(join(image, to)), { recursive: true });
    cpSync(join(folder, from), join(image, to), { recursive: true });
  }
  rmSync(source, { recursive: true });
  const smoke = of(final, "RUN").at(-1) as string;
  assert.match(smoke, /^ln -s \/opt\/namegate\/main\.js \/usr\/local\/bin\/namegate && /);
  const container = imageOf(t, join(image, "opt", "namegate"));
  // The root is read-only here, so the link is made where it may be; /opt/node is the node of `#!/usr/bin/env node`.
  const script = smoke
    .replace("/usr/local/bin/namegate", "$bin/namegate")
    .replace(/^/, "bin=$BIN; export PATH=$bin:$PATH; ln -s /opt/node $bin/node && ");
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const argv = container.inside({ keep: [bin], capabilities: manifestCapabilities() });
  const done = spawnSync(argv[0] as string, [...argv.slice(1), "sh", "-ec", script], {
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", BIN: bin },
  });
  assert.equal(done.status, 0, `${script}\n${done.stdout}${done.stderr}`);
  assert.match(done.stdout, /^\d+\.\d+\.\d+\n$/);
});

/** Instructions with their continuation lines joined by one blank. */
function read(text: string): Instruction[][] {
  const stages: Instruction[][] = [[]];
  const whole = text
    .split("\n")
    .filter((line) => !/^\s*(#|$)/.test(line))
    .join("\n")
    .replace(/\s*\\\n\s*/g, " ");
  for (const line of whole.split("\n")) {
    const [, word = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? assert.fail(`no instruction: ${line}`);
    if (word === "FROM") stages.push([]);
    stages.at(-1)?.push({ word, text: rest });
  }
  return stages;
}

/** .dockerignore of names without wildcards (but `*` alone): the last rule that fits a path or a folder above it counts. */
function ignoreRules(text: string): (path: string) => boolean {
  const rules = text.split("\n").flatMap((line) => {
    const rule = line.trim();
    if (rule === "" || rule.startsWith("#")) return [];
    const path = rule.replace(/^!/, "").replace(/\/$/, "");
    assert.ok(path === "*" || !path.includes("*"), `a rule that this test does not know: ${rule}`);
    return [{ path, out: !rule.startsWith("!") }];
  });
  return (path) => {
    let out = false;
    for (const rule of rules) if (rule.path === "*" || path === rule.path || path.startsWith(`${rule.path}/`)) out = rule.out;
    return out;
  };
}
