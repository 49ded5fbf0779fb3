import { readFileSync, statSync } from "node:fs";
import { messageOf } from "../../base/fault.ts";
import type { TlsSettings } from "../../model/alerts.ts";

/** Keys, tokens and certificates; a bundle of authorities has some hundred kilobytes. */
const FILE_BYTES_MAX = 1024 * 1024;

export type FileText = { readonly text: string } | { readonly why: string };

/** A file that is read again when it is another one, as a Kubernetes Secret is when it changes. */
export class WatchedFile {
  readonly path: string;
  private known = "";
  private text = "";

  constructor(path: string) {
    this.path = path;
  }

  /** Its text. A stat() each time; never throws. */
  read(): FileText {
    try {
      const { ino, mtimeMs, size } = statSync(this.path);
      const now = `${ino} ${mtimeMs} ${size}`;
      if (size > FILE_BYTES_MAX) return { why: `${this.path} has more than ${FILE_BYTES_MAX} bytes` };
      if (now !== this.known) {
        this.text = readFileSync(this.path, "utf8");
        this.known = now;
      }
      return { text: this.text };
    } catch (error) {
      return { why: `${this.path} cannot be read: ${messageOf(error)}` };
    }
  }
}

/** A secret of one line: a token or a key, without the line break that editors add. */
export class SecretFile {
  private readonly file: WatchedFile;

  constructor(path: string) {
    this.file = new WatchedFile(path);
  }

  read(): FileText {
    const found = this.file.read();
    if ("why" in found) return found;
    const text = found.text.trim();
    // It goes into a header.
    return /^[\x20-\x7e]{1,16384}$/.test(text)
      ? { text }
      : { why: `${this.file.path} is empty, too long, or not printable ASCII on one line` };
  }
}

export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  readonly minVersion: "TLSv1.2";
}

/** The PEM files of a sink, always as they are now. */
export class TlsFiles {
  private readonly files: readonly (readonly ["ca" | "cert" | "key", WatchedFile])[];
  private readonly serverName: string | undefined;

  constructor({ caFile, certFile, keyFile, serverName }: TlsSettings) {
    this.serverName = serverName;
    const of = { ca: caFile, cert: certFile, key: keyFile };
    this.files = (["ca", "cert", "key"] as const).flatMap((what) => {
      const path = of[what];
      return path === undefined ? [] : [[what, new WatchedFile(path)] as const];
    });
  }

  read(): { readonly material: TlsMaterial } | { readonly why: string } {
    const found: Partial<Record<"ca" | "cert" | "key", string>> = {};
    for (const [what, file] of this.files) {
      const one = file.read();
      if ("why" in one) return one;
      found[what] = one.text;
    }
    return { material: { ...found, ...(this.serverName !== undefined && { servername: this.serverName }), minVersion: "TLSv1.2" } };
  }
}
