// Everything in daemonset/ that is derived from the chart: install.yaml and what kustomize's base and overlays hold.
//
//   node scripts/manifests.mjs                    writes them
//   node scripts/manifests.mjs check              are they what the chart says?
//   node scripts/manifests.mjs render VALUES [notes]   prints the chart with these values (JSON, over the defaults)
//
// Renders with helm where it is on the PATH, else with test/daemonset/helm (apt-get install golang-go
// golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev). Exit codes: 0 done, 1 they differ, 2 cannot run.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const CHART = join(ROOT, "daemonset", "chart");
const RELEASE = "namegate";
const NAMESPACE = "namegate-system";
const GO = { GO111MODULE: "off", GOPATH: "/usr/share/gocode" };
const INSTALL = { namespace: { create: true } };

function stop(code, what, fix) {
  console.error(`manifests: ${what}${fix === undefined ? "" : `\nfix: ${fix}`}`);
  process.exit(code);
}

function run(program, args, env = {}) {
  const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8", env: { ...process.env, ...env } });
  if (error?.code === "ENOENT") return undefined;
  if (status !== 0) stop(1, `${program}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

/** The renderer, built once (3 s). */
function renderer() {
  const source = join(ROOT, "test", "daemonset", "helm", "main.go");
  const built = join(ROOT, "test", "daemonset", "helm", "build", "helm-template");
  if (existsSync(built) && statSync(built).mtimeMs > statSync(source).mtimeMs) return built;
  mkdirSync(dirname(built), { recursive: true });
  const temporary = `${built}.${process.pid}`; // several tests may build at once
  if (run("go", ["build", "-o", temporary, source], GO) === undefined)
    stop(2, "there is neither helm nor go", "apt-get install golang-go golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev");
  run("mv", [temporary, built]);
  return built;
}

/** Helm's merge: objects by key, everything else replaced. */
function merge(under, over) {
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  if (!isObject(under) || !isObject(over)) return over;
  const keys = new Set([...Object.keys(under), ...Object.keys(over)]);
  return Object.fromEntries(
    [...keys].map((key) => [key, key in over ? (key in under ? merge(under[key], over[key]) : over[key]) : under[key]]),
  );
}

function render(values, notes = false) {
  const folder = mkdtempSync(join(tmpdir(), "namegate-chart-"));
  const file = join(folder, "values.json");
  try {
    writeFileSync(file, JSON.stringify(values));
    const byHelm = notes ? undefined : run("helm", ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", file]);
    if (byHelm !== undefined) return byHelm;
    writeFileSync(file, JSON.stringify(merge(parse(readFileSync(join(CHART, "values.yaml"), "utf8")), values)));
    return run(renderer(), [CHART, RELEASE, NAMESPACE, file, ...(notes ? ["--notes"] : [])]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The documents of these kinds (and, where given, of this name). */
function only(text, kind, name) {
  return text
    .split(/^---\n/m)
    .filter(
      (part) => new RegExp(`^kind: ${kind}$`, "m").test(part) && (name === undefined || new RegExp(`^  name: ${name}$`, "m").test(part)),
    )
    .map((part) => part.replace(/^# Source: .*\n/, ""))
    .join("---\n");
}

/** Path below daemonset/ → text. */
function derived() {
  const install = render(INSTALL);
  const head = "# Derived from daemonset/chart by `npm run manifests`; change that.\n";
  const starter = (mode) => `${head}${only(render({ ...INSTALL, starter: { mode } }), "ConfigMap", "namegate-starter")}`;
  return {
    "install.yaml": head + install,
    "kustomize/base/install.yaml": head + install,
    "kustomize/overlays/discover/starter.yaml": starter("Discover"),
    "kustomize/overlays/monitor/starter.yaml": starter("Monitor"),
    "kustomize/overlays/enforce/starter.yaml": starter("Enforce"),
    "kustomize/overlays/openshift/scc.yaml": head + only(render({ openshift: { enabled: true } }), "SecurityContextConstraints"),
    "kustomize/overlays/gke/quota.yaml": head + only(render({ gke: { enabled: true } }), "ResourceQuota"),
  };
}

const [mode = "write", values = "{}", notes] = process.argv.slice(2);
switch (mode) {
  case "write":
    for (const [path, text] of Object.entries(derived())) writeFileSync(join(ROOT, "daemonset", path), text);
    break;
  case "check": {
    const differ = Object.entries(derived()).flatMap(([path, text]) => {
      const file = join(ROOT, "daemonset", path);
      return existsSync(file) && readFileSync(file, "utf8") === text ? [] : [`daemonset/${path}`];
    });
    if (differ.length > 0) stop(1, `not what the chart says: ${differ.join(", ")}`, "npm run manifests");
    break;
  }
  case "render":
    process.stdout.write(render(JSON.parse(values), notes === "notes"));
    break;
  default:
    stop(2, `no mode ${mode}`, "write, check or render");
}
