import { policy } from "./agent.ts";
import type { Client } from "./client.ts";

/** A rule for names on one TCP port. */
export const accept = (names: readonly string[], port: number): object => ({
  name: `port-${port}`,
  action: "Accept",
  to: [{ domainNames: names }],
  ports: [{ protocol: "TCP", port }],
});
/** A policy that enforces these rules on the pods of an app. */
export const enforcing = (app: string, ...egress: readonly object[]): string =>
  policy(app, { mode: "Enforce", subject: { podSelector: { matchLabels: { app } } }, egress });

/** How a connection ends; null: answered. */
export const code = async (client: Client, host: string, port = 443): Promise<string | null> =>
  (await client.connect({ host, port, send: "x" })).code;
