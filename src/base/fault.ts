/** An error for a person: what failed, why, and what to do about it. The last line (the fix) is read first. */
export class Fault extends Error {
  readonly code: string;
  readonly fix: string;

  constructor(code: string, what: string, fix: string, cause?: unknown) {
    super(what, cause === undefined ? undefined : { cause });
    this.name = "Fault";
    this.code = code;
    this.fix = fix;
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
