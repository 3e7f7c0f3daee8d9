// How a shell touches the engine and the stack: everything that can send or change state runs inside a turn.

export interface Turns {
  /** The process's one clock: never decreases, close to Unix time. */
  nowMs(): number;
  /**
   * Runs `work`, then drains what it produced and re-arms the timer. May be nested (a stream callback inside a handler
   * writes again): an inner turn only runs its work, the outermost drains and re-arms. What `work` throws passes
   * through, after that.
   */
  turn<T>(work: (nowMs: number) => T): T;
}
