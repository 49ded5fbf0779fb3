import { setFlagsFromString } from "node:v8";

// Imported first, for what it does: V8's nursery stays small in every thread. It grows to 32 MB while modules are loaded
// and a first state is read, and what an idle agent has once touched stays resident. (--max-semi-space-size is read before
// any code runs; this is looked at each time it would grow.)
setFlagsFromString("--semi-space-growth-factor=1");
