// Everything in daemonset/ that is derived from the chart: install.yaml, uninstall.yaml and what kustomize's base and overlays hold.
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
import { parse, parseAllDocuments, stringify } from "yaml";

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

/** `patches` of a kustomization that make `from` of `to`: what differs in data, annotations and containers, and what is not there. */
function kustomization(from, to) {
  const key = ({ kind, metadata }) => `${kind} ${metadata.namespace ?? ""} ${metadata.name}`;
  const objects = (text) => new Map(parseAllDocuments(text).flatMap((one) => (one.toJS() === null ? [] : [[key(one.toJS()), one.toJS()]])));
  const [before, after] = [objects(from), objects(to)];
  const patches = [];
  for (const [name, { apiVersion, kind, metadata, ...old }] of before) {
    const place = { apiVersion, kind, metadata: { name: metadata.name, ...(metadata.namespace && { namespace: metadata.namespace }) } };
    const now = after.get(name);
    if (now === undefined) patches.push({ $patch: "delete", ...place });
    else if (JSON.stringify(now) !== JSON.stringify({ apiVersion, kind, metadata, ...old })) {
      const { metadata: meta, ...rest } = difference({ metadata, ...old }, now);
      // metadata last: kustomize takes a text at the end of a patch without its newline.
      patches.push({ apiVersion, kind, ...rest, metadata: { ...place.metadata, ...meta } });
    }
  }
  return stringify({
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: ["../../base", "platform.yaml"],
    patches: patches.map((patch) => ({ patch: stringify(patch, { lineWidth: 0 }) })),
  });
}

/** What `now` has and `old` has not; of lists of named things, by name. */
function difference(old, now) {
  if (Array.isArray(now)) {
    if (!now.every((one) => one?.name !== undefined)) return now;
    const changed = now.filter((one) => JSON.stringify(one) !== JSON.stringify(old.find(({ name }) => name === one.name)));
    return changed.map((one) => ({ ...difference(old.find(({ name }) => name === one.name) ?? {}, one), name: one.name }));
  }
  if (typeof now !== "object" || now === null) return now;
  const changed = Object.entries(now).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(old?.[key]));
  return Object.fromEntries(changed.map(([key, value]) => [key, old?.[key] === undefined ? value : difference(old[key], value)]));
}

/** Path below daemonset/ → text. */
function derived() {
  const install = render(INSTALL);
  const head = "# Derived from daemonset/chart by `npm run manifests`; change that.\n";
  const starter = (mode) => `${head}${only(render({ ...INSTALL, starter: { mode } }), "ConfigMap", "namegate-starter")}`;
  const openshift = render({ ...INSTALL, openshift: { enabled: true } });
  const platform = ["SecurityContextConstraints", "Role", "RoleBinding"].map((kind) => only(openshift, kind)).join("---\n");
  return {
    "install.yaml": head + install,
    // One file for all nodes: without SELinux its options are not looked at.
    "uninstall.yaml": head + only(render({ uninstall: true, seLinuxOptions: { type: "spc_t" } }), "DaemonSet"),
    "kustomize/base/install.yaml": head + install,
    "kustomize/overlays/discover/starter.yaml": starter("Discover"),
    "kustomize/overlays/monitor/starter.yaml": starter("Monitor"),
    "kustomize/overlays/enforce/starter.yaml": starter("Enforce"),
    "kustomize/overlays/openshift/platform.yaml": head + platform,
    "kustomize/overlays/openshift/kustomization.yaml": head + kustomization(install, openshift),
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
