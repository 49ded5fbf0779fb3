import type { Clock } from "./clock.ts";
import { exchange } from "./exchange.ts";
import { ApiFault } from "./faults.ts";
import { ItemCutter, TOO_LARGE } from "./pieces.ts";
import { rawObject } from "./store.ts";
import type { Transport } from "./transport.ts";
import type { Counters, Outcome, RawObject } from "./types.ts";

/**
 * `cached`: from the API server's watch cache, whole, not older than what we know. `paged`: a consistent read of the store, a
 * page at a time. `whole`: the same without pages, for when they expire before they are read.
 */
export type ListPlan = "cached" | "paged" | "whole";

export const PAGE_OBJECTS = 500; // as client-go's pager
/**
 * One object. etcd refuses requests of more than 1.5 MiB; JSON writes a control character as six bytes, so a hostile
 * ConfigMap can be six times as long.
 */
export const OBJECT_BYTES_MAX = 16 * 1024 * 1024;
const FRAME_BYTES_MAX = 1024 * 1024; // a list without its objects: its metadata
const LIMITS = { headMs: 30_000, silenceMs: 20_000, wholeMs: 60_000 };

export interface ListTarget {
  readonly transport: Transport;
  readonly clock: Clock;
  /** Path and selectors, without anything else. */
  readonly path: string;
  readonly selectors: Readonly<Record<string, string>>;
  readonly counters: Pick<Counters, "lists">;
}

/** Reads a whole list, object by object, to `add`; the version that it is of. `known`: the newest version seen, for `cached`. */
export async function readList(
  target: ListTarget,
  plan: ListPlan,
  known: string | undefined,
  signal: AbortSignal,
  add: (raw: RawObject) => void,
): Promise<Outcome<string>> {
  let version: string | undefined;
  let next: string | undefined;
  do {
    const query: Record<string, string> = { ...target.selectors };
    if (plan === "paged") query.limit = String(PAGE_OBJECTS);
    if (next !== undefined) query.continue = next;
    if (plan === "cached") {
      query.resourceVersion = known ?? "0";
      if (known !== undefined) query.resourceVersionMatch = "NotOlderThan";
    }
    target.counters.lists++;
    const page = await readPage(target, query, signal, add);
    if (!page.ok) return page;
    version ??= page.value.version; // the same on each page
    next = page.value.next;
    if (next === undefined) return { ok: true, value: version };
  } while (!signal.aborted);
  return { ok: false, fault: new ApiFault("closed", "stopped", "start it again") };
}

/** After a list of this plan failed so: the plan of the next try. */
export function nextPlan(plan: ListPlan, { kind, status }: ApiFault): ListPlan {
  switch (plan) {
    case "cached": // "too large resource version" is 504: the store was restored from a backup, or the cache is behind
      return kind === "gone" || kind === "request" || status === 504 ? "paged" : "cached";
    case "paged":
      return kind === "gone" ? "whole" : "paged";
    case "whole":
      return "paged";
  }
}

async function readPage(
  { transport, clock, path }: ListTarget,
  query: Readonly<Record<string, string>>,
  signal: AbortSignal,
  add: (raw: RawObject) => void,
): Promise<Outcome<{ readonly version: string; readonly next: string | undefined }>> {
  const url = `${path}?${new URLSearchParams(query).toString()}`;
  const cutter = new ItemCutter(OBJECT_BYTES_MAX, FRAME_BYTES_MAX);
  const fault = await exchange(transport, clock, { method: "GET", path: url }, LIMITS, signal, (piece) => {
    const bad = cutter.push(piece, (text) => {
      const raw = rawObject(parse(text));
      if (raw === undefined) return garbage(path, "an object without a name, or not JSON", text);
      add(raw);
      return undefined;
    });
    return bad === TOO_LARGE ? tooLarge(path) : bad;
  });
  if (fault !== undefined) return { ok: false, fault };
  const text = cutter.rest();
  const frame = parse(text) as { items?: unknown; metadata?: { resourceVersion?: unknown; continue?: unknown } } | undefined;
  const { resourceVersion: version, continue: next = "" } = frame?.metadata ?? {};
  if (typeof version !== "string" || typeof next !== "string" || !(frame?.items === null || Array.isArray(frame?.items))) {
    return { ok: false, fault: garbage(path, "not a list", text) };
  }
  return { ok: true, value: { version, next: next === "" ? undefined : next } };
}

/** JSON, or undefined. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export function garbage(path: string, what: string, text: string): ApiFault {
  const begin = text.slice(0, 60).replace(/[\p{C}\s]+/gu, " ");
  return new ApiFault("garbage", `${path}: ${what}: ${begin}`, "is that a Kubernetes API server, and no proxy of another kind before it?");
}

export function tooLarge(path: string): ApiFault {
  return new ApiFault(
    "too-large",
    `${path}: an object of more than ${OBJECT_BYTES_MAX} bytes`,
    "find the large object and make it smaller",
  );
}
