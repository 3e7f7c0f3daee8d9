// V8 keeps a field in which only integers below 2^31 have been seen as such. The first greater one changes the shape of
// its object under all code that was compiled for it: on the packet path a stall of some ms and all of it compiled
// again, at 2 GB of a peer's traffic or with the first great sequence number.

//
// And a field that is declared without a first value begins as undefined: from then on it may hold anything, and each
// number with a fraction that is stored in it is an object of its own, garbage with the next.

/**
 * For the first value of a number that will not stay that small: adds as 0 does, and is kept as a double. Where
 * somebody looks at it, `+ 0` makes it a plain 0.
 *
 * @example
 * class Tunnel { bytesIn = DOUBLE_ZERO; }
 */
export const DOUBLE_ZERO = -0;
