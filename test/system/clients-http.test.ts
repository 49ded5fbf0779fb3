import { test } from "node:test";
import { daemon, nginx } from "../support/daemons.ts";
import { OTHER, SVC, trial } from "../support/trial.ts";

const PYTHON = "/usr/bin/python3";

test("curl and nginx, in plain: HTTP/1.1 and HTTP/2", async (t) => {
  const it = await trial(t, ["nginx", "curl"]);
  if (it === undefined) return;
  await nginx(it.lab, { plain: [80], h2c: [8080] });
  const kinds = [
    { application: "http1", port: 80, more: ["--http1.1"], says: /HTTP\/1\.1 from nginx/ },
    { application: "http2", port: 8080, more: ["--http2-prior-knowledge"], says: /HTTP\/2\.0 from nginx/ },
  ];
  for (const { application, port, more, says } of kinds) {
    const curl = (path: string, ...rest: string[]): string[] => [
      "curl",
      "-sS",
      "-m",
      "8",
      ...more,
      ...rest,
      `http://${SVC}:${port}${path}`,
    ];

    await t.test(`${application}: method, host and path (without its query) are told`, async () => {
      for (const wanted of [application, "http"]) {
        await it.rules({ application: wanted, port });
        await it.shows(curl("/cart?id=1"), says, { application, serverName: SVC, fields: { method: "GET", path: "/cart" } });
      }
    });

    await t.test(`${application}: another host than the rule's`, async () => {
      await it.rules({ application: "http", port });
      await it.denied(curl("/", "-H", `Host: ${OTHER}`), says, "wrong-server-name", { application, serverName: OTHER });
    });

    await t.test(`${application}: the rule's methods and paths only`, async () => {
      await it.rules({ application: "http", port, http: { methods: ["GET"], paths: ["/cart/*"] } });
      await it.passes(curl("/cart/1"), says);
      await it.denied(curl("/cart/1", "-d", "body"), says, "wrong-identity", { application, fields: { method: "POST" } });
      await it.denied(curl("/admin"), says, "wrong-identity", { application, fields: { path: "/admin" } });
    });

    await t.test(`${application}: a rule for another protocol`, async () => {
      for (const other of ["tls", "grpc", application === "http1" ? "http2" : "http1", "redis"]) {
        await it.rules({ application: other, port });
        await it.denied(curl("/"), says, "wrong-protocol", { application });
      }
    });
  }
});

/** A server of one method without protobuf; `argv` = port. */
const GRPC_SERVER = `
import sys, grpc, time
from concurrent import futures
class Orders(grpc.GenericRpcHandler):
    def service(self, details): return grpc.unary_unary_rpc_method_handler(lambda request, context: b"an answer")
server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Orders()])
server.add_insecure_port("[::]:" + sys.argv[1]); server.start(); server.wait_for_termination()
`;
/** `argv` = target, method. */
const GRPC_CLIENT = `
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    try: print(channel.unary_unary(sys.argv[2])(b"order 1", timeout=3).decode())
    except grpc.RpcError as error: print(error.code())
`;

test("gRPC's own client and server", async (t) => {
  const it = await trial(t, [PYTHON, "/usr/lib/python3/dist-packages/grpc"]);
  if (it === undefined) return;
  await daemon(it.lab, [PYTHON, it.lab.file("grpc-server.py", GRPC_SERVER), "50051"], { tcp: [50051] });
  const script = it.lab.file("grpc-client.py", GRPC_CLIENT);
  const call = (service: string, method: string): string[] => [PYTHON, script, `${SVC}:50051`, `/${service}/${method}`];
  const says = /an answer/;
  const rule = { application: "grpc", port: 50051 };

  await it.rules(rule);
  await it.shows(call("shop.v1.Orders", "GetOrder"), says, {
    application: "grpc",
    fields: { service: "shop.v1.Orders", method: "GetOrder" },
  });
  await it.rules({ ...rule, application: "http" });
  await it.passes(call("shop.v1.Orders", "GetOrder"), says);
  await it.rules({ ...rule, grpc: { services: ["shop.v1.Orders"] } });
  await it.passes(call("shop.v1.Orders", "GetOrder"), says);
  await it.denied(call("shop.v1.Admin", "GetOrder"), says, "wrong-identity", { application: "grpc", fields: { service: "shop.v1.Admin" } });
  await it.rules({ ...rule, application: "tls" });
  // Its first segment may have the preface alone, which does not tell yet what kind of HTTP/2 it is.
  await it.denied(call("shop.v1.Orders", "GetOrder"), says, "wrong-protocol");
});

const WEBSOCKET_SERVER = `
import asyncio, sys, websockets
async def echo(socket, path=None):
    async for text in socket: await socket.send("an answer to " + text)
async def main():
    async with websockets.serve(echo, "::", int(sys.argv[1])): await asyncio.Future()
asyncio.run(main())
`;
const WEBSOCKET_CLIENT = `
import asyncio, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], open_timeout=4) as socket:
        await socket.send("hello"); print(await asyncio.wait_for(socket.recv(), 4))
asyncio.run(main())
`;

test("a WebSocket client and server", async (t) => {
  const it = await trial(t, [PYTHON, "/usr/lib/python3/dist-packages/websockets"]);
  if (it === undefined) return;
  await daemon(it.lab, [PYTHON, it.lab.file("ws-server.py", WEBSOCKET_SERVER), "8000"], { tcp: [8000] });
  const client = [PYTHON, it.lab.file("ws-client.py", WEBSOCKET_CLIENT), `ws://${SVC}:8000/chat`];
  const says = /an answer to hello/;
  await it.rules({ application: "websocket", port: 8000 });
  await it.shows(client, says, { application: "websocket", serverName: SVC });
  for (const application of ["tls", "http2", "redis"]) {
    await it.rules({ application, port: 8000 });
    await it.denied(client, says, "wrong-protocol");
  }
});
