import { exchange } from "./exchange.ts";
import { ApiFault, line } from "./faults.ts";
import { garbage, type ListTarget, OBJECT_BYTES_MAX, parse, tooLarge } from "./list.ts";
import { LineCutter, TOO_LARGE } from "./pieces.ts";
import { rawObject } from "./store.ts";
import type { RawObject } from "./types.ts";

/** The server is asked to end the watch after so long (client-go: 5 to 10 minutes), so that agents spread over its instances again. */
const WATCH_SECONDS_MIN = 240;
const WATCH_SECONDS_MAX = 300;
/** Longer than that and there is nobody at the other end. */
const SILENCE_MS = 30_000;
const HEAD_MS = 30_000;
const EARLY_MS = 2000; // clocks differ
const CLOSED_FIX = "harmless now and then (a restart, a load balancer's limit): it is watched again from where it was";

export interface WatchSink {
  put(raw: RawObject): void;
  remove(raw: RawObject): void;
  /** With the new version of an event or a bookmark. */
  alive(version: string | undefined, what: "event" | "bookmark"): void;
}

/** Watches from `version` until it ends; undefined when that was when the server had been asked to. */
export async function readWatch(
  { transport, clock, path, selectors }: ListTarget,
  version: string,
  random: () => number,
  signal: AbortSignal,
  sink: WatchSink,
): Promise<ApiFault | undefined> {
  const seconds = Math.round(WATCH_SECONDS_MIN + random() * (WATCH_SECONDS_MAX - WATCH_SECONDS_MIN));
  const query = new URLSearchParams({
    ...selectors,
    watch: "true",
    allowWatchBookmarks: "true",
    resourceVersion: version,
    timeoutSeconds: String(seconds),
  });
  const request = { method: "GET", path: `${path}?${query.toString()}` } as const;
  const promisedMs = seconds * 1000;
  const limits = { headMs: HEAD_MS, silenceMs: promisedMs + SILENCE_MS, wholeMs: promisedMs + 2 * SILENCE_MS };
  const cutter = new LineCutter(OBJECT_BYTES_MAX);
  const began = clock.now();
  const fault = await exchange(transport, clock, request, limits, signal, (piece) => {
    const bad = cutter.push(piece, (text) => takeEvent(path, text, sink));
    return bad === TOO_LARGE ? tooLarge(path) : bad;
  });
  if (fault !== undefined) return fault;
  const livedMs = clock.now() - began;
  if (livedMs >= promisedMs - EARLY_MS) return undefined;
  return new ApiFault("closed", `${path}: the server ended the watch after ${(livedMs / 1000).toFixed(1)} s of ${seconds} s`, CLOSED_FIX);
}

/** `{"type":"ADDED","object":{…}}` */
function takeEvent(path: string, text: string, sink: WatchSink): ApiFault | undefined {
  const event = parse(text);
  if (typeof event !== "object" || event === null) return garbage(path, "an event that is not JSON", text);
  const { type, object } = event as { type?: unknown; object?: unknown };
  if (type === "ERROR") return errorEvent(path, object);
  if (type === "BOOKMARK") {
    const version = bookmarkVersion(object);
    if (version === undefined) return garbage(path, "a bookmark without a version", text);
    sink.alive(version, "bookmark");
    return undefined;
  }
  const raw = rawObject(object);
  if (raw === undefined) return garbage(path, "an event without an object that has a name", text);
  if (type === "DELETED") sink.remove(raw);
  else if (type === "ADDED" || type === "MODIFIED") sink.put(raw);
  else return garbage(path, "an event of unknown type", text);
  sink.alive(raw.metadata.resourceVersion, "event");
  return undefined;
}

/** The object is a Status; 410 says that our version is too old, whether the server then ends the stream or not. */
function errorEvent(path: string, object: unknown): ApiFault {
  const { code, message } = (typeof object === "object" && object !== null ? object : {}) as { code?: unknown; message?: unknown };
  const what = `${path}: the watch says ${typeof code === "number" ? code : "ERROR"} ${typeof message === "string" ? line(message) : ""}`;
  const status = typeof code === "number" ? code : undefined;
  return new ApiFault(code === 410 ? "gone" : "stream", what.trimEnd(), "everything is listed again", { status });
}

function bookmarkVersion(object: unknown): string | undefined {
  const metadata = typeof object === "object" && object !== null ? (object as { metadata?: unknown }).metadata : undefined;
  const version =
    typeof metadata === "object" && metadata !== null ? (metadata as { resourceVersion?: unknown }).resourceVersion : undefined;
  return typeof version === "string" && version !== "" ? version : undefined;
}
