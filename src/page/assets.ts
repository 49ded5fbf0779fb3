import { readFile } from "node:fs/promises";

interface Asset {
  readonly file: URL;
  readonly type: string;
}

const HTML = "text/html; charset=utf-8";
const CSS = "text/css; charset=utf-8";
const SCRIPT = "text/javascript; charset=utf-8";

/** All that is served; scripts/bundle.mjs finds the files by these URLs. */
const ASSETS: ReadonlyMap<string, Asset> = new Map([
  ["/", { file: new URL("./static/index.html", import.meta.url), type: HTML }],
  ["/page.css", { file: new URL("./static/page.css", import.meta.url), type: CSS }],
  ["/icon.svg", { file: new URL("./static/icon.svg", import.meta.url), type: "image/svg+xml" }],
  ["/app.mjs", { file: new URL("./static/app.mjs", import.meta.url), type: SCRIPT }],
  ["/dom.mjs", { file: new URL("./static/dom.mjs", import.meta.url), type: SCRIPT }],
  ["/words.mjs", { file: new URL("./static/words.mjs", import.meta.url), type: SCRIPT }],
  ["/store.mjs", { file: new URL("./static/store.mjs", import.meta.url), type: SCRIPT }],
  ["/feed.mjs", { file: new URL("./static/feed.mjs", import.meta.url), type: SCRIPT }],
  ["/list.mjs", { file: new URL("./static/list.mjs", import.meta.url), type: SCRIPT }],
  ["/picture.mjs", { file: new URL("./static/picture.mjs", import.meta.url), type: SCRIPT }],
  ["/panels.mjs", { file: new URL("./static/panels.mjs", import.meta.url), type: SCRIPT }],
  ["/event.mjs", { file: new URL("./static/event.mjs", import.meta.url), type: SCRIPT }],
  ["/explain.mjs", { file: new URL("./static/explain.mjs", import.meta.url), type: SCRIPT }],
]);

/** Read each time, so that nobody's memory holds them. `undefined`: there is none of this path. */
export async function asset(path: string): Promise<{ readonly body: Buffer; readonly type: string } | undefined> {
  const found = ASSETS.get(path);
  return found === undefined ? undefined : { body: await readFile(found.file), type: found.type };
}
