import { createHash } from "node:crypto";

/** As `sha256sum` has it, of the text in UTF-8. */
export function digestOf(text: string): string {
  return `sha256:${createHash("sha256").update(text).digest("hex")}`;
}
