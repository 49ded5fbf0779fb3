import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import type { TestContext } from "node:test";

/** A way to a server on loopback, which can be in the way. */
export interface Door {
  readonly port: number;
  /** Ends every connection, in whatever it is. */
  cut(): void;
  /** Shut: every connection ends, and new ones are ended at once. */
  shut(on: boolean): void;
  /** What the server says comes in pieces of so many bytes, one every so often; undefined: as it comes. */
  slow(to: { readonly bytes: number; readonly everyMs: number } | undefined): void;
}

export async function door(t: Pick<TestContext, "after">, target: number): Promise<Door> {
  const open = new Set<Socket>();
  let closed = false;
  let pace: { readonly bytes: number; readonly everyMs: number } | undefined;
  const server = createServer((client) => {
    client.on("error", () => undefined);
    if (closed) {
      client.destroy();
      return;
    }
    const up = createConnection({ host: "127.0.0.1", port: target });
    open.add(client);
    client.on("close", () => {
      open.delete(client);
      up.destroy();
    });
    up.on("error", () => undefined).on("close", () => client.destroy());
    client.pipe(up);
    let line = Promise.resolve();
    up.on("data", (piece: Buffer) => {
      const at = pace;
      if (at === undefined) line = line.then(() => void client.write(piece));
      else
        for (let from = 0; from < piece.length; from += at.bytes)
          line = line.then(async () => {
            await new Promise((resolve) => setTimeout(resolve, at.everyMs));
            client.write(piece.subarray(from, from + at.bytes));
          });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = (): void => {
    for (const socket of open) socket.destroy();
  };
  t.after(() => {
    cut();
    server.close();
  });
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    shut: (on) => {
      closed = on;
      if (on) cut();
    },
    slow: (to) => {
      pace = to;
    },
  };
}
