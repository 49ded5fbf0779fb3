import { chmodSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { Fault, messageOf } from "../base/fault.ts";

/**
 * The agent's unix socket: a client sends one line of JSON, `{"command": …}`, and gets lines of JSON back until the agent
 * closes. Only root can connect (mode 0600).
 */
export interface Request {
  readonly command: string;
  readonly [field: string]: unknown;
}

/** Answers a request by calling `line`, then returns; or returns a function to be called when the client is gone. */
export type Handler = (request: Request, line: (value: unknown) => boolean) => Promise<void | (() => void)>;

const REQUEST_BYTES_MAX = 64 * 1024;
const CLIENTS_MAX = 64;
/** A client that reads slower than this backlog is cut off. */
const BACKLOG_BYTES_MAX = 4 * 1024 * 1024;

export async function listen(path: string, handle: Handler): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  await refuseSecond(path);
  rmSync(path, { force: true });
  const server = createServer((socket) => serve(socket, handle));
  server.maxConnections = CLIENTS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(new Fault("socket", `cannot listen on ${path}: ${messageOf(error)}`, "choose a writable place with --socket PATH", error)),
    );
    server.listen(path, resolve);
  });
  chmodSync(path, 0o600);
  return server;
}

/** Throws a Fault where an agent listens at `path`. */
export async function refuseSecond(path: string): Promise<void> {
  if (existsSync(path) && (await answers(path)))
    throw new Fault("agent-running", `an agent already listens on ${path}`, "stop it, or give this one another --socket");
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

function serve(socket: Socket, handle: Handler): void {
  let text = "";
  let asked = false;
  let ended: (() => void) | undefined;
  socket.setEncoding("utf8");
  socket.on("error", () => socket.destroy());
  socket.on("close", () => ended?.());
  const line = (value: unknown): boolean => {
    if (socket.destroyed || socket.writableLength > BACKLOG_BYTES_MAX) {
      socket.destroy();
      return false;
    }
    socket.write(`${JSON.stringify(value)}\n`);
    return true;
  };
  socket.on("data", (chunk: string) => {
    if (asked) return;
    text += chunk;
    if (text.length > REQUEST_BYTES_MAX) {
      socket.destroy();
      return;
    }
    const end = text.indexOf("\n");
    if (end < 0) return;
    asked = true;
    void (async () => {
      try {
        const request = JSON.parse(text.slice(0, end)) as Request;
        if (typeof request !== "object" || request === null || typeof request.command !== "string")
          throw new Fault("request", "not a request", 'send {"command": "status"}');
        const stop = await handle(request, line);
        if (stop === undefined) socket.end();
        else if (socket.destroyed) stop();
        else ended = stop;
      } catch (error) {
        line({
          error: error instanceof Fault ? error.code : "request",
          message: messageOf(error),
          fix: error instanceof Fault ? error.fix : "see `namegate help`",
        });
        socket.end();
      }
    })();
  });
}

/** Sends one request and calls `onLine` for each line of the answer, until the agent closes or `signal` says stop. Rejects with the agent's Fault. */
export function ask(path: string, request: Request, onLine: (value: unknown) => void, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    let rest = "";
    socket.setEncoding("utf8");
    if (signal?.aborted === true) socket.destroy();
    signal?.addEventListener("abort", () => socket.destroy());
    socket.once("connect", () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on("data", (chunk: string) => {
      rest += chunk;
      for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
        const text = rest.slice(0, end);
        rest = rest.slice(end + 1);
        try {
          const line: unknown = JSON.parse(text);
          const { error, message, fix } = (typeof line === "object" && line !== null ? line : {}) as Record<string, unknown>;
          if (typeof error === "string" && typeof message === "string") throw new Fault(error, message, typeof fix === "string" ? fix : "");
          onLine(line);
        } catch (error) {
          socket.destroy();
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      }
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "ENOENT" || error.code === "ECONNREFUSED"
          ? "no agent is running there"
          : error.code === "EACCES"
            ? "permission denied"
            : error.message;
      reject(
        new Fault(
          "no-agent",
          `cannot ask the agent at ${path}: ${why}`,
          error.code === "EACCES" ? "run as root" : "start it with `namegate agent`, or name its socket with --socket PATH",
          error,
        ),
      );
    });
    socket.once("close", () => resolve());
  });
}
