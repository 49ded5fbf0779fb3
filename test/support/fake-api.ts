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

/**
 * One collection of an API server, in this process, with the rules of the real one that a list/watch loop depends on: versions,
 * pages that expire, a history that is compacted, cached and consistent lists, bookmarks. And with every fault.
 */
export class FakeApi {
  readonly path = "/api/v1/things";
  readonly asked: Asked[] = [];
  /** Asked for every request; undefined: answer it properly. */
  fault: (asked: Asked) => Fault | undefined = () => undefined;
  /** Tokens that are good; empty: any. */
  readonly tokens = new Set<string>();
  private readonly things = new Map<string, Thing>();
  private history: Change[] = [];
  private version = 100;
  private compacted = 100;
  private readonly pages = new Map<string, { readonly things: readonly Thing[]; readonly version: number }>();
  private readonly watchers = new Set<Watcher>();
  private readonly sockets = new Set<Socket>();
  private readonly server;
  private readonly scheme: string;

  /** `tls`: key and certificate. */
  constructor(tls?: { readonly key: string; readonly cert: string }) {
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

  count(what: Asked["what"]): number {
    return this.asked.filter((asked) => asked.what === what).length;
  }

  /** Everything that is there, by `namespace/name` or name. */
  state(): Map<string, Thing> {
    return new Map(this.things);
  }

  put(name: string, more: Record<string, unknown> = {}, labels: Readonly<Record<string, string>> = {}, namespace = "shop"): void {
    const key = `${namespace}/${name}`;
    const version = ++this.version;
    const object: Thing = { ...more, metadata: { name, namespace, labels, resourceVersion: String(version) } };
    this.tell({ version, before: this.things.get(key), object, deleted: false });
    this.things.set(key, object);
  }

  /** False when it was not there. */
  remove(name: string, namespace = "shop"): boolean {
    const key = `${namespace}/${name}`;
    const old = this.things.get(key);
    if (old === undefined) return false;
    const version = ++this.version;
    this.things.delete(key);
    const object = { ...old, metadata: { ...old.metadata, resourceVersion: String(version) } };
    this.tell({ version, before: old, object, deleted: true });
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
    for (const { response, url } of this.watchers) this.send(response, url, change);
  }

  /** What leaves the selection is deleted for this watch. */
  private send(response: ServerResponse, url: URL, { before, object, deleted }: Change): void {
    const was = before !== undefined && selected(url, before);
    const is = !deleted && selected(url, object);
    if (!was && !is) return;
    const type = !is ? "DELETED" : was ? "MODIFIED" : "ADDED";
    response.write(`${JSON.stringify({ type, object })}\n`);
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = "";
    for await (const piece of request) body += String(piece);
    const url = new URL(request.url ?? "/", this.url);
    const what = url.pathname !== this.path ? "other" : url.searchParams.get("watch") === "true" ? "watch" : "list";
    const { method = "", headers } = request;
    const asked: Asked = { what, method, url, authorization: headers.authorization ?? "", body, at: performance.now() };
    this.asked.push(asked);
    const fault = this.fault(asked);
    if (fault !== undefined) return this.misbehave(fault, asked, response);
    if (this.tokens.size > 0 && !this.tokens.has(asked.authorization.replace("Bearer ", ""))) return status(response, 401, "Unauthorized");
    if (what === "list") this.list(url, response);
    else if (what === "watch") this.watch(url, response);
    else status(response, 404, "the server could not find the requested resource");
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
    const now = { things: [...this.things.values()].filter((thing) => selected(url, thing)), version: this.version };
    const page = token === null ? now : this.pages.get(token);
    if (page === undefined) return status(response, 410, "The provided continue parameter is too old");
    const { things, version } = page;
    const next = limit > 0 && things.length > limit ? `page-${this.pages.size}-${version}` : undefined;
    if (next !== undefined) this.pages.set(next, { things: things.slice(limit), version });
    const items = next === undefined ? things : things.slice(0, limit);
    const metadata = { resourceVersion: String(version), ...(next === undefined ? {} : { continue: next }) };
    response.end(JSON.stringify({ kind: "ThingList", apiVersion: "v1", metadata, items }));
  }

  private watch(url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get("resourceVersion"));
    response.writeHead(200);
    if (from < this.compacted) {
      response.end(`${EXPIRED}\n`);
      return;
    }
    response.flushHeaders();
    for (const change of this.history) if (change.version > from) this.send(response, url, change);
    const watcher = { response, url };
    this.watchers.add(watcher);
    response.on("close", () => this.watchers.delete(watcher));
  }
}

function selected(url: URL, { metadata }: Thing): boolean {
  const labels = url.searchParams.get("labelSelector");
  const fields = url.searchParams.get("fieldSelector");
  const [label = "", value = ""] = labels?.split("=") ?? [];
  const [field, name] = fields?.split("=") ?? [];
  return (labels === null || metadata.labels?.[label] === value) && (field !== "metadata.name" || metadata.name === name);
}

function status(response: ServerResponse, code: number, message: string): void {
  response.writeHead(code, { "content-type": "application/json" });
  response.end(JSON.stringify({ kind: "Status", status: "Failure", message, code }));
}
