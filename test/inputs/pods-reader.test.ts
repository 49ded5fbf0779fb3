import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { readPods } from "../../src/inputs/files/pods.ts";
import { podsReader } from "../../src/inputs/files/pods-reader.ts";

const HEAD = 'resolvers: [ "10.96.0.10:53" ]\nnamespaces:\n  shop: { team: a }\n';

function item(i: number, indent = "", extra = ""): string {
  return `${indent}- namespace: ns${i % 7}\n${indent}  name: pod-${i}\n${indent}  interface: veth${i}\n${indent}  labels: { app: a${i} }\n${indent}  addresses: [ 10.1.${i >> 8}.${i & 255} ]\n${extra}`;
}

function file(count: number, indent = ""): string {
  return `${HEAD}pods:\n${Array.from({ length: count }, (_, i) => item(i, indent)).join("")}`;
}

test("what did not change stays the same object, and only that", () => {
  for (const indent of ["", "  "]) {
    const read = podsReader();
    const text = file(20, indent);
    const before = read("p", text).pods?.pods ?? [];
    const changed = text.replace("app: a7 ", "app: other ");
    const after = read("p", changed).pods;
    assert.deepEqual(after, readPods("p", changed).pods);
    assert.deepEqual(
      after?.pods.map((pod, i) => pod === before[i]),
      before.map((_, i) => i !== 7),
    );
    const fewer = changed.replace(item(3, indent), "");
    assert.equal(read("p", fewer).pods?.pods[3], after?.pods[4]);
  }
});

test("JSON as programs write it is read in pieces too", () => {
  const value = {
    resolvers: ["10.96.0.10"],
    pods: [1, 2, 3].map((i) => ({ namespace: "a", name: `p${i}`, interface: `v${i}`, addresses: [`10.0.0.${i}`] })),
    interfacePrefixes: ["cali"],
  };
  for (const spaces of [undefined, 2, 4]) {
    const read = podsReader();
    const before = read("p", JSON.stringify(value, null, spaces));
    const text = `${JSON.stringify({ ...value, pods: [...value.pods.slice(1), { namespace: "b", name: "n", interface: "v" }] }, null, spaces)}\n`;
    const after = read("p", text);
    assert.deepEqual(after, readPods("p", text));
    assert.equal(after.pods?.pods[0], before.pods?.pods[1]);
  }
});

// Each is read after a good file, so that something is remembered that could be used wrongly.
const ODD: readonly string[] = [
  `${file(2)}# a comment\n${item(5)}`,
  `${file(2)}  # a comment\n${item(5)}`,
  `${file(2)}\n\n${item(5)}\n`,
  `${file(2)}${item(1)}`,
  `${file(2)}${item(9).replace("10.1.0.9", "10.1.0.1")}`,
  `${file(2)}${item(9).replace("pod-9", "pod-2").replace("ns2", "ns0")}`,
  `${file(2)} ${item(5)}`,
  `${file(2)}${item(5, "  ")}`,
  `${file(2, "  ")}${item(5)}`,
  `${file(2, "  ")} - name: x\n`,
  `${file(2)}---\n${file(2)}`,
  `${file(2)}...\n`,
  `%YAML 1.1\n---\n${file(2).replace("app: a1", "app: yes")}`,
  `${file(2).replace("labels: { app: a1 }", "labels: &x { app: a1 }")}${item(5).replace("{ app: a5 }", "*x")}`,
  `${file(2)}- *x\n`,
  `${file(2)}-\n  namespace: a\n  name: b\n  interface: c\n`,
  `${file(2)}-\n`,
  `${file(2)}-`,
  `${file(2)}- []\n`,
  `${file(2)}${item(5).replace("veth5", "'a b'")}`,
  `${file(2)}${item(5).replace("pod-5", "|\n    pod\n")}`,
  `${file(2)}${item(5).replace("pod-5", '"pod\n- x"')}`,
  `${file(2)}${item(5).replace("pod-5", "pod\n    more")}`,
  `${file(2)}${item(5).replace("{ app: a5 }", "{ app: a5,\n- b: c }")}`,
  `${file(2)}${item(5).replace("{ app: a5 }", "{ app: 5 }")}`,
  `${file(2)}interfacePrefixes: [ cali ]\n`,
  `${file(2, "  ")}interfacePrefixes: [ cali ]\n`,
  `${file(2)}pods:\n${item(5)}`,
  `${file(2)}Pods: []\n`,
  `${file(2)}: x\n`,
  `${file(2)}plain\n`,
  `${file(2)}"quoted": 1\n`,
  `${file(2)}}\n`,
  `namespaces: { a: { b: "\npods:\n- x\n" } }\n`,
  `namespaces:\n  a:\n    b: |\n      x\n\npods:\n${item(1)}`,
  `{\npods:\n${item(1)}}\n`,
  `{ "pods": [ ], "pods": [ ] }`,
  `{"pods":[{"namespace":"a","name":"b","name":"b","interface":"c"}]}`,
  `{"pods":[{"namespace":"a","name":"b","interface":"c"},{"namespace":"a","name":"b","interface":"c"}]}`,
  `{"pods":[{"namespace":"a","name":"b","interface":"c","labels":{"__proto__":"x"}}],"namespaces":{"__proto__":{"a":"b"}}}`,
  `{"pods":null}`,
  `--- |\npods:\n${item(1)}`,
  `\ufeff${file(2)}`,
  file(2).replaceAll("\n", "\r\n"),
  file(2).replace("  name:", "\tname:"),
  `${file(2)}\t\n`,
  `${file(2)}  \n${item(5)}`,
  `pods:\n\n${item(1)}`,
  `pods:\n# x\n${item(1)}`,
  `pods: # x\n${item(1)}`,
  `"pods":\n${item(1)}`,
  `  pods:\n  ${item(1)}`,
  `x: y\npods:\n${item(1)}`,
  file(1001),
  "",
  "pods:\n",
  "pods:",
];

test("odd files give what the whole parse gives", () => {
  for (const [i, text] of ODD.entries()) {
    const read = podsReader();
    read("p", file(6));
    for (const one of [text, file(3), text]) assert.deepEqual(read("p", one), readPods("p", one), `case ${i}: ${text.slice(0, 400)}`);
  }
});

const PIECES = [
  "\n",
  " ",
  "  ",
  "- ",
  "-",
  "#",
  " # c\n",
  '"',
  "'",
  "{",
  "}",
  "[ ]",
  ":",
  ": ",
  ",",
  "&a ",
  "*a",
  "!",
  "|",
  ">\n",
  "\t",
  "\r",
  "%",
  "---\n",
  "...\n",
  "pods:\n",
  "name",
  "10.1.0.1",
  "é",
  "? ",
  "<<: ",
  "\n\n",
  "- namespace: a\n  name: z\n  interface: v\n",
  "    ",
  "interfacePrefixes: [ a ]\n",
];

test("property: after any edits the same as the whole parse", () => {
  const edit = fc.record({
    at: fc.nat(),
    remove: fc.oneof(fc.constant(0), fc.nat(12), fc.nat(120)),
    line: fc.boolean(),
    put: fc.oneof(
      fc.constantFrom("", ...PIECES),
      fc.nat(12).map((i) => item(i)),
      fc.nat(12).map((i) => item(i, "  ")),
    ),
  });
  let whole = 0;
  fc.assert(
    fc.property(
      fc.nat(6),
      fc.constantFrom("", "  ", " "),
      fc.boolean(),
      fc.array(edit, { minLength: 1, maxLength: 6 }),
      (count, indent, tail, edits) => {
        const read = podsReader();
        const start = file(count, indent) + (tail ? "interfacePrefixes: [ cali ]\n" : "");
        let text = start;
        read("p", text);
        for (const { at, remove, line, put } of edits) {
          let from = at % (text.length + 1);
          if (line) from = text.lastIndexOf("\n", from) + 1;
          text = text.slice(0, from) + put + text.slice(from + remove);
          const expected = readPods("p", text);
          assert.deepEqual(read("p", text), expected, JSON.stringify(text));
          if (expected.pods === undefined) text = start;
          else whole++;
        }
      },
    ),
    { numRuns: 1200 },
  );
  assert.ok(whole > 100, `only ${whole} of the edited files were without problems`);
});
