declare const brand: unique symbol;

/** A value of type T that only its own door (one parsing function) hands out, so that it cannot be mixed with another T. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };
