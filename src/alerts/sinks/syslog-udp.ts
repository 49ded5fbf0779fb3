import { createSocket, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import { messageOf } from "../../base/fault.ts";
import type { ItemOutcome, Outcome, Outgoing, Sink } from "./sink.ts";

/** RFC 768, RFC 791: 65535 less the headers. */
const DATAGRAM_BYTES_MAX = 65_507;

/** Syslog over UDP (RFC 5426): a message a datagram, and nobody ever knows what arrived. */
export class SyslogUdp implements Sink {
  private readonly host: string;
  private readonly port: number;
  private readonly render: (one: Outgoing) => string;
  private socket: Socket | undefined;

  constructor(host: string, port: number, render: (one: Outgoing) => string) {
    this.host = host;
    this.port = port;
    this.render = render;
  }

  async send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome> {
    const results: ItemOutcome[] = [];
    let why = "";
    for (const one of batch) {
      const bytes = Buffer.from(this.render(one));
      if (bytes.length > DATAGRAM_BYTES_MAX) results.push({ refused: "longer than a datagram" });
      else if (signal.aborted || why !== "") results.push("retry");
      else {
        const failed = await this.one(bytes, signal);
        results.push(failed === undefined ? "done" : "retry");
        why = failed ?? "";
      }
    }
    return { kind: "each", results, why };
  }

  /** undefined: sent. */
  private one(bytes: Buffer, signal: AbortSignal): Promise<string | undefined> {
    return new Promise((resolve) => {
      const stop = (): void => resolve("no answer about the name within the time limit");
      signal.addEventListener("abort", stop, { once: true });
      this.socket ??= this.open();
      this.socket.send(bytes, this.port, this.host, (error) => {
        signal.removeEventListener("abort", stop);
        if (error !== null) this.close();
        resolve(error === null ? undefined : messageOf(error));
      });
    });
  }

  private open(): Socket {
    const socket = createSocket(isIPv6(this.host) ? "udp6" : "udp4");
    socket.on("error", () => this.close());
    socket.unref();
    return socket;
  }

  close(): void {
    const { socket } = this;
    this.socket = undefined;
    try {
      socket?.close();
    } catch {
      // Closed already.
    }
  }
}
