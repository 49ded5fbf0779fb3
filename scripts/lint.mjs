// Formatting (biome), type-aware lint (oxlint), dead code (knip). All run, whatever the first ones find.
// Exit codes: 0 nothing found, 1 something found, 2 cannot run.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const CHECKS = [
  { name: "format", argv: ["biome", "format", "--reporter=summary"], fix: "npm run format" },
  { name: "lint", argv: ["oxlint", "--type-aware", "--deny-warnings", "src", "test", "bench", "scripts"], fix: "read each finding" },
  { name: "dead code", argv: ["knip", "--no-progress"], fix: "remove it, or use it" },
];

const bin = join(ROOT, "node_modules", ".bin");
if (!existsSync(join(bin, "oxlint"))) {
  console.error("lint: the tools are not installed\nfix: npm run build");
  process.exit(2);
}
let status = 0;
for (const { name, argv, fix } of CHECKS) {
  const [program, ...args] = argv;
  const { status: code } = spawnSync(join(bin, program), args, { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
  const bad = code !== 0;
  console.log(`lint: ${name}: ${bad ? `found something; fix: ${fix}` : "good"}`);
  if (bad) status = code === null || code === 127 ? 2 : 1;
}
process.exitCode = status;
