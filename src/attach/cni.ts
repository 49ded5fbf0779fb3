import { join } from "node:path";
import { list, readBytes } from "./files.ts";

const FILES_MAX = 256;
const FILE_BYTES_MAX = 256 * 1024;
const PLUGINS_MAX = 32;

/** The plugins of the network that a container runtime takes. */
export interface Cni {
  readonly file: string;
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
}

/**
 * What /etc/cni/net.d says (or where it is mounted): the first file by name that can be read counts, as for containerd and
 * CRI-O. undefined: none.
 */
export function readCni(folder: string): Cni | undefined {
  const files = list(folder, FILES_MAX, "all").filter((name) => /\.(?:conf|conflist|json)$/.test(name));
  for (const file of files.sort()) {
    const plugins = pluginsOf(readBytes(join(folder, file), FILE_BYTES_MAX)?.toString("utf8") ?? "");
    if (plugins.length > 0) return { file, plugins };
  }
  return undefined;
}

/** A network configuration (one plugin) or a list of them; empty when it is neither. */
export function pluginsOf(text: string): Cni["plugins"] {
  try {
    const top: unknown = JSON.parse(text);
    if (!isObject(top)) return [];
    const plugins: unknown[] = Array.isArray(top.plugins) ? (top.plugins as unknown[]).slice(0, PLUGINS_MAX) : [top];
    return plugins.filter(isObject).filter((plugin) => typeof plugin.type === "string");
  } catch {
    return [];
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
