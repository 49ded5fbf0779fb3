import type { ApiFault } from "./faults.ts";

/** What a request gave, or why not. Nothing here throws because of what a server or an object says. */
export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly fault: ApiFault };

/** One API server, with credentials that are read again as they rotate. */
export interface Cluster {
  /** `https://10.96.0.1:443` */
  readonly server: string;
  /** Where the credentials come from, for a person: `the service account in …`, `/etc/namegate/kubeconfig`. */
  readonly source: string;
  /** One kind of object, kept in memory. Does nothing before `start()`; stops at the latest with `close()`. */
  reflect<T>(options: ReflectOptions<T>): Reflector<T>;
  /** One object or whatever else stands at `path`, parsed. */
  get(path: string): Promise<Outcome<unknown>>;
  patch(path: string, patch: unknown, type: PatchType): Promise<Outcome<unknown>>;
  createEvent(event: EventText): Promise<Outcome<"created" | "exists">>;
  /** Takes every taint with this key from a node; `absent` when there is none. */
  removeTaint(node: string, key: string): Promise<Outcome<"removed" | "absent">>;
  /** Stops all reflectors and ends all connections. */
  close(): void;
}

export type PatchType = "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json";

export interface ReflectOptions<T> {
  /** Of the collection: `/api/v1/pods`, `/api/v1/namespaces/shop/configmaps`, `/apis/discovery.k8s.io/v1/endpointslices`. */
  readonly path: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  /**
   * The part of an object that is kept; undefined: not of interest. `raw` is an object as JSON.parse made it, with a name in its
   * metadata; everything else in it is unchecked. A throw counts as undefined and as an error of kind `object`.
   */
  readonly project: (raw: RawObject) => T | undefined;
  /**
   * At most once in a turn of the event loop, when `items` has changed or `synced` has become true. An object whose
   * projection says the same as before keeps its identity and is no change.
   */
  readonly onChange: () => void;
  /** Objects kept at most; more are refused and counted. Default 20 000. */
  readonly objectsMax?: number;
  /** And of one namespace, so that none takes the room of all others. Default: no limit of its own. */
  readonly inNamespaceMax?: number;
  /** Was this projected from less than there is, for want of room elsewhere? It is projected again with the next list. */
  readonly provisional?: (value: T) => boolean;
  /**
   * `cached` (default): the server's watch cache answers in one piece, which is what thousands of nodes can ask for at once;
   * a server that cannot is asked `paged`: a consistent read of its store, 500 objects a page.
   */
  readonly list?: "cached" | "paged";
  /** It may not be there, or not for us: a 403 or 404 that stays is asked about less and less often, every ten minutes at last. */
  readonly optional?: boolean;
}

export interface RawObject {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly resourceVersion?: string } & Readonly<
    Record<string, unknown>
  >;
  readonly [field: string]: unknown;
}

export interface Store<T> {
  /** `namespace/name`, or `name` → projection. Always the same Map; after a cut it holds what was last known. */
  readonly items: ReadonlyMap<string, T>;
  /** A whole list has been read once. Stays true: whether it is still current is `staleMs`. */
  readonly synced: boolean;
  /**
   * Milliseconds since the server last proved that this is current (a list, an event, a bookmark); Infinity before.
   * `now` is of the clock that openCluster was given. A healthy watch of quiet objects reaches five minutes and a half.
   */
  staleMs(now: number): number;
}

export interface Reflector<T> extends Store<T> {
  readonly path: string;
  /** Again while it runs: nothing. After stop(): lists anew, `items` stay until then. */
  start(): void;
  stop(): void;
  readonly counters: Readonly<Counters>;
}

/** Of one reflector since it was made. */
export interface Counters {
  /** Requests, each page of a list counts. */
  lists: number;
  watches: number;
  events: number;
  bookmarks: number;
  /** Objects refused because there were `objectsMax` already, or `inNamespaceMax`. */
  refused: number;
  /** Only kinds that happened. */
  readonly errors: Partial<Record<ErrorKind, number>>;
  /** The last one, for a person, or that objects were refused; undefined when the last list or watch was good. */
  lastError: string | undefined;
}

/** What can go wrong between us and the API server. */
export type ErrorKind =
  | "connect" // no connection: refused, unreachable, name unknown, reset
  | "tls" // certificate or handshake
  | "credentials" // could not be read, or an exec plugin failed
  | "timeout" // no answer, or silence for longer than the server promised
  | "unauthorized" // 401
  | "forbidden" // 403
  | "not-found" // 404
  | "conflict" // 409, 422
  | "throttled" // 429
  | "gone" // 410, in each of its shapes
  | "server" // 5xx
  | "request" // other 4xx
  | "stream" // an ERROR event that is not 410
  | "garbage" // not JSON, not an event, an event without metadata
  | "too-large" // a line, an object or an answer beyond its limit
  | "closed" // a watch ended before its time
  | "object"; // `project`, or something else of ours, threw

export interface EventText {
  /** The object that the event is about. */
  readonly regarding: {
    readonly apiVersion: string;
    readonly kind: string;
    readonly name: string;
    /** Absent for cluster objects; their events are in `default`. */
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
  };
  readonly type: "Normal" | "Warning";
  /** CamelCase, at most 128 characters. */
  readonly reason: string;
  /** Cut at 1024 characters. */
  readonly message: string;
  /** The node, as source. */
  readonly node: string;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** The same name again is `exists`, not a second event. Default: a fresh name. */
  readonly name?: string;
}
