// One change at a time: a change is committed, then seen in memory, then pushed to peers, before the next one begins.
// So every peer is told of changes in the order in which they became durable.

export class Sequencer {
  #tail: Promise<void> = Promise.resolve();

  /** Runs `work` after everything that was queued before; its failure is its caller's alone. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work);
    this.#tail = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  /** Resolves when all that was queued so far is done. */
  idle(): Promise<void> {
    return this.#tail;
  }
}
