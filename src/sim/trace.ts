// What happened, one line an event: the last ones are kept to be shown, all of them go into one hash, so that two runs
// of one seed can be compared.
export class Trace {
  readonly #kept: string[] = [];
  readonly #keptMax: number;
  readonly #startMs: number;
  #low = 0x811c9dc5; // FNV-1a, twice with different primes: for comparing runs, not for secrets
  #high = 0x9e3779b9;
  events = 0;

  constructor(startMs: number, keptMax = 40) {
    this.#startMs = startMs;
    this.#keptMax = keptMax;
  }

  add(nowMs: number, text: string): void {
    const line = `${(nowMs - this.#startMs).toFixed(3).padStart(12)} ${text}`;
    this.count(line);
    this.#kept.push(line);
    if (this.#kept.length > 2 * this.#keptMax) this.#kept.splice(0, this.#keptMax);
  }

  /** Goes into the hash alone. */
  count(line: string): void {
    this.events++;
    for (let i = 0; i < line.length; i++) {
      const code = line.charCodeAt(i);
      this.#low = Math.imul(this.#low ^ code, 0x01000193);
      this.#high = Math.imul(this.#high ^ code, 0x85ebca6b);
      this.#high ^= this.#high >>> 13;
    }
  }

  /** 16 hexadecimal digits over every event so far. */
  hash(): string {
    return [this.#high, this.#low].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  tail(): string[] {
    return this.#kept.slice(-this.#keptMax);
  }
}
