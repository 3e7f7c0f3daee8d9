// The operating system's source of chance.
import { randomFillSync } from "node:crypto";
import type { Random } from "../base/random.ts";

export const osRandom: Random = {
  fill(bytes: Uint8Array): void {
    randomFillSync(bytes);
  },
};
