import { readFileSync } from "node:fs";
import { join } from "node:path";
import { replaceFile } from "../base/replace-file.ts";
import type { Policy, PolicyId, Problem } from "../model/policy.ts";
import type { ReadResult } from "../policy/read.ts";
import { STATE_FORMAT } from "./kept.ts";

/** One policy document as `status` shows it; the same object as long as the same policy of the same file is valid. */
export interface PolicyState {
  readonly id: PolicyId;
  readonly file: string;
  /** Is the document as it is now valid? When not, `policy` is the last good one, if there ever was one. */
  readonly valid: boolean;
  readonly problems: readonly Problem[];
  readonly policy: Policy | undefined;
}

interface Good {
  readonly file: string;
  readonly policy: Policy;
}

const STATE_FILE = "policies.json";

/**
 * The policies in force. A document that turns invalid keeps its last good version; a file that cannot be read as YAML
 * any more keeps all of its. They are kept on disk as well, so that a restart in the meantime loses nothing.
 */
export class PolicyKeeper {
  private good = new Map<PolicyId, Good>();
  private readonly folder: string | undefined;
  private saved = "";
  /** What was taken in last. */
  private read: ReadResult | undefined;
  private policies: readonly Policy[] = [];
  private known: ReadonlyMap<PolicyId, PolicyState> = new Map();
  private savedOf: readonly Policy[] | undefined;
  states: readonly PolicyState[] = [];
  /** Problems that belong to no document (a file that is not YAML, a folder that cannot be read). */
  loose: readonly Problem[] = [];

  /** In force, each with the file that it comes from. */
  get inForce(): readonly { readonly file: string; readonly policy: Policy }[] {
    return [...this.good.values()];
  }

  constructor(folder: string | undefined) {
    this.folder = folder;
    if (folder === undefined) return;
    try {
      this.saved = readFileSync(join(folder, STATE_FILE), "utf8");
      const { format, good } = JSON.parse(this.saved) as { readonly format: number; readonly good: Good[] };
      if (format === STATE_FORMAT) this.good = new Map(good.map((one) => [one.policy.id, one]));
    } catch {
      // none yet, not readable, or of another agent's format: the documents decide
    }
  }

  /** Takes in what the documents say now. Returns the policies in force: the same list when they say it again. */
  update(read: ReadResult): readonly Policy[] {
    if (read === this.read) return this.policies;
    const { policies, problems, documents, unread = [] } = read;
    const known = this.known;
    const next = new Map<PolicyId, Good>();
    const states = new Map<PolicyId, PolicyState>();
    const claimed = new Set<Problem>();
    const byId = new Map(policies.map((policy) => [policy.id, policy]));
    const problemsOf = byFile(problems);
    for (const [at, document] of documents.entries()) {
      if (states.has(document.id)) continue;
      const after = documents[at + 1]; // documents of one file follow each other
      const following = after?.file === document.file ? after : undefined;
      const own = problemsOf
        .get(document.file)
        ?.filter(({ line }) => line >= document.line && (following === undefined || line < following.line));
      for (const one of own ?? []) claimed.add(one);
      const policy = byId.get(document.id);
      const kept = policy === undefined ? this.good.get(document.id) : { file: document.file, policy };
      if (kept !== undefined) next.set(document.id, kept);
      const before = known.get(document.id);
      const same = before?.valid === true && before.policy === policy && before.file === document.file;
      states.set(
        document.id,
        same
          ? before
          : {
              id: document.id,
              file: document.file,
              valid: policy !== undefined,
              problems: policy === undefined ? (own ?? []) : [],
              policy: kept?.policy,
            },
      );
    }
    this.loose = problems.filter((one) => !claimed.has(one));
    // A file that can no longer be taken apart may have lost its documents by accident; one that was not read yet has lost none.
    const looseOf = byFile(this.loose);
    const waiting = new Set(unread);
    for (const [id, kept] of this.good) {
      const [whole = ""] = kept.file.split(":", 1);
      const broken = looseOf.get(kept.file) ?? looseOf.get(whole) ?? [];
      if (next.has(id) || (broken.length === 0 && !waiting.has(whole))) continue;
      next.set(id, kept);
      states.set(id, { id, file: kept.file, valid: broken.length === 0, problems: broken, policy: kept.policy });
    }
    this.good = next;
    this.known = states;
    this.states = [...states.values()];
    this.policies = [...next.values()].map(({ policy }) => policy);
    this.read = read;
    return this.policies;
  }

  /** Keeps the policies in force for the next start. Not done by `update`: the kernel comes before the disk. */
  save(): void {
    if (this.policies === this.savedOf) return;
    this.savedOf = this.policies;
    const text = JSON.stringify({ format: STATE_FORMAT, good: [...this.good.values()] });
    if (this.folder === undefined || text === this.saved) return;
    this.saved = text;
    try {
      replaceFile(this.folder, STATE_FILE, text);
    } catch {
      // a read-only or full disk: enforcement does not depend on it
    }
  }
}

function byFile(problems: readonly Problem[]): ReadonlyMap<string, Problem[]> {
  const found = new Map<string, Problem[]>();
  for (const one of problems) {
    const own = found.get(one.file);
    if (own === undefined) found.set(one.file, [one]);
    else own.push(one);
  }
  return found;
}
