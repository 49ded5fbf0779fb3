import { createRequire } from "node:module";
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv";
import type schemaType from "./schema.json";
import { oneOf, show, suggest } from "./words.ts";
import type { Path } from "./yaml.ts";

export type Kind = "EgressPolicy" | "ClusterEgressPolicy";
export const KINDS: readonly Kind[] = ["EgressPolicy", "ClusterEgressPolicy"];
export const API_VERSION = "namegate.dev/v1alpha1";

/** The one JSON Schema: for this validator, for editors and for the documentation. */
export const policySchema = createRequire(import.meta.url)("./schema.json") as typeof schemaType;

/** Errors put in words; a document has no use for more. */
const ERRORS_MAX = 1000;

/** What the schema has against a document, in words. */
export interface SchemaError {
  readonly path: Path;
  /** Point at the key or at the value? */
  readonly which: "key" | "value";
  readonly message: string;
  readonly hint: string | undefined;
  /** From a condition between fields; the reader usually has a better sentence for the same thing. */
  readonly conditional: boolean;
}

let validators: Record<Kind, ValidateFunction> | undefined;

function compile(): Record<Kind, ValidateFunction> {
  const ajv = new Ajv({ allErrors: true, verbose: true, strictTypes: false, strictRequired: false });
  ajv.addSchema(policySchema, "policy");
  const get = (kind: Kind): ValidateFunction => ajv.getSchema(`policy#/definitions/${kind}`) as ValidateFunction;
  return { EgressPolicy: get("EgressPolicy"), ClusterEgressPolicy: get("ClusterEgressPolicy") };
}

/** Every error of `document` against the schema of `kind`. */
export function schemaErrors(kind: Kind, document: unknown): readonly SchemaError[] {
  validators ??= compile();
  const validate = validators[kind];
  if (validate(document)) return [];
  const errors = (validate.errors ?? []).filter((error) => error.keyword !== "if").slice(0, ERRORS_MAX);
  return errors.map((error) => inWords(error, document, kind));
}

/** RFC 6901, numbers where the document has lists. */
function pointerPath(pointer: string, document: unknown): (string | number)[] {
  const path: (string | number)[] = [];
  let at: unknown = document;
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    const list = Array.isArray(at);
    path.push(list ? Number(key) : key);
    at = (at as Record<string, unknown> | undefined)?.[key];
  }
  return path;
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  object: "an object (`key: value`)",
  array: "a list",
  string: "text",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
};

function typeOf(value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  return typeof value === "string" ? `the text ${show(value)}` : `the ${typeof value} ${show(JSON.stringify(value))}`;
}

function typeHint(wanted: string, value: unknown, path: Path): string | undefined {
  if (value === null && path.at(-2) === "types") return 'write the record type in quotes: "NULL" (without, YAML takes it for nothing)';
  if (value === null) return "give a value, or leave the field out";
  if (path.at(-2) === "ports" && typeof value === "number") return `write { protocol: TCP, port: ${value} }`;
  if (path.at(-2) === "dns" && typeof value === "number") return `add a unit: ${value}s`;
  if (wanted.includes("string") && (typeof value === "number" || typeof value === "boolean")) return `put it in quotes: "${String(value)}"`;
  if (wanted === "integer" && typeof value === "string") {
    if (/^[0-9]{1,5}$/.test(value)) return `remove the quotes: ${Number(value)}`;
    if (path.at(-1) === "port") return "ports outside the cluster have no names; give the number";
  }
  if (wanted === "array" && typeof value === "string") return `write [ ${show(value).slice(1, -1)} ]`;
  if (wanted === "array" && typeof value === "object") return "put `- ` before its first key";
  return undefined;
}

type Words = Pick<SchemaError, "message" | "hint"> & Partial<Pick<SchemaError, "path" | "which">>;

function describe(error: ErrorObject, path: Path, kind: Kind): Words {
  const { params, data } = error;
  const parent = error.parentSchema as { properties?: Record<string, unknown>; description?: string } | undefined;
  switch (error.keyword) {
    case "additionalProperties": {
      const field = String(params["additionalProperty"]);
      return {
        path: [...path, field],
        which: "key",
        message: `unknown field ${show(field)}`,
        hint: fieldHint(field, parent?.properties ?? {}, path, kind),
      };
    }
    case "required": {
      const field = String(params["missingProperty"]);
      const property = parent?.properties?.[field] as { enum?: string[]; const?: string } | undefined;
      const values = property?.enum ?? (property?.const === undefined ? undefined : [property.const]);
      return {
        path,
        which: "key",
        message: `${show(field)} is missing`,
        hint:
          values === undefined
            ? undefined
            : `add ${show(`${field}: ${values[0]}`)}${values.length > 1 ? ` (or ${oneOf(values.slice(1))})` : ""}`,
      };
    }
    case "enum":
    case "const": {
      const values = (error.keyword === "enum" ? params["allowedValues"] : [params["allowedValue"]]) as string[];
      const near = typeof data === "string" ? suggest(data, values) : undefined;
      const message =
        typeof data === "string" ? `${show(data)} is not known here` : `must be ${values.length > 1 ? "one of " : ""}${oneOf(values)}`;
      return { message, hint: near === undefined ? `use ${oneOf(values)}` : `did you mean ${show(near)}?` };
    }
    case "type": {
      const wanted = ([] as string[]).concat(params["type"] as string | string[]);
      return {
        message: `must be ${wanted.map((type) => TYPE_WORDS[type] ?? type).join(" or ")}, not ${typeOf(data)}`,
        hint: typeHint(wanted.join(","), data, path),
      };
    }
    case "minimum":
    case "maximum": {
      const { minimum, maximum } = parent as { minimum?: number; maximum?: number };
      return { message: `${String(data)} is not in ${minimum ?? ""}..${maximum ?? ""}`, hint: undefined };
    }
    case "minItems":
      return { message: "an empty list", hint: "add an entry, or leave the field out" };
    case "maxItems":
      return { message: `more than ${String(params["limit"])} entries`, hint: undefined };
    case "minProperties":
      return { message: "is empty", hint: "add a field, or leave it out" };
    case "minLength":
      return { message: "is empty", hint: undefined };
    case "maxLength":
      return { message: `is longer than ${String(params["limit"])} characters`, hint: undefined };
    case "pattern":
      return { message: `${show(String(data))} is not of the right form`, hint: patternHint(path, parent?.description) };
    case "propertyNames":
      return {
        path: [...path, String(params["propertyName"])],
        which: "key",
        message: `${show(String(params["propertyName"]))} is not a label key`,
        hint: undefined,
      };
    case "oneOf":
    case "not":
    case "dependencies":
    case "false schema":
      return { message: "does not go together with another field", hint: parent?.description };
    default:
      return { message: error.message ?? "is not valid", hint: parent?.description };
  }
}

function fieldHint(field: string, properties: Record<string, unknown>, path: Path, kind: Kind): string {
  const where = path.join(".");
  if (kind === "EgressPolicy" && ["spec.tier", "spec.priority", "spec.subject.namespaceSelector"].includes(`${where}.${field}`)) {
    return "only a ClusterEgressPolicy has it";
  }
  if (kind === "ClusterEgressPolicy" && where === "metadata" && field === "namespace") return "a ClusterEgressPolicy has no namespace";
  const known = Object.keys(properties);
  const near = suggest(field, known);
  return near === undefined ? `known fields: ${known.join(", ")}` : `did you mean ${show(near)}?`;
}

function patternHint(path: Path, description: string | undefined): string | undefined {
  if (path[0] === "metadata") return "lower case letters, digits, `-` and `.`; a letter or digit at both ends";
  if (path.at(-1) === "name" || path.includes("podSelector") || path.includes("namespaceSelector")) {
    return "at most 63 letters, digits, `-`, `_` and `.`; a letter or digit at both ends";
  }
  return description;
}

function inWords(error: ErrorObject, document: unknown, kind: Kind): SchemaError {
  const path = pointerPath(error.instancePath, document);
  const words = describe(error, path, kind);
  const conditional = /\/(then|else|oneOf|dependencies|not)(\/|$)/.test(error.schemaPath) || error.keyword === "false schema";
  return { path, which: "value", conditional, ...words };
}
