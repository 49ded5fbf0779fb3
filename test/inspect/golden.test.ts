import { readdirSync } from "node:fs";
import { test } from "node:test";
import { inspectorOf } from "../../src/inspect/registry.ts";
import { readGolden, replayGolden } from "./golden.ts";

for (const file of readdirSync(new URL("../../../test/inspect/golden/", import.meta.url))) {
  const inspector = inspectorOf(file.replace(/\.txt$/, ""));
  for (const one of readGolden(file)) {
    test(`${file}: ${one.name}`, () => replayGolden(one, (first) => inspector.read(first)));
  }
}
