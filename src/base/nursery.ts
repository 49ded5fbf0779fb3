import { setFlagsFromString } from "node:v8";

/**
 * V8's nursery stays small in every thread: it grows to 32 MB while modules are loaded and a first state is read, and what an idle
 * agent has once touched stays resident. (--max-semi-space-size is read before any code runs; this is looked at each time it would
 * grow.) Each new thread sets the factor back to 2 for all of them (V8 11.3, Heap::ConfigureHeap), so it is called again then.
 */
export function smallNursery(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
}

// Imported first, for what it does.
smallNursery();
