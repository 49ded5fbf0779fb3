import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { missing, skip } from "./need.ts";

const ci = process.env.CI;
afterEach(() => {
  if (ci === undefined) delete process.env.CI;
  else process.env.CI = ci;
});

test("what is there is not missing; what is not is named", () => {
  assert.equal(missing({ commands: ["sh"], env: ["PATH"] }), undefined);
  assert.match(missing({ commands: ["sh", "no-such-program"] }) ?? "", /^needs no-such-program /);
  assert.match(missing({ env: ["NO_SUCH_VARIABLE"] }) ?? "", /NO_SUCH_VARIABLE/);
  assert.equal(missing({ root: true }), process.getuid?.() === 0 ? undefined : "needs root");
});

test("outside CI a test is skipped, under CI the missing program is an error; a variable never is", () => {
  delete process.env.CI;
  assert.match(String(skip({ commands: ["no-such-program"] })), /no-such-program/);
  process.env.CI = "true";
  assert.throws(() => skip({ commands: ["no-such-program"] }), /under CI nothing installable may be missing/);
  assert.match(String(skip({ env: ["NO_SUCH_VARIABLE"] })), /NO_SUCH_VARIABLE/);
  assert.equal(skip({ commands: ["sh"] }), false);
});
