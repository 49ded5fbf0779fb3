// A reporter of node:test: the files in which something failed, a line each.
export default async function* failedFiles(source) {
  const said = new Set();
  for await (const { type, data } of source) {
    if (type !== "test:fail" || data.file === undefined || said.has(data.file)) continue;
    said.add(data.file);
    yield `${data.file}\n`;
  }
}
