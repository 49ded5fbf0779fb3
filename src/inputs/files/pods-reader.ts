import { isMap, isScalar, parseDocument } from "yaml";
import type { Ip } from "../../base/address.ts";
import type { Pod } from "../../model/snapshot.ts";
import { type PodsFile, PODS_MAX, readPods } from "./pods.ts";

/**
 * Reads one pods file again and again, each time as `readPods` would, but parses only the list items that are new: a pod
 * that starts or ends costs one small document, however many others there are. The Pod of an item whose text is the same
 * is the same object.
 *
 * An item that parses alone without a problem parses the same in its place when it says nothing that could reach beyond it
 * (DOUBTFUL) and the next one begins at the indentation of the list. Whatever is not that simple is read as a whole.
 */
export type PodsReader = typeof readPods;

/** A pods file in pieces; each item is a document of its own once `wrap`ped. */
interface Cut {
  readonly items: readonly string[];
  readonly wrap: (item: string) => string;
  /** All but the items. */
  readonly rest: string;
  /** Where in `rest` the key `pods` must turn out to be; undefined where that is known. */
  readonly at: number | undefined;
}

/** Comments, anchors, aliases, tags, block scalars, tabs, line ends but "\n", and what is not plain ASCII. */
const DOUBTFUL = /[#&*!|>]|[^\n\x20-\x7e]/;
/** Directives and document marks too; a comment between the fields is harmless. */
const DOUBTFUL_REST = /^(?:%|---|\.\.\.)|[&*!|>\t\r\ufeff]/m;
const KEY = "pods:\n";
const SPACE = 32;
const DASH = 45;
const LINE_FEED = 10;

export function podsReader(): PodsReader {
  // In the order of the file.
  let known = new Map<string, Pod>();
  let rest: { readonly text: string; readonly file: PodsFile | undefined } | undefined;
  let namespaces: PodsFile["namespaces"] = {};

  const inPieces = (cut: Cut): PodsFile | undefined => {
    if (rest?.text !== cut.rest) rest = { text: cut.rest, file: readRest(cut) };
    if (rest.file === undefined) return undefined;
    const read = new Map<string, Pod>();
    const fresh = new Set<Pod>();
    for (const item of cut.items) {
      let pod = known.get(item);
      if (pod === undefined) {
        if (cut.at !== undefined && DOUBTFUL.test(item)) return undefined;
        pod = readPods("", cut.wrap(item)).pods?.pods[0];
        if (pod === undefined) return undefined;
        fresh.add(pod);
        read.set(copied(item), pod);
      } else read.set(item, pod);
    }
    const pods = [...read.values()];
    if (pods.length !== cut.items.length || !distinct(pods, fresh)) return undefined;
    known = read;
    const all = namespacesWith(rest.file.namespaces, pods);
    if (JSON.stringify(all) !== JSON.stringify(namespaces)) namespaces = all;
    return { ...rest.file, pods, namespaces };
  };

  return (file, text) => {
    const cut = text.startsWith("{") ? cutJson(text) : cutBlock(text, known);
    const pods = cut === undefined || cut.items.length > PODS_MAX ? undefined : inPieces(cut);
    return pods === undefined ? readPods(file, text) : { pods, problems: [] };
  };
}

/**
 * Cuts block style at the lines that begin with a dash at the indentation of the first item. `before`: the items of the
 * last time, in their order; one that is there again in its turn is compared as a whole instead of looked through.
 */
function cutBlock(text: string, before: ReadonlyMap<string, unknown>): Cut | undefined {
  const at = text.startsWith(KEY) ? 0 : text.indexOf(`\n${KEY}`) + 1;
  const start = at + KEY.length;
  if (!text.startsWith(KEY, at)) return undefined;
  let indent = 0;
  while (text.charCodeAt(start + indent) === SPACE) indent++;
  if (!dashAt(text, start + indent)) return undefined;
  const items: string[] = [];
  const order = [...before.keys()];
  const begins = (place: number): boolean => {
    if (text.charCodeAt(place - 1) !== LINE_FEED) return false;
    for (let i = 0; i < indent; i++) if (text.charCodeAt(place + i) !== SPACE) return false;
    return dashAt(text, place + indent);
  };
  let turn = 0;
  let item = start;
  let line = start;
  while (line < text.length) {
    const same = line === item ? order[turn] : undefined;
    if (same !== undefined && text.slice(item, item + same.length) === same && begins(item + same.length)) {
      items.push(same);
      turn++;
      line = item += same.length;
      continue;
    }
    let first = line;
    while (text.charCodeAt(first) === SPACE) first++;
    const dash = first - line === indent && dashAt(text, first);
    if (dash && line > item) {
      const one = text.slice(item, line);
      if (before.has(one)) turn = order.indexOf(one) + 1;
      items.push(one);
      item = line;
      continue;
    } else if (!dash && first - line <= indent && text.charCodeAt(first) !== LINE_FEED) {
      if (first > line) return undefined;
      break; // the next field
    }
    const end = text.indexOf("\n", first);
    line = end < 0 ? text.length : end + 1;
  }
  items.push(text.slice(item, line));
  return { items, wrap: (one) => KEY + one, rest: text.slice(0, start) + text.slice(line), at };
}

function dashAt(text: string, at: number): boolean {
  const next = text.charCodeAt(at + 1);
  return text.charCodeAt(at) === DASH && (next === SPACE || next === LINE_FEED);
}

/** Cuts JSON that is written as programs write it: read and written again it is the same text, so no key is there twice. */
function cutJson(text: string): Cut | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const plain = text.trimEnd();
    if (![undefined, 2, 4].some((spaces) => JSON.stringify(value, null, spaces) === plain)) return undefined;
    const { pods, ...others } = value as { pods?: unknown };
    if (!Array.isArray(pods)) return undefined;
    return {
      items: pods.map((pod) => JSON.stringify(pod)),
      wrap: (one) => `{"pods":[${one}]}`,
      rest: JSON.stringify(others),
      at: undefined,
    };
  } catch {
    return undefined; // not JSON: as YAML it may be right, or has its problem told
  }
}

function readRest(cut: Cut): PodsFile | undefined {
  if (cut.at !== undefined) {
    if (DOUBTFUL_REST.test(cut.rest)) return undefined;
    const root = parseDocument(cut.rest).contents;
    if (!isMap(root) || root.flow === true) return undefined;
    const pair = root.items.find(({ key }) => isScalar(key) && key.range?.[0] === cut.at);
    const empty = pair !== undefined && (pair.value === null || (isScalar(pair.value) && pair.value.value === null));
    if (!empty || (pair.key as { value?: unknown }).value !== "pods") return undefined;
  }
  return readPods("", cut.rest).pods;
}

/** A slice keeps the text alive that it was cut from. */
function copied(text: string): string {
  return Buffer.from(text).toString();
}

/** Is no name and no address of the `fresh` ones there twice? The others are known to differ. */
function distinct(pods: readonly Pod[], fresh: ReadonlySet<Pod>): boolean {
  if (fresh.size === 0) return true;
  const keys = new Set<string>();
  const addresses = new Set<Ip>();
  let count = 0;
  for (const pod of fresh) {
    keys.add(pod.key);
    for (const address of pod.addresses) addresses.add(address);
    count += pod.addresses.length;
  }
  if (keys.size !== fresh.size || addresses.size !== count) return false;
  return !pods.some((pod) => !fresh.has(pod) && (keys.has(pod.key) || pod.addresses.some((address) => addresses.has(address))));
}

/** Those listed, then those that only pods name. */
function namespacesWith(listed: PodsFile["namespaces"], pods: readonly Pod[]): PodsFile["namespaces"] {
  const all: Record<string, PodsFile["namespaces"][string]> = Object.assign(Object.create(null), listed);
  for (const { namespace } of pods) all[namespace] ??= { "kubernetes.io/metadata.name": namespace };
  return all;
}
