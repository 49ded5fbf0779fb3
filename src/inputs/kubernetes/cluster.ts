import { setMaxListeners } from "node:events";
import { type CredentialPlaces, findCredentials } from "./credentials.ts";
import { systemClock } from "./clock.ts";
import { exchange } from "./exchange.ts";
import { ApiFault } from "./faults.ts";
import { garbage, parse } from "./list.ts";
import { ListWatch } from "./reflector.ts";
import { httpsTransport, type Transport } from "./transport.ts";
import type { Cluster, Outcome, Reflector, ReflectOptions } from "./types.ts";
import { type Send, writes } from "./writes.ts";

export interface ClusterOptions extends CredentialPlaces {
  /** Milliseconds; only differences matter. */
  readonly now: () => number;
  /** 0 up to 1; default Math.random. */
  readonly random?: () => number;
  /** Default `namegate`. */
  readonly userAgent?: string;
}

/** Of get, patch and the like. */
const CALL_LIMITS = { headMs: 10_000, silenceMs: 10_000, wholeMs: 20_000 };
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Finds credentials, and asks the API server nothing yet: one that is away does not keep an agent from starting. Throws a Fault
 * where there are no credentials, or where they cannot be read.
 */
export async function openCluster(options: ClusterOptions): Promise<Cluster> {
  const source = findCredentials(options);
  const first = await source.read();
  if (!first.ok) throw first.fault;
  const once = { ...source, read: firstAnswer(first, source.read) };
  return connect(httpsTransport(once, options.now, options.userAgent ?? "namegate"), first.value.server, source.source, options);
}

function connect(transport: Transport, server: string, source: string, { now, random = Math.random }: ClusterOptions): Cluster {
  const clock = systemClock(now);
  const ending = new AbortController();
  setMaxListeners(0, ending.signal); // one for each request under way
  const reflectors = new Set<Reflector<unknown>>();
  const send: Send = async (method, path, body) => {
    const pieces: Buffer[] = [];
    let bytes = 0;
    const request = { method, path, ...(body === undefined ? {} : { body: { type: body.type, text: JSON.stringify(body.value) } }) };
    const fault = await exchange(transport, clock, request, CALL_LIMITS, ending.signal, (piece) => {
      bytes += piece.length;
      if (bytes > ANSWER_BYTES_MAX)
        return new ApiFault("too-large", `${path}: an answer of more than ${ANSWER_BYTES_MAX} bytes`, "ask for less");
      pieces.push(piece);
      return undefined;
    });
    if (fault !== undefined) return { ok: false, fault };
    const text = Buffer.concat(pieces).toString("utf8");
    const value = parse(text);
    return value === undefined ? { ok: false, fault: garbage(path, "not JSON", text) } : { ok: true, value };
  };
  return {
    server,
    source,
    ...writes(send),
    reflect: <T>(what: ReflectOptions<T>): Reflector<T> => {
      const reflector = new ListWatch(transport, clock, random, what);
      reflectors.add(reflector);
      return reflector;
    },
    close: () => {
      for (const reflector of reflectors) reflector.stop();
      ending.abort();
      transport.close();
    },
  };
}

/** What was read a moment ago is not read again: a kubeconfig takes a second. */
function firstAnswer<T>(first: Outcome<T>, read: () => Promise<Outcome<T>>): () => Promise<Outcome<T>> {
  let kept: Outcome<T> | undefined = first;
  return () => {
    const answer = kept === undefined ? read() : Promise.resolve(kept);
    kept = undefined;
    return answer;
  };
}
