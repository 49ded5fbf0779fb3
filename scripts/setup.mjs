// Installs and builds what a fresh machine lacks, and does nothing when nothing is missing (well under a second).
//
//   node scripts/setup.mjs demo    what `npm run demo` needs
//   node scripts/setup.mjs test    the same, and the programs that the system tests talk to
//   node scripts/setup.mjs bench   what `npm run demo` needs, and the programs that the benchmarks measure against
//   node scripts/setup.mjs build   no apt: npm packages, the native addon, TypeScript
//   node scripts/setup.mjs native | ts   one of the last two alone
//
// Plain Node: it must run before `npm ci`. Exit codes: 0 ready, 1 the build found errors, 2 cannot run here.
import { spawnSync } from "node:child_process";
import { accessSync, constants, cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE_MIN = [20, 11];

/** What must be there, and the Debian package that brings it. */
const BUILD = { python3: "python3", make: "make", "g++": "g++", clang: "clang", "/usr/include/pcap.h": "libpcap-dev" };
const RUN = {
  iptables: "iptables",
  ip6tables: "iptables",
  ipset: "ipset",
  ip: "iproute2",
  conntrack: "conntrack",
  openssl: "openssl",
  modprobe: "kmod",
};
const TEST = {
  dnsmasq: "dnsmasq-base",
  unbound: "unbound",
  curl: "curl",
  dig: "bind9-dnsutils",
  tc: "iproute2",
  nft: "nftables",
  ipvsadm: "ipvsadm",
  ping: "iputils-ping",
  sysctl: "procps",
};
/** Real clients and their servers (test/system/clients-*.test.ts). What another release does not have is done without: those tests are skipped. */
const CLIENTS = {
  "/usr/bin/python3": "python3",
  nginx: "nginx",
  squid: "squid",
  psql: "postgresql-client-15",
  "/usr/lib/postgresql/15/bin/postgres": "postgresql-15",
  mariadb: "mariadb-client",
  mariadbd: "mariadb-server",
  "redis-cli": "redis-tools",
  "redis-server": "redis-server",
  memcached: "memcached",
  swaks: "swaks",
  mosquitto: "mosquitto",
  mosquitto_pub: "mosquitto-clients",
  ssh: "openssh-client",
  "ssh-keygen": "openssh-client",
  "/usr/sbin/sshd": "openssh-server",
  slapd: "slapd",
  ldapsearch: "ldap-utils",
  "nats-server": "nats-server",
  caddy: "caddy",
  gtlsclient: "ngtcp2-client",
  gtlsserver: "ngtcp2-server",
  chromium: "chromium",
  kcat: "kcat",
  "amqp-publish": "amqp-tools",
  "/usr/lib/python3/dist-packages/pymongo": "python3-pymongo",
  "/usr/lib/python3/dist-packages/cassandra": "python3-cassandra",
  "/usr/lib/python3/dist-packages/grpc": "python3-grpcio",
  "/usr/lib/python3/dist-packages/websockets": "python3-websockets",
  kubectl: "kubernetes-client",
  // A collector for the alerts (test/alerts/syslog-real.test.ts).
  rsyslogd: "rsyslog",
  "/usr/share/doc/rsyslog-openssl": "rsyslog-openssl",
  // promtool reads /metrics and the alert rules (test/system/usage.test.ts).
  promtool: "prometheus",
  // What renders the Helm chart (test/daemonset/helm): there is no helm in Debian.
  go: "golang-go",
  "/usr/share/gocode/src/github.com/Masterminds/sprig": "golang-github-masterminds-sprig-dev",
  "/usr/share/gocode/src/sigs.k8s.io/yaml": "golang-k8s-sigs-yaml-dev",
};
/** What the benchmarks measure against. */
const PEERS = { dnsmasq: "dnsmasq-base", sniproxy: "sniproxy", haproxy: "haproxy", ndpiReader: "libndpi-bin" };
/** Packages whose service must not run on this machine because of us, and the service. */
const SERVICES = {
  unbound: "unbound",
  nginx: "nginx",
  squid: "squid",
  "postgresql-15": "postgresql",
  "mariadb-server": "mariadb",
  "redis-server": "redis-server",
  memcached: "memcached",
  mosquitto: "mosquitto",
  "openssh-server": "ssh",
  slapd: "slapd",
  "nats-server": "nats-server",
  caddy: "caddy",
  rsyslog: "rsyslog",
  prometheus: "prometheus",
  sniproxy: "sniproxy",
  haproxy: "haproxy",
};

const say = (text) => console.log(`setup: ${text}`);

function stop(what, fix) {
  console.error(`setup: ${what}\nfix: ${fix}`);
  process.exit(2);
}

/** Runs a program with its output shown; its exit status. */
function run(program, args, options = {}) {
  const { env, ...rest } = options;
  const done = spawnSync(program, args, { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, ...env }, ...rest });
  if (done.error !== undefined) console.error(`setup: ${program}: ${done.error.message}`);
  return done.status ?? 1;
}

function executable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function present(thing) {
  if (thing.startsWith("/")) return existsSync(thing);
  const folders = [...(process.env.PATH ?? "").split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin"];
  return folders.some((folder) => executable(join(folder, thing)));
}

function lacking(wanted) {
  const packages = Object.entries(wanted).flatMap(([thing, name]) => (present(thing) ? [] : [name]));
  return [...new Set(packages)];
}

/** apt-get install without letting a new package start its service. Debian asks policy-rc.d first; 101 means "do not". */
function aptInstall(packages, clients) {
  const policy = "/usr/sbin/policy-rc.d";
  const ours = !existsSync(policy);
  const env = { DEBIAN_FRONTEND: "noninteractive", NEEDRESTART_SUSPEND: "1" };
  const install = (names) =>
    names.length === 0
      ? 0
      : run("apt-get", ["-o", "DPkg::Lock::Timeout=120", "install", "-y", "-q", "--no-install-recommends", ...names], { env });
  const remove = () => rmSync(policy, { force: true });
  if (ours) {
    // Also where we stop in the middle: left behind, it would keep every later package's service from starting.
    process.once("exit", remove);
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(2));
    writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  }
  try {
    const all = [...packages, ...clients];
    // The lists of a fresh machine are empty, those of an old one out of date: ask for new ones only then.
    if (install(all) !== 0 && (run("apt-get", ["update", "-q"], { env }) !== 0 || install(all) !== 0)) {
      if (install(packages) !== 0)
        stop(`apt-get could not install ${packages.join(" ")}`, "read its messages above; is the network there?");
      for (const name of clients) if (install([name]) !== 0) say(`${name} is not to be had here: the tests that need it are skipped`);
    }
  } finally {
    if (ours) remove();
  }
  // Not started now, and not at the next boot either.
  if (!existsSync("/run/systemd/system")) return;
  for (const name of [...packages, ...clients]) if (name in SERVICES) run("systemctl", ["disable", "--now", "--quiet", SERVICES[name]]);
}

/** `optional`: what a user without root can do without (the system tests need root anyway). `clients`: nice to have. */
function system(wanted, optional, clients) {
  const root = process.getuid() === 0;
  const needed = lacking({ ...wanted, ...optional });
  const more = lacking(clients).filter((name) => !needed.includes(name));
  const packages = [...needed, ...more];
  if (packages.length === 0) return;
  const command = `apt-get update && apt-get install -y --no-install-recommends ${packages.join(" ")}`;
  if (!present("apt-get"))
    stop(
      `missing here: ${packages.join(" ")} (Debian's names), and there is no apt-get`,
      "install them with your system's package manager",
    );
  if (root) {
    say(`installing ${packages.join(" ")}`);
    aptInstall(needed, more);
    const still = lacking({ ...wanted, ...optional });
    if (still.length > 0) stop(`installed, and yet not found: ${still.join(" ")}`, "look at the PATH");
    return;
  }
  if (lacking(wanted).length > 0) stop(`missing: ${packages.join(" ")}, and installing them needs root`, `sudo sh -c '${command}'`);
  say(`not installed (only system tests need them): ${packages.join(" ")}`);
}

/** The headers that came with this Node; without them node-gyp downloads them. */
function headers() {
  const prefix = dirname(dirname(process.execPath));
  return existsSync(join(prefix, "include", "node", "node_api.h")) ? prefix : undefined;
}

/** Is every package of the lockfile there in its version? Optional ones may be missing (other platforms, no libpcap). */
function packagesCurrent() {
  try {
    const read = (file) => JSON.parse(readFileSync(join(ROOT, file), "utf8")).packages;
    const installed = read("node_modules/.package-lock.json");
    return Object.entries(read("package-lock.json")).every(
      ([path, { version, optional }]) =>
        path === "" || (installed[path] === undefined ? optional === true : installed[path].version === version),
    );
  } catch {
    return false;
  }
}

function npmPackages() {
  const prefix = headers();
  // npm 11 warns of settings of node-gyp among its own, npm 10's node-gyp knows them nowhere else.
  const major = Number(
    /npm\/(\d+)/.exec(process.env.npm_config_user_agent ?? spawnSync("npm", ["-v"], { encoding: "utf8" }).stdout.replace(/^/, "npm/"))?.[1],
  );
  const setting = major >= 11 ? "npm_package_config_node_gyp_nodedir" : "npm_config_nodedir";
  const env = prefix === undefined || process.env.npm_config_nodedir !== undefined ? {} : { [setting]: prefix };
  if (!packagesCurrent()) {
    say("npm ci");
    if (run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { env }) !== 0)
      stop("npm ci failed", "read its messages above; is the registry reachable?");
  }
  const binding = join(ROOT, "node_modules", "pcap", "build", "Release", "pcap_binding.node");
  if (existsSync(binding)) {
    try {
      createRequire(import.meta.url)(binding);
    } catch {
      say("rebuilding pcap for this version of Node");
      run("npm", ["rebuild", "pcap", "--loglevel=error"], { env });
    }
  } else {
    say("pcap (live passive capture) is not built; everything else works. With libpcap-dev installed: npm rebuild pcap");
  }
}

/** Files below a folder, not in folders that are built. */
function files(folder, skip = new Set(["build", "node_modules"])) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skip.has(entry.name) ? [] : files(path, skip);
    return [path];
  });
}

/** Newest change of these files, and of the folders that hold them (a file that has gone). */
function newest(paths) {
  return Math.max(0, ...paths.flatMap((path) => [path, dirname(path)]).map((path) => statSync(path).mtimeMs));
}

function age(file) {
  return existsSync(file) ? statSync(file).mtimeMs : -1;
}

function native() {
  const folder = join(ROOT, "native");
  if (!existsSync(join(folder, "binding.gyp"))) return;
  const built = join(folder, "build", "Release", "namegate.node");
  const sources = files(folder, new Set(["build", "test", "fuzz"])).filter((file) => /\.(c|cc|h|gyp|gypi)$/.test(file));
  if (age(built) > Math.max(...sources.map((file) => statSync(file).mtimeMs))) return;
  say("building the native addon");
  const prefix = headers();
  const args = ["rebuild", "-C", "native", "--loglevel=error", ...(prefix === undefined ? [] : [`--nodedir=${prefix}`])];
  // make says what it does on stdout, compilers what is wrong on stderr.
  const stdio = ["ignore", "ignore", "inherit"];
  if (run(process.execPath, [join(ROOT, "node_modules", "node-gyp", "bin", "node-gyp.js"), ...args], { stdio }) !== 0) {
    console.error("setup: the native addon does not build\nfix: read the compiler's messages above");
    process.exit(1);
  }
}

/**
 * The programs that run in the kernel (native/hello.bpf.c). They are a short cut: without them everything else works. Each Debian
 * and Ubuntu since 2020 has a compiler that is new enough.
 */
function bpf() {
  const source = join(ROOT, "native", "hello.bpf.c");
  const built = join(ROOT, "native", "build", "Release", "hello.bpf.o");
  if (age(built) > age(source)) return;
  const compiler = ["clang", ...[14, 15, 16, 17, 18, 19, 20, 21, 22, 13, 12, 11, 10].map((version) => `clang-${version}`)].find(present);
  if (compiler === undefined) {
    say("clang is not installed: the packet thread will read every ClientHello (with it, the kernel knows those that were read before)");
    return;
  }
  say("building the programs for the kernel");
  const flags = ["-O2", "-target", "bpfel", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-c"];
  if (run(compiler, [...flags, source, "-o", built]) !== 0) {
    console.error("setup: native/hello.bpf.c does not build\nfix: read the compiler's messages above");
    process.exit(1);
  }
}

/** dist/ holds what the sources give and nothing else: a test that was removed must not run on. */
function prune(dist) {
  for (const file of files(dist, new Set())) {
    const source = join(ROOT, relative(dist, file)).replace(/\.map$/, "");
    if (file.endsWith(".stamp") || existsSync(source) || existsSync(source.replace(/\.js$/, ".ts"))) continue;
    rmSync(file);
  }
}

function typescript() {
  const dist = join(ROOT, "dist");
  const stamp = join(dist, "build.stamp");
  const sources = ["src", "test", "bench"].flatMap((folder) => files(join(ROOT, folder), new Set()));
  const inputs = [...sources, join(ROOT, "tsconfig.json"), join(ROOT, "node_modules", ".package-lock.json")];
  if (age(stamp) > newest(inputs.filter((file) => existsSync(file)))) return;
  say("tsc");
  const started = new Date();
  prune(dist);
  if (run(join(ROOT, "node_modules", ".bin", "tsc"), ["-p", "."]) !== 0) {
    console.error("setup: TypeScript found errors\nfix: read them above");
    process.exit(1);
  }
  cpSync(join(ROOT, "src", "page", "static"), join(dist, "src", "page", "static"), { recursive: true });
  writeFileSync(stamp, "");
  utimesSync(stamp, started, started); // what was written while tsc ran is newer
}

const [major, minor] = process.versions.node.split(".").map(Number);
if (process.platform !== "linux") stop(`namegate runs on Linux, not on ${process.platform}`, "use a Linux machine or VM");
if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
  stop(`Node ${process.versions.node} is too old`, `install Node ${NODE_MIN.join(".")} or newer`);
}
const mode = process.argv[2];
switch (mode) {
  case "demo":
  case "test":
  case "bench":
  case "build":
    if (mode === "demo" && process.getuid() !== 0)
      stop(
        "the demo makes network namespaces and needs root",
        'sudo npm run demo (npm not found? then: sudo env "PATH=$PATH" npm run demo)',
      );
    if (mode === "demo") system({ ...BUILD, ...RUN }, {}, {});
    if (mode === "test") system(BUILD, { ...RUN, ...TEST }, CLIENTS);
    if (mode === "bench") system({ ...BUILD, ...RUN }, {}, PEERS);
    npmPackages();
    native();
    bpf();
    typescript();
    break;
  case "native":
    native();
    bpf();
    break;
  case "ts":
    typescript();
    break;
  default:
    stop(`no mode ${mode}`, "one of demo, test, bench, build, native, ts");
}
