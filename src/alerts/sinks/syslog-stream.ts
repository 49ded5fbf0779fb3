import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { messageOf } from "../../base/fault.ts";
import type { TargetSettings } from "../../model/alerts.ts";
import { octetCounted } from "../formats/syslog.ts";
import type { Outcome, Outgoing, Sink } from "./sink.ts";
import { TlsFiles } from "./watched-file.ts";

/** A syslog receiver has nothing to say; one that does is no syslog receiver. */
const HEARD_BYTES_MAX = 64 * 1024;
const GOODBYE_MS = 1000;

/**
 * Syslog over TCP (RFC 6587) or TLS (RFC 5425), one connection that is kept. The protocol has no acknowledgement: a batch is done when
 * the kernel has all of it and the connection still stands, so what was on the wire when the receiver died is lost.
 */
export class SyslogStream implements Sink {
  private readonly target: TargetSettings & { readonly kind: "syslog" };
  private readonly render: (one: Outgoing) => string;
  private readonly files: TlsFiles;
  private socket: Socket | undefined;
  private material = "";

  constructor(target: TargetSettings & { readonly kind: "syslog" }, render: (one: Outgoing) => string) {
    this.target = target;
    this.render = render;
    this.files = new TlsFiles(target.tls);
  }

  async send(batch: readonly Outgoing[], signal: AbortSignal): Promise<Outcome> {
    const counted = this.target.framing === "octet-counting";
    const bytes = Buffer.concat(batch.map((one) => (counted ? octetCounted(this.render(one)) : Buffer.from(`${this.render(one)}\n`))));
    try {
      const socket = await this.connected(signal);
      await new Promise<void>((resolve, reject) => {
        const stop = (): void => reject(new Error("the receiver takes nothing"));
        const ended = (): void => reject(new Error("the receiver closed the connection"));
        signal.addEventListener("abort", stop, { once: true });
        socket.once("close", ended);
        socket.write(bytes, (error) => {
          signal.removeEventListener("abort", stop);
          socket.removeListener("close", ended);
          // The write of a connection that is torn down ends without an error, too.
          if (error) reject(error);
          else if (socket.destroyed) ended();
          else resolve();
        });
      });
      return { kind: "done" };
    } catch (error) {
      this.close();
      return { kind: "retry", why: messageOf(error) };
    }
  }

  private async connected(signal: AbortSignal): Promise<Socket> {
    const { host, port, transport } = this.target;
    const found = this.files.read();
    if ("why" in found) throw new Error(found.why);
    const material = JSON.stringify(found.material);
    if (material !== this.material) this.close();
    this.material = material;
    if (this.socket !== undefined && !this.socket.destroyed && this.socket.writable) return this.socket;
    this.close();
    const tls = transport === "tls";
    const socket = tls
      ? connectTls({ host, port, ...(isIP(host) === 0 && { servername: host }), ...found.material })
      : connectPlain({ host, port });
    this.socket = socket;
    let heard = 0;
    socket.on("data", (part: Buffer) => {
      heard += part.length;
      if (heard > HEARD_BYTES_MAX) socket.destroy(new Error("what answers is no syslog receiver"));
    });
    // Half open is no use: who does not read does not get.
    socket.on("end", () => socket.destroy());
    socket.setKeepAlive(true, 30_000);
    await new Promise<void>((resolve, reject) => {
      const stop = (): void => reject(new Error("no connection within the time limit"));
      signal.addEventListener("abort", stop, { once: true });
      socket.once(tls ? "secureConnect" : "connect", () => {
        signal.removeEventListener("abort", stop);
        resolve();
      });
      socket.once("close", () => reject(new Error("the connection was closed")));
      socket.on("error", reject); // stays: an error that nobody hears would end the process
    });
    return socket;
  }

  /** A receiver that keeps up gets the end of the connection said, another does not. */
  close(): void {
    const { socket } = this;
    this.socket = undefined;
    if (socket === undefined) return;
    if (socket.connecting || socket.writableLength > 0) return void socket.destroy();
    socket.end();
    setTimeout(() => socket.destroy(), GOODBYE_MS).unref();
  }
}
