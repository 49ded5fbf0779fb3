import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf } from "../base/fault.ts";
import type { Event } from "../model/event.ts";
import { asset } from "./assets.ts";
import { Destinations } from "./destinations.ts";
import { refusal } from "./guard.ts";
import { readDestinations, writeDestinations } from "./kept.ts";
import { type Events, numberOf, Streams } from "./stream.ts";

export interface PageSource {
  /** The node's name, as events to collectors have it. */
  readonly host: string;
  readonly version: string;
  /** How the ids of this run's events begin. */
  readonly run: string;
  /** Where first times are kept. */
  readonly state: string;
  readonly events: Events;
  /** As `status -o json` prints it. */
  readonly status: () => Promise<unknown>;
  /** The rule that would allow what an event says was denied; pure. */
  readonly suggest: (event: Event) => unknown;
  readonly nowMs: () => number;
  readonly log: (message: string) => void;
}

export interface Page {
  /** Answers a GET; false: the path is none of the page's. */
  readonly handle: (request: IncomingMessage, response: ServerResponse) => boolean;
  readonly push: (event: Event) => void;
  readonly close: () => void;
}

const SAVE_MS = 60_000;
/** Within this time all clients get the same status: each one costs the packet thread a question. */
const STATUS_MS = 1000;

/** Nothing but the page's own files, no markup made of text, no frame around it, no reader on another origin. */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=(), usb=()",
  "cache-control": "no-store",
} as const;

const TEXT = "text/plain; charset=utf-8";
const JSON_TYPE = "application/json; charset=utf-8";

/** The page of the metrics port: its files, `/data/status`, `/data/destinations`, `/data/suggestion` and `/data/events`. It changes nothing. */
export function openPage(source: PageSource): Page {
  const { events, run, state, nowMs } = source;
  const destinations = new Destinations(nowMs(), readDestinations(state));
  const streams = new Streams(events, run);
  const status = shared(
    async () => JSON.stringify({ host: source.host, version: source.version, run, status: await source.status() }),
    nowMs,
  );
  let failed = "";
  let saved = 0;
  const save = (): void => {
    if (destinations.version === saved) return;
    const why = writeDestinations(state, destinations.list()) ?? "";
    if (why === "") {
      saved = destinations.version;
      destinations.fresh = 0;
    } else if (why !== failed) source.log(`first times of destinations are not kept: ${why}`);
    failed = why;
  };
  const timer = setInterval(() => {
    if (destinations.fresh > 0) save();
  }, SAVE_MS).unref();

  const routes: Readonly<Record<string, (request: IncomingMessage, response: ServerResponse, url: URL) => void>> = {
    "/data/status": (_, response) =>
      void status().then(
        (text) => send(response, 200, JSON_TYPE, text),
        (error: unknown) => send(response, 503, TEXT, `${messageOf(error)}\n`),
      ),
    "/data/destinations": (request, response) => {
      const etag = `"${run}-${destinations.version}"`;
      if (request.headers["if-none-match"] === etag) send(response, 304, JSON_TYPE, undefined, { etag });
      else send(response, 200, JSON_TYPE, JSON.stringify(destinations.list()), { etag });
    },
    "/data/suggestion": (_, response, url) => {
      const id = url.searchParams.get("event") ?? "";
      const event = events.after(numberOf(id, run) - 1, 1)[0];
      send(response, 200, JSON_TYPE, JSON.stringify(event?.id === id ? source.suggest(event) : null));
    },
    "/data/events": (request, response, url) => {
      const lastId = request.headers["last-event-id"] ?? url.searchParams.get("after") ?? undefined;
      response.writeHead(200, { ...HEADERS, "content-type": "text/event-stream" });
      if (!streams.open(response, Array.isArray(lastId) ? lastId[0] : lastId)) response.end("event: full\ndata: 0\n\n");
    },
  };

  return {
    handle: (request, response) => {
      const url = URL.canParse(request.url ?? "", "http://localhost") ? new URL(request.url ?? "", "http://localhost") : undefined;
      if (url === undefined) return false;
      const why = refusal(request);
      if (why !== undefined) send(response, 403, TEXT, `${why}\n`);
      else if (Object.hasOwn(routes, url.pathname)) routes[url.pathname]?.(request, response, url);
      else void file(url.pathname, response);
      return true;
    },
    push: (event) => destinations.push(event, nowMs()),
    close: () => {
      clearInterval(timer);
      streams.close();
      save();
    },
  };
}

async function file(path: string, response: ServerResponse): Promise<void> {
  try {
    const found = await asset(path);
    if (found === undefined) send(response, 404, TEXT, "known: / /metrics /healthz /readyz\n");
    else send(response, 200, found.type, found.body);
  } catch (error) {
    send(response, 500, TEXT, `${messageOf(error)}\n`);
  }
}

function send(
  response: ServerResponse,
  code: number,
  type: string,
  body: string | Buffer | undefined,
  more: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(code, { ...HEADERS, ...more, "content-type": type });
  response.end(body);
}

/** One call for all who ask while it runs and a moment longer; nothing is held when nobody asks. */
function shared(make: () => Promise<string>, nowMs: () => number): () => Promise<string> {
  let held: { readonly answer: Promise<string>; readonly atMs: number } | undefined;
  return () => {
    if (held !== undefined && nowMs() - held.atMs < STATUS_MS) return held.answer;
    const mine = { answer: make(), atMs: nowMs() };
    held = mine;
    setTimeout(() => {
      if (held === mine) held = undefined;
    }, STATUS_MS).unref();
    return mine.answer;
  };
}
