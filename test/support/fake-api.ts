import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo, Socket } from "node:net";

/**
 * What happens to a request instead of an answer.
 *
 * `status`: with a Status object. `silent`: nothing, for ever. `cut`: the connection ends, in the middle of a list too.
 * `slow`: one byte every so often. `text`: that, as 200. `lines`: a watch that says so, and is then closed or left open.
 */
export type Fault =
  | { readonly kind: "status"; readonly status: number; readonly retryAfter?: string }
  | { readonly kind: "silent" }
  | { readonly kind: "cut" }
  | { readonly kind: "slow"; readonly everyMs: number }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "lines"; readonly lines: readonly string[]; readonly after: "close" | "open" };

/** Part of an object as the API shows it. */
export interface Thing {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly resourceVersion?: string;
  };
  readonly [field: string]: unknown;
}

interface Change {
  readonly path: string;
  readonly version: number;
  readonly before: Thing | undefined;
  /** Of a deletion: the last state, with the version of the deletion. */
  readonly object: Thing;
  readonly deleted: boolean;
}

interface Watcher {
  readonly response: ServerResponse;
  readonly url: URL;
}

export interface Asked {
  readonly what: "list" | "watch" | "other";
  readonly method: string;
  readonly url: URL;
  readonly authorization: string;
  readonly body: string;
  readonly at: number;
}

/** 410 in a stream. */
export const EXPIRED = JSON.stringify({
  type: "ERROR",
  object: { kind: "Status", status: "Failure", message: "too old resource version: 1 (103)", reason: "Expired", code: 410 },
});

/** An answer in place of 404 to what is neither a list nor a watch of a collection. */
export interface OtherAnswer {
  readonly status: number;
  readonly body: unknown;
}

/**
 * Collections of an API server (one, unless told otherwise), in this process, with the rules of the real one that a list/watch loop
 * depends on: versions, pages that expire, a history that is compacted, cached and consistent lists, bookmarks. And with every fault.
 */
export class FakeApi {
  /** Of the first collection: what is put goes there, unless told otherwise. */
  readonly path: string;
  readonly asked: Asked[] = [];
  /** Asked for every request; undefined: answer it properly. */
  fault: (asked: Asked) => Fault | undefined = () => undefined;
  /** Tokens that are good; empty: any. */
  readonly tokens = new Set<string>();
  /** What else is asked. */
  other: (asked: Asked) => OtherAnswer | undefined = () => undefined;
  /** Bytes of lists and watches by path, as they were written. */
  readonly sent = new Map<string, number>();
  private readonly things: ReadonlyMap<string, Map<string, Thing>>;
  private history: Change[] = [];
  private version = 100;
  private compacted = 100;
  private readonly pages = new Map<string, { readonly things: readonly Thing[]; readonly version: number }>();
  private readonly watchers = new Set<Watcher>();
  private readonly sockets = new Set<Socket>();
  private readonly server;
  private readonly scheme: string;

  /** `tls`: key and certificate. */
  constructor(tls?: { readonly key: string; readonly cert: string }, paths: readonly [string, ...string[]] = ["/api/v1/things"]) {
    this.path = paths[0];
    this.things = new Map(paths.map((path) => [path, new Map<string, Thing>()]));
    const handle = (request: IncomingMessage, response: ServerResponse): void => void this.handle(request, response);
    this.server = tls === undefined ? createHttp(handle) : createHttps(tls, handle);
    this.scheme = tls === undefined ? "http" : "https";
    this.server.on("connection", (socket: Socket) => {
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
      socket.on("error", () => {});
    });
  }

  async listen(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    return this;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.scheme}://127.0.0.1:${this.port}`;
  }

  /** Open watches. */
  get watching(): number {
    return this.watchers.size;
  }

  count(what: Asked["what"], path?: string): number {
    return this.asked.filter((asked) => asked.what === what && (path === undefined || asked.url.pathname === path)).length;
  }

  /** Everything that is there, by `namespace/name` or name. */
  state(path = this.path): Map<string, Thing> {
    return new Map(this.of(path));
  }

  private of(path: string): Map<string, Thing> {
    const things = this.things.get(path);
    if (things === undefined) throw new Error(`the fake has no ${path}`);
    return things;
  }

  /** `namespace`: empty for what has none. More metadata stands in `more.metadata`. */
  put(
    name: string,
    more: Record<string, unknown> = {},
    labels: Readonly<Record<string, string>> = {},
    namespace = "shop",
    path = this.path,
  ): void {
    const things = this.of(path);
    const key = keyOf(namespace, name);
    const version = ++this.version;
    const where = namespace === "" ? {} : { namespace };
    const metadata = { ...(more["metadata"] as object | undefined), name, ...where, labels, resourceVersion: String(version) };
    const object: Thing = { ...more, metadata };
    this.tell({ path, version, before: things.get(key), object, deleted: false });
    things.set(key, object);
  }

  /** False when it was not there. */
  remove(name: string, namespace = "shop", path = this.path): boolean {
    const things = this.of(path);
    const key = keyOf(namespace, name);
    const old = things.get(key);
    if (old === undefined) return false;
    const version = ++this.version;
    things.delete(key);
    const object = { ...old, metadata: { ...old.metadata, resourceVersion: String(version) } };
    this.tell({ path, version, before: old, object, deleted: true });
    return true;
  }

  /** Changes without telling the watches: what happens while they are blind. `compact` afterwards makes them list. */
  quietly(change: () => void): void {
    const blind = [...this.watchers];
    this.watchers.clear();
    change();
    for (const watcher of blind) this.watchers.add(watcher);
  }

  /** Open watches are told nothing any more. */
  blackHole(): void {
    this.watchers.clear();
  }

  bookmark(): void {
    const object = { metadata: { resourceVersion: String(this.version) } };
    for (const { response } of this.watchers) response.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
  }

  /** Says this in every open watch. */
  say(text: string): void {
    for (const { response } of this.watchers) response.write(text);
  }

  /** Forgets history and pages: versions from before are too old. */
  compact(): void {
    this.compacted = ++this.version;
    this.history = [];
    this.pages.clear();
  }

  /** A server whose store was restored from a backup: versions begin again below those it has given. */
  restoreBackup(): void {
    this.version = 50;
    this.compacted = 50;
    this.history = [];
    this.pages.clear();
  }

  /** Ends every watch properly, as at its time. */
  endWatches(): void {
    for (const { response } of this.watchers) response.end();
    this.watchers.clear();
  }

  /** Ends every connection at once. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.server.close();
  }

  private tell(change: Change): void {
    this.history.push(change);
    for (const { response, url } of this.watchers) if (url.pathname === change.path) this.send(response, url, change);
  }

  /** What leaves the selection is deleted for this watch. */
  private send(response: ServerResponse, url: URL, { before, object, deleted }: Change): void {
    const was = before !== undefined && selected(url, before);
    const is = !deleted && selected(url, object);
    if (!was && !is) return;
    const type = !is ? "DELETED" : was ? "MODIFIED" : "ADDED";
    this.write(response, url.pathname, `${JSON.stringify({ type, object })}\n`);
  }

  private write(response: ServerResponse, path: string, text: string): void {
    this.sent.set(path, (this.sent.get(path) ?? 0) + Buffer.byteLength(text));
    response.write(text);
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = "";
    for await (const piece of request) body += String(piece);
    const url = new URL(request.url ?? "/", this.url);
    const { method = "GET", headers } = request;
    const known = method === "GET" && this.things.has(url.pathname);
    const what = !known ? "other" : url.searchParams.get("watch") === "true" ? "watch" : "list";
    const asked: Asked = { what, method, url, authorization: headers.authorization ?? "", body, at: performance.now() };
    this.asked.push(asked);
    const fault = this.fault(asked);
    if (fault !== undefined) return this.misbehave(fault, asked, response);
    if (this.tokens.size > 0 && !this.tokens.has(asked.authorization.replace("Bearer ", ""))) return status(response, 401, "Unauthorized");
    if (what === "list") this.list(url, response);
    else if (what === "watch") this.watch(url, response);
    else this.answer(this.other(asked), response);
  }

  private answer(answer: OtherAnswer | undefined, response: ServerResponse): void {
    if (answer === undefined) return status(response, 404, "the server could not find the requested resource");
    response.writeHead(answer.status, { "content-type": "application/json" });
    response.end(JSON.stringify(answer.body));
  }

  private misbehave(fault: Fault, asked: Asked, response: ServerResponse): void {
    switch (fault.kind) {
      case "status":
        if (fault.retryAfter !== undefined) response.setHeader("retry-after", fault.retryAfter);
        return status(response, fault.status, "as the test wants it");
      case "silent":
        return;
      case "cut": {
        if (asked.what === "list")
          response.write('{"kind":"ThingList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}},');
        setImmediate(() => response.destroy());
        return;
      }
      case "slow": {
        response.writeHead(200);
        const timer = setInterval(() => response.write(" "), fault.everyMs);
        response.on("close", () => clearInterval(timer));
        return;
      }
      case "text":
        response.end(fault.text);
        return;
      case "lines":
        response.writeHead(200);
        for (const line of fault.lines) response.write(`${line}\n`);
        if (fault.after === "close") response.end();
        else response.flushHeaders();
        return;
    }
  }

  private list(url: URL, response: ServerResponse): void {
    const limit = Number(url.searchParams.get("limit") ?? 0);
    const token = url.searchParams.get("continue");
    const wanted = url.searchParams.get("resourceVersion");
    if (Number(wanted ?? 0) > this.version) return status(response, 504, "Too large resource version");
    const now = { things: [...this.of(url.pathname).values()].filter((thing) => selected(url, thing)), version: this.version };
    const page = token === null ? now : this.pages.get(token);
    if (page === undefined) return status(response, 410, "The provided continue parameter is too old");
    const { things, version } = page;
    const next = limit > 0 && things.length > limit ? `page-${this.pages.size}-${version}` : undefined;
    if (next !== undefined) this.pages.set(next, { things: things.slice(limit), version });
    const items = next === undefined ? things : things.slice(0, limit);
    const metadata = { resourceVersion: String(version), ...(next === undefined ? {} : { continue: next }) };
    this.write(response, url.pathname, JSON.stringify({ kind: "ThingList", apiVersion: "v1", metadata, items }));
    response.end();
  }

  private watch(url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get("resourceVersion"));
    response.writeHead(200);
    if (from < this.compacted) {
      response.end(`${EXPIRED}\n`);
      return;
    }
    response.flushHeaders();
    for (const change of this.history) if (change.path === url.pathname && change.version > from) this.send(response, url, change);
    const watcher = { response, url };
    this.watchers.add(watcher);
    response.on("close", () => this.watchers.delete(watcher));
  }
}

/** Selectors of the one form `key=value`. */
function selected(url: URL, { metadata, ["spec"]: spec }: Thing): boolean {
  const labels = url.searchParams.get("labelSelector");
  const fields = url.searchParams.get("fieldSelector");
  const [label = "", value = ""] = labels?.split("=") ?? [];
  const [field, wanted] = fields?.split("=") ?? [];
  if (labels !== null && metadata.labels?.[label] !== value) return false;
  if (field === "metadata.name") return metadata.name === wanted;
  if (field === "spec.nodeName") return (spec as { nodeName?: string } | undefined)?.nodeName === wanted;
  return true;
}

const keyOf = (namespace: string, name: string): string => (namespace === "" ? name : `${namespace}/${name}`);

function status(response: ServerResponse, code: number, message: string): void {
  response.writeHead(code, { "content-type": "application/json" });
  response.end(JSON.stringify({ kind: "Status", status: "Failure", message, code }));
}
