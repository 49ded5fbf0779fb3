import { podsReader, type PodsReader } from "../inputs/files/pods-reader.ts";
import { ManifestFolder, readText } from "../inputs/files/watch.ts";
import { mergeDocuments, readManifests, type ReadResult } from "../policy/read.ts";

export interface InputPlaces {
  /** A folder of manifests, and the pods file. */
  readonly policies: string;
  readonly pods: string;
  readonly clusterNamespace: string | undefined;
}

export interface Inputs {
  readonly policies: ReadResult;
  readonly pods: ReturnType<PodsReader>;
}

/** Gives everything each time it is called; reads and parses what changed since the last time. */
export function inputsReader(options: InputPlaces, folder: ManifestFolder): () => Inputs {
  const parsed = new Map<string, { text: string; result: ReadResult }>();
  const manifests = (file: string, text: string): ReadResult => {
    const old = parsed.get(file);
    if (old?.text === text) return old.result;
    const result = readManifests(file, text, { clusterNamespace: options.clusterNamespace });
    parsed.set(file, { text, result });
    return result;
  };
  const readPodsAgain = podsReader();
  let podsRead: { text: string; result: ReturnType<PodsReader> } | undefined;

  return () => {
    const { files, failed } = folder.read();
    const merged = mergeDocuments(files.map(({ file, text }) => manifests(file, text)));
    if (parsed.size > files.length) {
      const there = new Set(files.map(({ file }) => file));
      for (const file of parsed.keys()) if (!there.has(file)) parsed.delete(file);
    }
    for (const { file, why } of failed)
      merged.problems.push({ file, line: 1, column: 1, path: "", message: `cannot be read: ${why}`, hint: undefined });
    const { text, why } = readText(options.pods);
    if (text === undefined) {
      const problem = {
        file: options.pods,
        line: 1,
        column: 1,
        path: "",
        message: `cannot be read: ${why}`,
        hint: "name a readable file with --pods",
      };
      return { policies: merged, pods: { problems: [problem] } };
    }
    if (podsRead?.text !== text) podsRead = { text, result: readPodsAgain(options.pods, text) };
    return { policies: merged, pods: podsRead.result };
  };
}
