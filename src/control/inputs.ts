import { podsReader, type PodsReader } from "../inputs/files/pods-reader.ts";
import { ManifestFolder, type Manifests, ownerOf, readText, type Watched, watchPath } from "../inputs/files/watch.ts";
import { mergeDocuments, readManifests, type ReadResult } from "../policy/read.ts";
import { digestOf } from "./digest.ts";
import type { Inputs, InputSource } from "./source.ts";

export interface InputPlaces {
  /** A folder of manifests, and the pods file. */
  readonly policies: string;
  readonly pods: string;
  readonly clusterNamespace: string | undefined;
}

const DATE_MS_MAX = 8.64e15; // ECMA-262 §21.4.1.1; a file may have any time
const LOOK_TWICE_MS = 50; // a file that is just being written looks broken for a moment

/** Policies of a folder and pods of a file; reads and parses what changed since the last time. */
export function filesSource(options: InputPlaces): InputSource {
  const folder = new ManifestFolder(options.policies);
  const parsed = new Map<string, { text: string; result: ReadResult }>();
  const manifests = (file: string, text: string): ReadResult => {
    const old = parsed.get(file);
    if (old?.text === text) return old.result;
    const result = readManifests(file, text, { clusterNamespace: options.clusterNamespace });
    parsed.set(file, { text, result });
    return result;
  };
  const readPodsAgain = podsReader();
  const watches: Watched[] = [];

  let merged: { readonly of: Manifests; readonly result: ReadResult } | undefined;
  const policies = (): ReadResult => {
    const read = folder.read();
    if (merged?.of === read) return merged.result;
    const { files, failed } = read;
    const result = mergeDocuments(files.map(({ file, text }) => manifests(file, text)));
    if (parsed.size > files.length) {
      const there = new Set(files.map(({ file }) => file));
      for (const file of parsed.keys()) if (!there.has(file)) parsed.delete(file);
    }
    for (const { file, why } of failed)
      result.problems.push({ file, line: 1, column: 1, path: "", message: `cannot be read: ${why}`, hint: undefined });
    merged = { of: read, result };
    return result;
  };

  let podsRead: { readonly text: string | undefined; readonly result: ReturnType<PodsReader> } | undefined;
  let podsTouched = true;
  const pods = (): ReturnType<PodsReader> => {
    // What cannot be used is looked at each time.
    if (podsRead?.result.pods !== undefined && !podsTouched) return podsRead.result;
    podsTouched = false;
    const { text, why } = readText(options.pods);
    if (text === undefined) {
      const hint = "name a readable file with --pods";
      podsRead = {
        text,
        result: { problems: [{ file: options.pods, line: 1, column: 1, path: "", message: `cannot be read: ${why}`, hint }] },
      };
    } else if (podsRead?.text !== text) podsRead = { text, result: readPodsAgain(options.pods, text) };
    return podsRead.result;
  };

  return {
    begin: () => Promise.resolve(),
    read: (): Inputs => ({ kind: "read", policies: policies(), pods: pods(), outside: [] }),
    finish: (snapshot) => snapshot,
    watch: (changed) => {
      const touchPods = (): boolean => (podsTouched = true);
      watches.push(
        watchPath(options.policies, changed, (name) => folder.touched(name)),
        watchPath(options.pods, changed, touchPods),
      );
      // What changed before anybody watched.
      folder.touched(undefined);
      touchPods();
    },
    close: () => {
      for (const watch of watches) watch.close();
    },
    lookTwiceMs: LOOK_TWICE_MS,
    health: () => [],
    applied: () => undefined,
    strange: () => undefined,
    origin: (file) => {
      const text = parsed.get(file)?.text;
      const { uid, mtimeMs } = ownerOf(file);
      return {
        source: file,
        digest: text === undefined ? null : digestOf(text),
        version: null,
        by: uid === undefined ? null : `uid ${uid}`,
        at: mtimeMs === undefined || Math.abs(mtimeMs) > DATE_MS_MAX ? null : new Date(mtimeMs).toISOString(),
      };
    },
    resolverHint: "list one under `resolvers:` in the pods file",
  };
}
