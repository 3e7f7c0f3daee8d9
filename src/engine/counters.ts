// Named counters: one for each way a packet can end. The names are stable: status, tests and SECURITY.md use them.
export class Counters {
  readonly #values = new Map<string, number>();

  add(name: string, count = 1): void {
    this.#values.set(name, (this.#values.get(name) ?? 0) + count);
  }

  get(name: string): number {
    return this.#values.get(name) ?? 0;
  }

  values(): Record<string, number> {
    return Object.fromEntries(this.#values);
  }
}
