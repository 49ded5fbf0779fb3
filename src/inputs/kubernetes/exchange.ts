import { messageOf } from "../../base/fault.ts";
import type { Clock } from "./clock.ts";
import { ApiFault, permissionOf } from "./faults.ts";
import type { ApiRequest, ApiStream, Transport } from "./transport.ts";
import type { Outcome } from "./types.ts";

export interface Limits {
  /** Until the answer begins. */
  readonly headMs: number;
  /** Between two pieces of it. */
  readonly silenceMs: number;
  /** All of it. */
  readonly wholeMs: number;
}

/** One request under these limits; ended by `stop`, by a limit (kind `timeout`) or by `take`. Never rejects, whatever `take` throws. */
export async function exchange(
  transport: Transport,
  clock: Clock,
  request: ApiRequest,
  limits: Limits,
  stop: AbortSignal,
  take: (piece: Buffer) => ApiFault | undefined,
): Promise<ApiFault | undefined> {
  const ending = new AbortController();
  const late = (what: string, ms: number) => (): void => {
    const fix = "is the API server overloaded, or is something on the way dropping packets? It is tried again";
    const { verb, resource } = permissionOf(request.method, request.path);
    ending.abort(new ApiFault("timeout", `${verb} ${resource}: ${what} for ${Math.round(ms / 1000)} s`, fix));
  };
  const stopped = (): void => ending.abort(new ApiFault("closed", "stopped", "start it again"));
  if (stop.aborted) stopped();
  stop.addEventListener("abort", stopped);
  const cancelWhole = clock.after(limits.wholeMs, late("not at its end", limits.wholeMs));
  let cancelSilence = clock.after(limits.headMs, late("no answer", limits.headMs));
  const watchSilence = (): void => {
    cancelSilence();
    cancelSilence = clock.after(limits.silenceMs, late("silence", limits.silenceMs));
  };
  try {
    const opened: Outcome<ApiStream> = await transport.open(request, ending.signal);
    if (!opened.ok) return opened.fault;
    watchSilence();
    return await opened.value.read((piece) => {
      if (stop.aborted) return ending.signal.reason as ApiFault;
      watchSilence();
      try {
        return take(piece);
      } catch (error) {
        return failure(request, error);
      }
    });
  } catch (error) {
    return failure(request, error);
  } finally {
    cancelWhole();
    cancelSilence();
    stop.removeEventListener("abort", stopped);
  }
}

function failure({ method, path }: ApiRequest, error: unknown): ApiFault {
  const { verb, resource } = permissionOf(method, path);
  return new ApiFault("object", `${verb} ${resource}: ${messageOf(error)}`, "this is a mistake in namegate: report it", { cause: error });
}
