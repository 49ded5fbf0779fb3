import { join } from "node:path";
import type { AlertSettings, SinkSettings, TargetSettings } from "../model/alerts.ts";
import type { Event, EventDraft, Notice } from "../model/event.ts";
import { Delivery, type DeliveryStatus, RETRY_LIMITS, type RetryLimits } from "./delivery.ts";
import { passes } from "./filter.ts";
import { Folder } from "./fold.ts";
import { bound, type BoundedEvent } from "./formats/bound.ts";
import { type Format, formatOf, type Origin } from "./formats/format.ts";
import { syslogMessage } from "./formats/syslog.ts";
import { severityOf } from "./severity.ts";
import { Elastic } from "./sinks/elastic.ts";
import { Otlp } from "./sinks/otlp.ts";
import { RotatedFile } from "./sinks/rotated-file.ts";
import type { Outgoing, Sink } from "./sinks/sink.ts";
import { Splunk } from "./sinks/splunk.ts";
import { SyslogStream } from "./sinks/syslog-stream.ts";
import { SyslogUdp } from "./sinks/syslog-udp.ts";
import { Webhook } from "./sinks/webhook.ts";
import { Spool, type SpoolItem, type SpoolStatus } from "./spool.ts";

/** Between two events about losses. */
const SAY_MS = 10_000;
const DEAD_LETTER_BYTES = 1024 * 1024;
/** How long a stopping agent waits for collectors that answer. */
const CLOSE_MS = 1000;
const CLOSE_LOOK_MS = 20;

export interface PipelineDeps {
  /** Spools are in `alerts/NAME` below it. */
  readonly state: string;
  readonly origin: Origin;
  readonly pid: number;
  /** An event about the alerts themselves; comes back through push(). */
  readonly say: (draft: EventDraft) => void;
  /** The default sink. */
  readonly stdout: (line: string) => void;
  readonly nowMs: () => number;
  readonly random: () => number;
  /** The rule that would allow what was denied; asked for what is sent, not for what is folded. */
  readonly suggest?: (event: Event) => string | undefined;
  readonly limits?: RetryLimits;
}

export interface SinkStatus {
  readonly name: string;
  readonly kind: TargetSettings["kind"];
  readonly breaker: DeliveryStatus["breaker"] | null;
  readonly sent: number;
  readonly failures: number;
  readonly deadLetters: number;
  /** Given up, whatever the severity. */
  readonly lost: number;
  readonly spool: SpoolStatus | null;
  readonly failure: string | null;
}

export interface AlertStatus {
  readonly folded: number;
  readonly limited: number;
  readonly sinks: readonly SinkStatus[];
}

/** One way for events: what its filter lets through, in its format. */
interface Route {
  readonly settings: SinkSettings;
  give(event: BoundedEvent, json: () => string): void;
  flush(): void;
  sync(): void;
  status(): SinkStatus;
  readonly idle: boolean;
  close(): Promise<void>;
}

/**
 * Events → folded → each sink: filtered, kept in its spool (in JSON), delivered in its format. push() does no more than writes into the
 * page cache: one a sink for all events of a turn of the event loop. No collector is ever waited for.
 */
export class Pipeline {
  private readonly folder: Folder;
  private readonly routes: readonly Route[];
  private readonly deps: PipelineDeps;
  private flushing = false;
  private saidMs = Number.NEGATIVE_INFINITY;
  private readonly said = new Map<string, { lost: number; dead: number }>();
  private readonly timer: NodeJS.Timeout;

  /** Throws where a spool's folder cannot be made. */
  constructor(settings: AlertSettings, deps: PipelineDeps) {
    this.deps = deps;
    this.routes = settings.sinks.map((sink) => routeOf(sink, deps));
    this.folder = new Folder(settings.fold, { out: (event) => this.out(event), say: deps.say });
    this.timer = setInterval(() => this.tick(), 1000);
    this.timer.unref();
  }

  push(event: Event): void {
    this.folder.push(event, this.deps.nowMs());
  }

  private out(said: Event): void {
    const suggestion = said.verdict === "deny" || said.verdict === "would-deny" ? this.deps.suggest?.(said) : undefined;
    const event = suggestion === undefined ? said : { ...said, suggestion };
    const bounded = bound(event);
    const severity = severityOf(event);
    let text: string | undefined;
    const json = (): string => (text ??= JSON.stringify(bounded));
    for (const route of this.routes) if (passes(route.settings.filter, bounded, severity)) route.give(bounded, json);
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      for (const route of this.routes) route.flush();
    });
  }

  private tick(): void {
    const now = this.deps.nowMs();
    this.folder.tick(now);
    for (const route of this.routes) route.sync();
    if (now - this.saidMs < SAY_MS) return;
    for (const route of this.routes) {
      const { name, lost, deadLetters, spool } = route.status();
      const before = this.said.get(name) ?? { lost: 0, dead: 0 };
      this.said.set(name, { lost, dead: deadLetters });
      const say = (why: Notice, count: number, message: string): void => {
        this.saidMs = now;
        this.deps.say({ type: "limit", verdict: "info", why, count, message });
      };
      if (lost > before.lost) {
        const which =
          spool === null
            ? ""
            : ` (in all: ${Object.entries(spool.lost)
                .map(([severity, count]) => `${severity} ${count}`)
                .join(", ")})`;
        say("alerts-lost", lost - before.lost, `sink ${name}: ${lost - before.lost} events were given up${which}`);
      }
      if (deadLetters > before.dead)
        say(
          "alerts-refused",
          deadLetters - before.dead,
          `sink ${name}: ${deadLetters - before.dead} events were refused for good: see its dead letters`,
        );
    }
  }

  status(): AlertStatus {
    return { folded: this.folder.folded, limited: this.folder.limited, sinks: this.routes.map((route) => route.status()) };
  }

  /** Sends what is folded, and gives collectors that answer a moment; the rest stays in the spools. */
  async close(): Promise<void> {
    clearInterval(this.timer);
    this.folder.flush(this.deps.nowMs());
    for (const route of this.routes) route.flush();
    for (let waited = 0; waited < CLOSE_MS && this.routes.some(({ idle }) => !idle); waited += CLOSE_LOOK_MS)
      await new Promise((resolve) => setTimeout(resolve, CLOSE_LOOK_MS));
    await Promise.all(this.routes.map((route) => route.close()));
  }
}

function routeOf(settings: SinkSettings, deps: PipelineDeps): Route {
  const format = formatOf(settings.format, deps.origin, settings.ocsfVersion);
  const { target } = settings;
  switch (target.kind) {
    case "stdout": {
      let sent = 0;
      return {
        settings,
        give: (event) => {
          sent++;
          deps.stdout(format(event));
        },
        flush: () => undefined,
        sync: () => undefined,
        status: () => direct(settings, sent, 0, undefined),
        idle: true,
        close: async () => undefined,
      };
    }
    case "file": {
      const file = new RotatedFile(target.path, target.maxBytes, target.keep);
      let lines: string[] = [];
      return {
        settings,
        give: (event) => void lines.push(format(event)),
        flush: () => {
          file.write(lines);
          lines = [];
        },
        sync: () => undefined,
        status: () => direct(settings, file.written, file.lost, file.failure),
        idle: true,
        close: async () => file.close(),
      };
    }
    case "syslog":
    case "splunk":
    case "elastic":
    case "otlp":
    case "webhook":
      return spooled(settings, sinkOf(settings, target, deps), format, deps);
    default:
      return target satisfies never;
  }
}

function direct({ name, target }: SinkSettings, sent: number, lost: number, failure: string | undefined): SinkStatus {
  return { name, kind: target.kind, breaker: null, sent, failures: 0, deadLetters: 0, lost, spool: null, failure: failure ?? null };
}

function sinkOf(settings: SinkSettings, target: Exclude<TargetSettings, { kind: "stdout" | "file" }>, deps: PipelineDeps): Sink {
  const { origin, nowMs } = deps;
  const json = settings.format === "json" || settings.format === "ocsf" || settings.format === "ecs";
  const common = { host: origin.host, json, nowMs };
  switch (target.kind) {
    case "syslog": {
      const render = ({ event, text }: Outgoing): string => syslogMessage(event, origin.host, deps.pid, target.facility, text);
      return target.transport === "udp" ? new SyslogUdp(target.host, target.port, render) : new SyslogStream(target, render);
    }
    case "splunk":
      return new Splunk(target, common);
    case "elastic":
      return new Elastic(target, common);
    case "otlp":
      return new Otlp(target, { ...origin, nowMs });
    case "webhook":
      return new Webhook(target, common);
    default:
      return target satisfies never;
  }
}

function spooled(settings: SinkSettings, sink: Sink, format: Format, deps: PipelineDeps): Route {
  const folder = join(deps.state, "alerts", settings.name);
  const spool = new Spool(folder, settings.spoolBytes);
  const deadLetters = new RotatedFile(join(folder, "dead-letters.jsonl"), DEAD_LETTER_BYTES, 1);
  const render = ({ payload, severity }: SpoolItem): Outgoing | undefined => {
    try {
      const event = bound(JSON.parse(payload) as Event);
      return { event, severity, text: format(event) };
    } catch {
      return undefined;
    }
  };
  const { nowMs, random, limits = RETRY_LIMITS } = deps;
  const delivery = new Delivery({ spool, sink, batch: settings.batch, deadLetters, render, nowMs, random, limits });
  return {
    settings,
    give: (event, json) => spool.add(severityOf(event), json()),
    flush: () => {
      spool.flush();
      delivery.wake();
    },
    sync: () => spool.sync(),
    status: () => {
      const { breaker, sent, failures, deadLetters: dead, failure } = delivery.status();
      const state = spool.status();
      const lost = Object.values(state.lost).reduce((a, b) => a + b, 0);
      const why = failure ?? state.failure ?? null;
      return {
        name: settings.name,
        kind: settings.target.kind,
        breaker,
        sent,
        failures,
        deadLetters: dead,
        lost,
        spool: state,
        failure: why,
      };
    },
    get idle() {
      return spool.empty || delivery.status().failure !== undefined;
    },
    close: async () => {
      await delivery.stop();
      spool.close();
      deadLetters.close();
    },
  };
}
