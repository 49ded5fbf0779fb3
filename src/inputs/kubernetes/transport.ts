import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { messageOf } from "../../base/fault.ts";
import type { Credentials, CredentialSource } from "./credentials.ts";
import { ApiFault, connectionFault, statusFault } from "./faults.ts";
import type { Outcome } from "./types.ts";

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PATCH";
  /** With its query. */
  readonly path: string;
  readonly body?: { readonly type: string; readonly text: string };
}

/** The body of a 2xx answer. */
export interface ApiStream {
  /**
   * Gives every piece to `take` until the end: undefined then, or why it was cut. `take` ends it with a fault of its own.
   * Call it once, at once.
   */
  read(take: (piece: Buffer) => ApiFault | undefined): Promise<ApiFault | undefined>;
}

/** Requests to one API server. Has no timers: the signal ends a request, and its reason (an ApiFault) is what came of it. */
export interface Transport {
  open(request: ApiRequest, signal: AbortSignal): Promise<Outcome<ApiStream>>;
  close(): void;
}

const KEEPALIVE_MS = 15_000; // then ten probes a second apart (libuv): a black hole is noticed in 25 s
const IDLE_SOCKET_MS = 30_000;
/** After so much of an answer others have their turn: libuv reads up to 2 MB in one, some 50 ms of JSON. */
const TURN_BYTES_MAX = 128 * 1024;
const ERROR_BYTES_MAX = 64 * 1024;
/** Credentials that the server refused are read again, but not more often: an exec plugin may be slow, or lock an account. */
const RENEW_MS = 10_000;

type Agent = HttpAgent | HttpsAgent;

/** With keep-alive, credentials that are read again, and a second try where a kept connection turned out to be closed. */
export function httpsTransport(source: CredentialSource, now: () => number, userAgent: string): Transport {
  let read: { readonly credentials: Credentials; readonly at: number } | undefined;
  let reading: Promise<Outcome<Credentials>> | undefined;
  let agent: { readonly agent: Agent; readonly key: string } | undefined;

  const credentials = (olderMs: number): Promise<Outcome<Credentials>> => {
    // A clock that was set back makes nothing young for ever.
    if (read !== undefined && now() >= read.at && now() - read.at < olderMs) return Promise.resolve({ ok: true, value: read.credentials });
    reading ??= source
      .read()
      .catch(unreadable)
      .then((outcome) => {
        reading = undefined;
        if (outcome.ok) read = { credentials: outcome.value, at: now() };
        else if (read !== undefined) return { ok: true, value: read.credentials }; // the server says whether they are still good
        return outcome;
      });
    return reading;
  };

  /** One for each set of certificates; connections of the last one live on until they end. */
  const agentOf = ({ server, tls }: Credentials): Agent => {
    const key = JSON.stringify([server, tls]);
    if (agent?.key !== key) {
      const options = { keepAlive: true, keepAliveMsecs: KEEPALIVE_MS, timeout: IDLE_SOCKET_MS, maxFreeSockets: 2 };
      agent = { key, agent: server.startsWith("http:") ? new HttpAgent(options) : new HttpsAgent({ ...options, ...tls }) };
    }
    return agent.agent;
  };

  const send = (request: ApiRequest, with_: Credentials, signal: AbortSignal): Promise<Sent> =>
    new Promise((resolve) => {
      const { body, method, path } = request;
      const headers = {
        Accept: "application/json",
        "User-Agent": userAgent,
        ...(body === undefined ? {} : { "Content-Type": body.type, "Content-Length": Buffer.byteLength(body.text) }),
        ...with_.headers,
      };
      try {
        const url = new URL(with_.server + path);
        const make = url.protocol === "http:" ? httpRequest : httpsRequest;
        const sent = make(url, { method, headers, agent: agentOf(with_), signal });
        sent.on("socket", (socket) => socket.setKeepAlive(true, KEEPALIVE_MS));
        sent.on("response", (response) => resolve({ response }));
        sent.on("error", (error) => resolve({ error, reused: sent.reusedSocket }));
        sent.end(body?.text);
      } catch (error) {
        resolve({ error, reused: false }); // an address, a header or a certificate that Node refuses
      }
    });

  const open = async (request: ApiRequest, signal: AbortSignal): Promise<Outcome<ApiStream>> => {
    let known = await credentials(source.freshMs);
    for (let tries = 0; ; tries++) {
      if (!known.ok) return known;
      if (signal.aborted) return { ok: false, fault: reasonOf(signal) };
      const { server } = known.value;
      const answer = await send(request, known.value, signal);
      if (answer.response === undefined) {
        if (signal.aborted) return { ok: false, fault: reasonOf(signal) };
        if (answer.reused && tries === 0) continue; // it had been closed while nobody used it
        return { ok: false, fault: connectionFault(answer.error, server, source.source) };
      }
      const { response } = answer;
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) {
        return { ok: true, value: { read: (take) => drain(response, signal, take, server, source.source) } };
      }
      const text = await beginning(response);
      if (status === 401 && tries === 0) {
        const old = known.value;
        known = await credentials(RENEW_MS);
        if (!known.ok || JSON.stringify(known.value) !== JSON.stringify(old)) continue;
      }
      if (signal.aborted) return { ok: false, fault: reasonOf(signal) };
      return { ok: false, fault: statusFault(request, status, text, source.source, response.headers["retry-after"] ?? "") };
    }
  };
  return { open, close: () => agent?.agent.destroy() };
}

type Sent = { readonly response: IncomingMessage } | { readonly response?: undefined; readonly error: unknown; readonly reused: boolean };

function unreadable(error: unknown): Outcome<Credentials> {
  const what = `credentials cannot be read: ${messageOf(error)}`;
  return {
    ok: false,
    fault: new ApiFault("credentials", what, "has this process too many open files, or too little memory?", { cause: error }),
  };
}

function reasonOf(signal: AbortSignal): ApiFault {
  return signal.reason instanceof ApiFault ? signal.reason : new ApiFault("closed", "stopped", "start it again");
}

function drain(
  response: IncomingMessage,
  signal: AbortSignal,
  take: (piece: Buffer) => ApiFault | undefined,
  server: string,
  source: string,
): Promise<ApiFault | undefined> {
  return new Promise((resolve) => {
    let ended: ApiFault | undefined;
    let cut: unknown;
    let bytes = 0;
    response.on("data", (piece: Buffer) => {
      if (ended !== undefined) return;
      ended = take(piece);
      bytes += piece.length;
      if (ended !== undefined) response.destroy();
      else if (bytes >= TURN_BYTES_MAX) {
        bytes = 0;
        response.pause();
        setImmediate(() => response.resume());
      }
    });
    response.on("error", (error) => {
      cut = error;
    });
    response.on("close", () => {
      if (ended !== undefined) resolve(ended);
      else if (response.complete) resolve(undefined);
      else if (signal.aborted) resolve(reasonOf(signal));
      else resolve(connectionFault(cut ?? new Error("the connection was cut"), server, source));
    });
  });
}

/** Of an error's body; what is longer is cut, and so is the connection. */
function beginning(response: IncomingMessage): Promise<string> {
  return new Promise((resolve) => {
    const pieces: Buffer[] = [];
    let bytes = 0;
    response.on("data", (piece: Buffer) => {
      bytes += piece.length;
      if (bytes > ERROR_BYTES_MAX) response.destroy();
      else pieces.push(piece);
    });
    response.on("error", () => {}); // what came is good enough
    response.on("close", () => resolve(Buffer.concat(pieces).toString("utf8")));
  });
}
