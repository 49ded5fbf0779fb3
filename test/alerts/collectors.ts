import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttp, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Outgoing } from "../../src/alerts/sinks/sink.ts";
import { severityOf } from "../../src/alerts/severity.ts";
import type { TlsSettings } from "../../src/model/alerts.ts";
import { samples } from "./events.ts";

export { NO_TLS } from "./pipeline-settings.ts";

export function tempFolder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "namegate-alerts-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export interface Certificates {
  readonly folder: string;
  readonly tls: TlsSettings;
}

/** An authority, a server `localhost` and a client, in files ca.pem, server.pem, server.key, client.pem, client.key. */
export function certificates(folder: string): Certificates {
  const openssl = (...args: string[]): void => void execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2");
  for (const name of ["server", "client"]) {
    const extensions = join(folder, `${name}.ext`);
    writeFileSync(extensions, name === "server" ? "subjectAltName=DNS:localhost,IP:127.0.0.1\n" : "extendedKeyUsage=clientAuth\n");
    openssl("req", ...key, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name === "server" ? "localhost" : "node-1"}`);
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-out",
      `${name}.pem`,
      "-days",
      "2",
      "-extfile",
      extensions,
    );
  }
  const tls = {
    caFile: join(folder, "ca.pem"),
    certFile: join(folder, "client.pem"),
    keyFile: join(folder, "client.key"),
    serverName: "localhost",
  };
  return { folder, tls };
}

export interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** An HTTP server on loopback (HTTPS with client certificates where there are certificates). */
export async function collector(
  t: TestContext,
  answer: (request: Request, response: ServerResponse) => void,
  pki?: Certificates,
): Promise<{ url: string; requests: Request[] }> {
  const requests: Request[] = [];
  const listener = (incoming: IncomingMessage, response: ServerResponse): void => {
    const parts: Buffer[] = [];
    incoming.on("data", (part: Buffer) => parts.push(part));
    incoming.on("error", () => undefined);
    incoming.on("end", () => {
      const { method = "", url = "", headers } = incoming;
      const request = { method, url, headers, body: Buffer.concat(parts).toString() };
      requests.push(request);
      answer(request, response);
    });
  };
  const pem = (name: string): Buffer => readFileSync(join(pki?.folder ?? "", name));
  const server: Server =
    pki === undefined
      ? createHttp(listener)
      : createHttps(
          { key: pem("server.key"), cert: pem("server.pem"), ca: pem("ca.pem"), requestCert: true, rejectUnauthorized: true },
          listener,
        );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http${pki === undefined ? "" : "s"}://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

/** `count` events on their way, in JSON. */
export function batchOf(count: number): Outgoing[] {
  const [, base] = samples()[1] as ReturnType<typeof samples>[number];
  return Array.from({ length: count }, (_, i) => {
    const event = { ...base, id: `run-${i}`, seq: i + 1 } as typeof base;
    return { event, severity: severityOf(event), text: JSON.stringify(event) };
  });
}

export const never = new AbortController().signal;
