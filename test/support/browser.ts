import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";

/** Headless Chromium, driven by the DevTools protocol over two pipes (--remote-debugging-pipe): no port, no package. */
export interface Browser {
  tab(size?: { readonly width: number; readonly height: number; readonly dark?: boolean }): Promise<Tab>;
  close(): Promise<void>;
}

export interface Tab {
  /** Of the page's own console and exceptions, and what its Content-Security-Policy stopped. */
  readonly errors: readonly string[];
  /** Every URL that was asked for. */
  readonly requests: readonly string[];
  send(method: string, params?: object): Promise<Record<string, unknown>>;
  goto(url: string): Promise<void>;
  /** The value of an expression, or of what it promises. */
  eval<T>(expression: string): Promise<T>;
  /** Waits until the expression is true. */
  until(what: string, expression: string, timeoutMs?: number): Promise<void>;
  /** With a real mouse, in the middle of the first element. */
  click(selector: string): Promise<void>;
  /** A key by its name: `Escape`, `ArrowDown`, `a`. */
  key(name: string): Promise<void>;
  type(text: string): Promise<void>;
  screenshot(file: string): Promise<void>;
}

type Params = Record<string, unknown>;
interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Params;
  readonly result?: Params;
  readonly error?: { readonly message: string };
  readonly sessionId?: string;
}

const FLAGS = [
  "--headless",
  "--no-sandbox", // root cannot have one
  "--remote-debugging-pipe",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-extensions",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--hide-scrollbars",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", // it asks nobody on the network
];
const WAIT_MS = 15_000;
const KEYS: Readonly<Record<string, number>> = { Escape: 27, Enter: 13, ArrowDown: 40, ArrowUp: 38, Home: 36, End: 35, Tab: 9, "/": 191 };

/** `within`: what runs the program, for example `ip netns exec NAME`. */
export async function openBrowser(t: { after(done: () => unknown): void }, within: readonly string[] = []): Promise<Browser> {
  const home = mkdtempSync(join(tmpdir(), "namegate-browser-"));
  const [program, ...argv] = [...within, "chromium", ...FLAGS, `--user-data-dir=${home}`];
  const child = spawn(program as string, argv, {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    env: { ...process.env, HOME: home },
    detached: true,
  });
  const [, , , input, output] = child.stdio as unknown as [null, null, null, Writable, Readable];
  const asked = new Map<number, { resolve: (value: Params) => void; reject: (error: Error) => void }>();
  const listeners = new Set<(message: Message) => void>();
  let last = 0;
  let rest = "";
  let gone = false;
  const exited = new Promise<void>((resolve) => {
    const end = (): void => {
      gone = true;
      for (const { reject } of asked.values()) reject(new Error("chromium has ended"));
      asked.clear();
      resolve();
    };
    child.once("exit", end);
    child.once("error", end);
  });
  input.on("error", () => undefined);
  output.on("error", () => undefined);
  output.setEncoding("utf8");
  output.on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\0");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const message = JSON.parse(part) as Message;
      const waits = message.id === undefined ? undefined : asked.get(message.id);
      if (waits === undefined) {
        for (const listener of listeners) listener(message);
        continue;
      }
      asked.delete(message.id as number);
      if (message.error === undefined) waits.resolve(message.result ?? {});
      else waits.reject(new Error(message.error.message));
    }
  });
  const send = (method: string, params: object = {}, sessionId?: string): Promise<Params> =>
    new Promise((resolve, reject) => {
      if (gone) return reject(new Error("chromium has ended"));
      const id = ++last;
      asked.set(id, { resolve, reject });
      input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  const browser: Browser = {
    tab: async (size = { width: 1440, height: 900 }) => {
      const { targetId } = await send("Target.createTarget", { url: "about:blank" });
      const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
      return openTab((method, params) => send(method, params, sessionId as string), sessionId as string, listeners, size);
    },
    close: async () => {
      if (!gone) await Promise.race([send("Browser.close").catch(() => undefined), new Promise((done) => setTimeout(done, 3000))]);
      if (!gone && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      await exited;
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  t.after(() => browser.close());
  return browser;
}

async function openTab(
  send: Tab["send"],
  sessionId: string,
  listeners: Set<(message: Message) => void>,
  { width, height, dark = false }: { readonly width: number; readonly height: number; readonly dark?: boolean },
): Promise<Tab> {
  const errors: string[] = [];
  const requests: string[] = [];
  let loaded = (): void => undefined;
  listeners.add(({ method, params = {}, sessionId: of }) => {
    if (of !== sessionId) return;
    if (method === "Page.loadEventFired") loaded();
    else if (method === "Network.requestWillBeSent") requests.push((params["request"] as { url: string }).url);
    else if (method === "Runtime.exceptionThrown") errors.push(JSON.stringify(params["exceptionDetails"]));
    else if (method === "Runtime.consoleAPICalled" && /error|warning|assert/.test(String(params["type"])))
      errors.push(JSON.stringify(params["args"]));
    else if (method === "Log.entryAdded") errors.push(logText(params["entry"] as Entry));
    else if (method === "Audits.issueAdded") {
      const { code, details } = params["issue"] as { code: string; details: object };
      if (code === "ContentSecurityPolicyIssue") errors.push(JSON.stringify(details));
    }
  });
  for (const domain of ["Page", "Network", "Runtime", "Log", "Audits"]) await send(`${domain}.enable`);
  await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
  const evaluate = async <T>(expression: string): Promise<T> => {
    const answer = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (answer["exceptionDetails"] !== undefined) throw new Error(`${expression}: ${JSON.stringify(answer["exceptionDetails"])}`);
    return (answer["result"] as { value: T }).value;
  };
  return {
    errors,
    requests,
    send,
    goto: async (url) => {
      const done = new Promise<void>((resolve) => (loaded = resolve));
      const { errorText } = await send("Page.navigate", { url });
      if (errorText !== undefined) throw new Error(`${url}: ${String(errorText)}`);
      await done;
    },
    eval: evaluate,
    until: async (what, expression, timeoutMs = WAIT_MS) => {
      const end = Date.now() + timeoutMs;
      while (!(await evaluate<boolean>(`Boolean(${expression})`))) {
        if (Date.now() > end) throw new Error(`the page never had: ${what}\n${errors.join("\n")}`);
        await new Promise((done) => setTimeout(done, 50));
      }
    },
    click: async (selector) => {
      const at = await evaluate<{ x: number; y: number } | null>(
        `(() => { const e = document.querySelector(${JSON.stringify(selector)}); if (!e) return null; e.scrollIntoView({ block: "nearest" }); const r = e.getBoundingClientRect(); return { x: r.x + r.width / 2, y: r.y + r.height / 2 }; })()`,
      );
      if (at === null) throw new Error(`no ${selector} on the page`);
      for (const type of ["mousePressed", "mouseReleased"])
        await send("Input.dispatchMouseEvent", { type, ...at, button: "left", clickCount: 1 });
    },
    key: async (name) => {
      const text = name.length === 1 ? name : name === "Enter" ? "\r" : undefined;
      const common = { key: name, code: name, windowsVirtualKeyCode: KEYS[name] ?? name.toUpperCase().charCodeAt(0) };
      await send("Input.dispatchKeyEvent", { type: "keyDown", ...common, ...(text === undefined ? {} : { text }) });
      await send("Input.dispatchKeyEvent", { type: "keyUp", ...common });
    },
    type: async (text) => {
      await send("Input.insertText", { text });
    },
    screenshot: async (file) => {
      const { data } = await send("Page.captureScreenshot", { format: "png" });
      writeFileSync(file, Buffer.from(data as string, "base64"));
    },
  };
}

interface Entry {
  readonly level: string;
  readonly text: string;
  readonly url?: string;
}
const logText = ({ level, text, url }: Entry): string => `${level}: ${text} ${url ?? ""}`;
