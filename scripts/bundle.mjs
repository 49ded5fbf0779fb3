// Makes dist-bundle/, all that the image needs to run: the program without node_modules, the addon, and pcap where it is built.
//
//   node scripts/bundle.mjs [FOLDER]     FOLDER (default dist-bundle) is emptied first. Build the addon before (npm run build).
//
//   main.js  chunks/*.js      the program; each command is a chunk of its own
//   worker/thread.js, …       whatever a source names by `new URL("…", import.meta.url)`: threads and child processes
//   native/build/Release/     the addon and the programs for the kernel, where base/addon.ts looks for them in a checkout too
//   node_modules/pcap/        only what is needed at run time; left out where it is not built (Discover says so then)
//   bin/kubectl-namegate      the kubectl plugin in one file, which needs nothing else
//   LICENSES.txt              of everything that is inside
//
// Sources lie one folder deep in src/, and so do chunks: a URL relative to a source is the same relative to its chunk. (One that
// lies deeper may name its neighbours.)
// Exit codes: 0 made, 1 the sources do not bundle, 2 cannot run.
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, posix, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const OUT = resolve(process.argv[2] ?? join(ROOT, "dist-bundle"));
const SRC = join(ROOT, "src");
const ADDON = join("native", "build", "Release", "namegate.node");
/** The programs for the kernel, where a compiler was there that can build them. */
const PROGRAMS = join("native", "build", "Release", "hello.bpf.o");
const CHUNKS = "chunks";
const PCAP = [
  "package.json",
  "LICENSE",
  "pcap.js",
  "dns_cache.js",
  "tcp_tracker.js",
  "util.js",
  "decode",
  "build/Release/pcap_binding.node",
];
/** It builds pods out of network namespaces with programs that the image does not have. */
const CHECKOUT_ONLY = new Set(["cli/demo.ts"]);

function stop(code, what, fix) {
  console.error(`bundle: ${what}\nfix: ${fix}`);
  process.exit(code);
}

/** What sources name relative to themselves at run time: scripts to be entries, and data to be copied. */
function named() {
  const entries = {};
  const data = [];
  for (const file of readdirSync(SRC, { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".ts")) continue;
    const text = readFileSync(join(SRC, file), "utf8");
    const urls = /new URL\(\s*"([^"]+)",\s*import\.meta\.url\)|createRequire\(import\.meta\.url\)\("(\.[^"]+)"\)/g;
    for (const [, url, required] of text.matchAll(urls)) {
      const to = url ?? required;
      const deep = dirname(file).split("/").length;
      if (dirname(file) === "." || (deep > 1 && !/^\.\/[^/]+$/.test(to)))
        stop(
          1,
          `src/${file} names ${to}, which lies elsewhere seen from a chunk`,
          "only a file of a folder of src/ can name what is not its neighbour",
        );
      const source = posix.join(posix.dirname(file), to);
      const target = posix.join(CHUNKS, to);
      if (to.endsWith(".js")) entries[target.slice(0, -3)] = join(SRC, source.replace(/\.js$/, ".ts"));
      else data.push([join(SRC, source), join(OUT, target)]);
    }
  }
  return { entries, data };
}

const checkoutOnly = {
  name: "checkout-only",
  setup(it) {
    it.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const name = relative(SRC, path);
      if (!CHECKOUT_ONLY.has(name)) return undefined;
      const command = basename(name, ".ts");
      return {
        loader: "ts",
        resolveDir: dirname(path),
        contents: `import { Fault } from "../base/fault.ts";
          export const ${command} = () => Promise.reject(new Fault("not-in-image", "${command} is not in the bundle", "run it from a checkout: npm run ${command}"));`,
      };
    });
  },
};

/** The packages in a bundle, by their folders below node_modules. */
function packagesOf(metafile) {
  const folders = Object.keys(metafile.inputs).flatMap((path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []);
  return [...new Set(folders)].sort();
}

function licenses(folders) {
  return folders
    .map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(join(ROOT, folder, "package.json"), "utf8"));
      const file = readdirSync(join(ROOT, folder)).find((one) => /^licen[cs]e/i.test(one));
      const text = file === undefined ? "(the package holds no licence file)" : readFileSync(join(ROOT, folder, file), "utf8").trim();
      return `${name} ${version} (${license ?? "see below"})\n\n${text}\n`;
    })
    .join(`\n${"-".repeat(72)}\n\n`);
}

if (!existsSync(join(ROOT, ADDON))) stop(2, "the native addon is not built", "npm run build");
rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT, { recursive: true });
const { entries, data } = named();
const common = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: "node",
  target: "node20",
  external: ["pcap"],
  plugins: [checkoutOnly],
  legalComments: "none", // LICENSES.txt has them
  metafile: true,
  logLevel: "warning",
};
const made = await Promise.all([
  build({
    ...common,
    entryPoints: { ...entries, main: join(SRC, "main.ts") },
    outdir: OUT,
    format: "esm",
    splitting: true,
    chunkNames: `${CHUNKS}/[name]-[hash]`,
    // CommonJS packages ask for Node's own modules by require().
    banner: { js: 'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);' },
  }),
  build({
    ...common,
    entryPoints: [join(SRC, "kubectl.ts")],
    outfile: join(OUT, "bin", "kubectl-namegate"),
    format: "cjs",
    logOverride: { "empty-import-meta": "silent" },
  }),
]).catch(() => stop(1, "the sources do not bundle", "read esbuild's messages above"));

for (const [from, to] of data) cpSync(from, to);
cpSync(join(ROOT, ADDON), join(OUT, ADDON));
if (existsSync(join(ROOT, PROGRAMS))) cpSync(join(ROOT, PROGRAMS), join(OUT, PROGRAMS));
const pcap = join(ROOT, "node_modules", "pcap");
const hasPcap = existsSync(join(pcap, "build", "Release", "pcap_binding.node"));
if (hasPcap) for (const file of PCAP) cpSync(join(pcap, file), join(OUT, "node_modules", "pcap", file), { recursive: true });
const { name, version, license } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
writeFileSync(join(OUT, "package.json"), `${JSON.stringify({ name, version, license, type: "module" })}\n`);
writeFileSync(join(OUT, "bin", "package.json"), '{"type":"commonjs"}\n');
chmodSync(join(OUT, "bin", "kubectl-namegate"), 0o755);
chmodSync(join(OUT, "main.js"), 0o755);
const folders = [...new Set(made.flatMap(({ metafile }) => packagesOf(metafile)).concat(hasPcap ? "node_modules/pcap" : []))];
writeFileSync(join(OUT, "LICENSES.txt"), licenses(folders));
console.log(
  `bundle: ${relative(process.cwd(), OUT) || "."}: ${folders.length} packages inside${hasPcap ? "" : ", without pcap (it is not built)"}`,
);
