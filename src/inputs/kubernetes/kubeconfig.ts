import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Credentials, CredentialSource } from "./credentials.ts";
import { ApiFault, line } from "./faults.ts";
import type { Outcome } from "./types.ts";

/**
 * A kubeconfig is read by @kubernetes/client-node, which knows every way to log in (certificates, tokens, exec plugins,
 * OIDC). It needs 70 MB of memory and a second to load, so it runs in a process of its own that prints what it found and
 * ends; again when the server does not know the credentials any longer.
 */
const READER = fileURLToPath(new URL("./kubeconfig-process.js", import.meta.url));
const READ_TIMEOUT_MS = 30_000; // an exec plugin may have to ask a cloud
const OUTPUT_BYTES_MAX = 1024 * 1024;

/** What the process prints: one of these as JSON. */
export type KubeconfigAnswer = { readonly credentials: Credentials } | { readonly problem: string; readonly fix: string };

export function kubeconfigSource(files: readonly string[], env: Readonly<Record<string, string | undefined>>): CredentialSource {
  const source = files.join(", ");
  const failed = (what: string, fix: string): Outcome<Credentials> => ({
    ok: false,
    fault: new ApiFault("credentials", `${source}: ${line(what)}`, fix),
  });
  const read = (): Promise<Outcome<Credentials>> =>
    new Promise((resolve) => {
      const options = { env: { ...env }, timeout: READ_TIMEOUT_MS, maxBuffer: OUTPUT_BYTES_MAX, killSignal: "SIGKILL" } as const;
      execFile(process.execPath, [READER, ...files], options, (error, stdout, stderr) => {
        const answer = parse(stdout);
        if (answer === undefined) {
          const why = error?.killed === true ? `not read within ${READ_TIMEOUT_MS / 1000} s` : stderr || (error?.message ?? "no answer");
          resolve(failed(why, "does `kubectl get --raw /version` work with this file?"));
        } else if ("problem" in answer) resolve(failed(answer.problem, answer.fix));
        else resolve({ ok: true, value: answer.credentials });
      });
    });
  return { source, freshMs: Number.POSITIVE_INFINITY, read };
}

function parse(text: string): KubeconfigAnswer | undefined {
  try {
    return JSON.parse(text) as KubeconfigAnswer; // our own process wrote it
  } catch {
    return undefined;
  }
}
