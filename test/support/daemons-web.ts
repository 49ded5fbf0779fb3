import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab, LabServer } from "../../src/cli/lab-types.ts";
import { daemon, folder, OUT } from "./daemons.ts";
import { certificate } from "./servers.ts";

/** Servers of HTTP/3, as in daemons.ts. */

/** caddy: HTTP/1.1, HTTP/2 and HTTP/3 on one port, which answers with the protocol and the host of the request. */
export async function caddy(lab: Lab, port: number): Promise<Child> {
  const { key, cert } = await certificate(lab);
  const home = folder(lab, "caddy");
  // Its datagrams would else come from the address that the routing table prefers.
  const { addresses } = lab.servers.find(({ name }) => name === OUT) as LabServer;
  const config = `
{
  admin off
  auto_https off
  skip_install_trust
}
:${port} {
  bind ${addresses.map((address) => (address.includes(":") ? `[${address}]` : address)).join(" ")}
  tls ${cert} ${key}
  respond "{http.request.proto} from caddy for {http.request.host}"
}
`;
  const env = { HOME: home, XDG_DATA_HOME: home, XDG_CONFIG_HOME: home };
  const argv = ["caddy", "run", "--adapter", "caddyfile", "--config", lab.file("Caddyfile", config)];
  return daemon(lab, argv, { tcp: [port], udp: [port], env });
}

/** ngtcp2's example server: HTTP/3, with a folder of its own. */
export async function ngtcp2(lab: Lab, port: number, more: readonly string[] = []): Promise<Child> {
  const { key, cert } = await certificate(lab);
  return daemon(lab, ["gtlsserver", "-q", "-d", folder(lab, "htdocs"), ...more, "*", String(port), key, cert], { udp: [port] });
}
