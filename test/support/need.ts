import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";

export interface Needs {
  readonly root?: boolean;
  /** Programs that must be on the PATH (the sbin folders count too), or files, by their absolute path. */
  readonly commands?: readonly string[];
  /** The native addon, built. */
  readonly addon?: boolean;
  /** Environment variables that must be set: NAMEGATE_CORPUS, KUBEBUILDER_ASSETS. */
  readonly env?: readonly string[];
}

/** The root of the checkout, from wherever the compiled file is. */
export const ROOT = findRoot();

/** Why the test cannot run here; undefined when it can. */
export function missing(needs: Needs): string | undefined {
  if (needs.root === true && process.getuid?.() !== 0) return "needs root";
  const absent = (needs.commands ?? []).filter((command) => !onPath(command));
  if (absent.length > 0) return `needs ${absent.join(", ")} (npm test as root installs what is missing)`;
  if (needs.addon === true && !existsSync(join(ROOT, "native", "build", "Release", "namegate.node"))) {
    return "needs the native addon (npm run build:native)";
  }
  const unset = (needs.env ?? []).filter((name) => (process.env[name] ?? "") === "");
  return unset.length > 0 ? `needs ${unset.join(", ")} in the environment` : undefined;
}

/**
 * `if (!need(t, { root: true })) return;` at the top of a test: false, and the test is skipped with the reason, where
 * something is missing. Under CI=true everything installable must be there, and a skip is a failure; only what `env`
 * names may be missing there too.
 */
export function need(t: TestContext, needs: Needs): boolean {
  const reason = skip(needs);
  if (reason !== false) t.skip(reason);
  return reason === false;
}

/** For the options of a test or a suite: `{ skip: skip({ root: true }) }`. Throws under CI as `need` does. */
export function skip(needs: Needs): string | false {
  const { env, ...installable } = needs;
  const reason = missing(installable);
  if (reason !== undefined && process.env.CI === "true") throw new Error(`under CI nothing installable may be missing: ${reason}`);
  return reason ?? missing({ env: env ?? [] }) ?? false;
}

export function onPath(command: string): boolean {
  if (command.startsWith("/")) return existsSync(command);
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function findRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const up = dirname(folder);
    if (up === folder) throw new Error("no package.json above the test");
    folder = up;
  }
  return folder;
}
