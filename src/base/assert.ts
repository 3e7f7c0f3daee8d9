// Assertions for our own bugs only, on in production too. No input from the network may reach one.

/** Thrown when the program itself is wrong; never for bad input. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** `assert(index < size, "ring index")` */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new AssertionError(`assertion failed: ${what}`);
}

/** For the end of an exhaustive switch: `default: return unreachable(kind)`. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${String(value)}`);
}
