import type { IncomingMessage } from "node:http";

/** `localhost`, 127.0.0.0/8 or [::1], with any port: a port-forward may have another one here than there. */
const HOST = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?$/i;
const LOOPBACK = /^(::ffff:)?127\.|^::1$/;

/**
 * Why a request is refused; undefined: it may see the page. Clients are on loopback, wherever the server listens. The Host is a literal of loopback, so a
 * name that an attacker points to 127.0.0.1 (DNS rebinding) opens nothing. A browser's word about who asks (Fetch Metadata) must not name
 * another site; a link to the page itself is fine.
 */
export function refusal({
  socket,
  headers,
  url,
}: Pick<IncomingMessage, "headers" | "url"> & { socket: { remoteAddress?: string | undefined } }): string | undefined {
  if (!LOOPBACK.test(socket.remoteAddress ?? "")) return "only for loopback clients: forward a port to this node's loopback";
  if (!HOST.test(headers.host ?? "")) return "the Host must be localhost, 127.0.0.1 or [::1]";
  if (headers.origin !== undefined && headers.origin !== `http://${headers.host}`) return "another origin asks";
  const site = headers["sec-fetch-site"];
  if (site === undefined || site === "same-origin" || site === "none") return undefined;
  const link = headers["sec-fetch-mode"] === "navigate" && headers["sec-fetch-dest"] === "document";
  return link && url === "/" ? undefined : "another site asks";
}
