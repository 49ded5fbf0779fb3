import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { ROOT } from "./need.ts";

/**
 * A stand-in for the container: a mount namespace whose root is read-only and holds the bundle at /opt/namegate, this machine's
 * /usr and some of /etc in place of the image's, /proc, /sys (read-only, as for a container that is not privileged), /dev, and the volumes
 * of the manifest. Nothing else of this machine, the checkout above all, is there. Not proved by it: that the image builds, its
 * base image, seccomp and AppArmor.
 */
export interface Image {
  /** Where the bundle is on this machine. */
  readonly bundle: string;
  /** argv in front of a program's, to run it in the container. Needs root. `keep`: folders of this machine that stay, writable. */
  inside(options?: Confinement): readonly string[];
}

export interface Confinement {
  readonly keep?: readonly string[];
  /** Without the prefix CAP_; default: all. */
  readonly capabilities?: readonly string[];
  /** Host paths under the volumes of the manifest, by their path in the container. */
  readonly volumes?: Readonly<Record<string, string>>;
}

/** `namegate` in the container. */
export const NAMEGATE = "/opt/namegate/main.js";
export const NODE_INSIDE = "/opt/node";

export const IMAGE_COMMANDS = ["unshare", "setpriv", "chroot", "mount"] as const;

/** sh -c SCRIPT sh ROOT BUNDLE NODE "KEEP KEEP" "FROM=TO FROM=TO" PROGRAM… ; paths without blanks. */
const SCRIPT = `set -e
root=$1 bundle=$2 node=$3 keep=$4 volumes=$5; shift 5
mount -t tmpfs -o mode=755 none "$root"
mkdir "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/usr" "$root/opt" "$root/var" "$root/opt/namegate"
for one in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$one" ]; then ln -s "usr/$one" "$root/$one"; elif [ -d "/$one" ]; then mkdir "$root/$one"; mount --bind "/$one" "$root/$one"; fi
done
mount --bind /usr "$root/usr"; mount -o remount,bind,ro "$root/usr"
for one in alternatives ld.so.cache resolv.conf hosts nsswitch.conf passwd group protocols services ethertypes; do
  [ -e "/etc/$one" ] || continue
  if [ -d "/etc/$one" ]; then mkdir "$root/etc/$one"; else touch "$root/etc/$one"; fi
  mount --bind "/etc/$one" "$root/etc/$one"; mount -o remount,bind,ro "$root/etc/$one"
done
for one in proc sys dev; do mount --rbind "/$one" "$root/$one"; done
mount --bind "$root/proc/sys" "$root/proc/sys"; mount -o remount,bind,ro "$root/proc/sys"; mount -o remount,bind,ro "$root/sys"
mount --bind "$bundle" "$root/opt/namegate"; mount -o remount,bind,ro "$root/opt/namegate"
touch "$root/opt/node"; mount --bind "$node" "$root/opt/node"
[ ! -d "$root/sys/fs/bpf" ] || mount -t bpf none "$root/sys/fs/bpf" # a volume of the manifest
for one in $keep; do mkdir -p "$root$one"; mount --bind "$one" "$root$one"; done
for one in $volumes; do
  from=\${one%%=*} to=\${one#*=}
  if [ -d "$from" ]; then mkdir -p "$root$to"; else mkdir -p "$root\${to%/*}"; touch "$root$to"; fi
  mount --bind "$from" "$root$to"
done
mount -o remount,ro "$root"
exec chroot "$root" "$@"`;

/** `npm run bundle`, into a folder that goes with the test. */
export function bundleFor(t: Pick<TestContext, "after">): Image {
  const folder = folderFor(t);
  const bundle = join(folder, "bundle");
  const { status, stderr } = spawnSync(process.execPath, [join(ROOT, "scripts", "bundle.mjs"), bundle], { encoding: "utf8" });
  if (status !== 0) throw new Error(`the bundle cannot be made: ${stderr}`);
  return imageOf(t, bundle);
}

/** A folder of this machine for a test, which may be bound into the container. */
export function folderFor(t: Pick<TestContext, "after">): string {
  const folder = mkdtempSync(join(tmpdir(), "namegate-image-"));
  chmodSync(folder, 0o755);
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function imageOf(t: Pick<TestContext, "after">, bundle: string): Image {
  const folder = folderFor(t);
  const root = join(folder, "root");
  const lock = join(folder, "xtables.lock");
  mkdirSync(root);
  writeFileSync(lock, "");
  return {
    bundle,
    inside: ({ keep = [], capabilities, volumes = {} } = {}) => {
      const mounts = Object.entries({ "/run/xtables.lock": lock, ...volumes }).map(([to, from]) => `${from}=${to}`);
      const confined =
        capabilities === undefined
          ? []
          : ["setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", `--bounding-set=${boundingSet(capabilities)}`];
      const parts = [root, bundle, process.execPath, keep.join(" "), mounts.join(" ")];
      return ["unshare", "-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh", ...parts, ...confined];
    },
  };
}

const boundingSet = (capabilities: readonly string[]): string =>
  ["-all", ...capabilities.map((name) => `+${name.toLowerCase()}`)].join(",");

/** What the chart gives the container: the lines of its template `namegate.capabilities`. */
export function manifestCapabilities(): string[] {
  const text = readFileSync(join(ROOT, "daemonset", "chart", "templates", "_helpers.tpl"), "utf8");
  const body = /define "namegate\.capabilities" -\}\}\n([\s\S]*?)\{\{- define/.exec(text)?.[1] ?? "";
  const names = body.split("\n").flatMap((line) => /^- ([A-Z_]+)$/.exec(line)?.[1] ?? []);
  if (names.length === 0 || !existsSync(join(ROOT, "daemonset"))) throw new Error("the chart names no capabilities");
  return names;
}
