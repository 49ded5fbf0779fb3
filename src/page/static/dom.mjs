// Elements without markup: whatever an event says becomes text, never HTML. (The Content-Security-Policy has no way for HTML out of text either.)

const SVG = "http://www.w3.org/2000/svg";
/** Controls, and what makes text look like other text: bidi overrides, zero-width and line separators. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Text as it is to be seen: what cannot be seen is written \u{hex}. */
export function seen(text) {
  return String(text ?? "").replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : name === "title" ? String(value).split("\n").map(seen).join("\n") : seen(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(seen(child)));
  }
  return node;
}

/** Attributes by name, listeners by event; children are elements or text. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

export const $ = (id) => document.getElementById(id);

export function setText(node, text) {
  const now = seen(text);
  if (node.textContent !== now) node.textContent = now;
}

/** Runs `work` once in the next frame, however often it was asked for, and not within `everyMs` of the last time; without frames where the page is not seen. */
export function framed(work, everyMs = 0) {
  let wanted = false;
  let last = -Infinity;
  const run = () => {
    wanted = false;
    last = performance.now();
    work();
  };
  const inFrame = () => (document.hidden ? run() : requestAnimationFrame(run));
  return () => {
    if (wanted) return;
    wanted = true;
    const rest = document.hidden ? Math.max(everyMs, 250) : everyMs - (performance.now() - last);
    if (rest > 0) setTimeout(inFrame, rest);
    else inFrame();
  };
}
