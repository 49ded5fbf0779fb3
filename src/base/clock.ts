/** Milliseconds since the epoch. Time is an argument everywhere but in the wiring. */
export type Clock = () => number;
