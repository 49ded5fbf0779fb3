import type { FormatName, OcsfVersion } from "../../model/alerts.ts";
import type { BoundedEvent } from "./bound.ts";
import { cef } from "./cef.ts";
import { ecs } from "./ecs.ts";
import { leef } from "./leef.ts";
import { ocsf } from "./ocsf.ts";

/** What a line says of the node beside the event. */
export interface Origin {
  /** The node's name. */
  readonly host: string;
  /** Of namegate. */
  readonly version: string;
  readonly cluster: string | undefined;
}

/** Event → one line without a line break; pure. */
export type Format = (event: BoundedEvent) => string;

export function formatOf(name: FormatName, origin: Origin, ocsfVersion: OcsfVersion): Format {
  switch (name) {
    case "json":
      return JSON.stringify;
    case "ocsf":
      return (event) => JSON.stringify(ocsf(event, origin, ocsfVersion));
    case "ecs":
      return (event) => JSON.stringify(ecs(event, origin));
    case "cef":
      return (event) => cef(event, origin);
    case "leef":
      return (event) => leef(event, origin);
    default:
      return name satisfies never;
  }
}
