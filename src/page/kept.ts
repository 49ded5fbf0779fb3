import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../base/fault.ts";
import { replaceFile } from "../base/replace-file.ts";
import type { DestinationList, Edge } from "./destinations.ts";

/** First times on disk, so that a restart makes nothing new. Worth little: what cannot be read is begun anew. */
const FILE = "destinations.json";
const FORMAT = 1;
const BYTES_MAX = 8 * 1024 * 1024;

export function readDestinations(folder: string): DestinationList | undefined {
  try {
    const file = join(folder, FILE);
    if (statSync(file).size > BYTES_MAX) return undefined;
    const content = JSON.parse(readFileSync(file, "utf8")) as Partial<DestinationList> & { readonly format?: unknown };
    const { format, sinceMs, workloads } = content;
    if (format !== FORMAT || typeof sinceMs !== "number" || !Array.isArray(workloads)) return undefined;
    return workloads.every(isWorkload) ? { sinceMs, workloads } : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces the file as a whole. Returns why it could not. */
export function writeDestinations(folder: string, list: DestinationList): string | undefined {
  try {
    replaceFile(folder, FILE, JSON.stringify({ format: FORMAT, ...list }));
    return undefined;
  } catch (error) {
    return `${join(folder, FILE)}: ${messageOf(error)}`;
  }
}

type Kept = DestinationList["workloads"][number];

function isWorkload(value: Partial<Kept> | null): value is Kept {
  return (
    typeof value?.namespace === "string" &&
    typeof value.name === "string" &&
    typeof value.dropped === "number" &&
    Array.isArray(value.edges) &&
    value.edges.every(isEdge)
  );
}

function isEdge(value: Partial<Edge> | null): value is Edge {
  const numbers = [value?.allow, value?.deny, value?.wouldDeny, value?.firstMs, value?.lastMs];
  return (
    typeof value?.to === "string" &&
    Array.isArray(value.ports) &&
    value.ports.every((port) => typeof port === "string") &&
    numbers.every(Number.isFinite) &&
    (value.verdict === "allow" || value.verdict === "deny" || value.verdict === "would-deny") &&
    (value.why === null || typeof value.why === "string")
  );
}
