// Runs in a namespace of its own (see world.ts): the cases of one group, side by side unless they say otherwise.
// Prints one line of JSON: case → what came out, or the error.
import { attacks } from "./attacks.ts";
import { closings } from "./closings.ts";
import { fragments } from "./fragments.ts";
import { narrow } from "./narrow.ts";
import { windows } from "./windows.ts";
import { World, type WorldSpec } from "./world.ts";

export type Case = (world: World) => Promise<unknown>;
export type Group = keyof typeof GROUPS;

const GROUPS = { windows, closings, attacks, fragments, narrow } as const;

export interface EdgesSpec extends WorldSpec {
  readonly group: Group;
}

export interface EdgesOutcome {
  readonly out: Readonly<Record<string, unknown>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly frames: number;
}

const spec = JSON.parse(process.argv[2] ?? "") as EdgesSpec;
const world = new World(spec);
const out: Record<string, unknown> = {};
const run = async (name: string, work: Case): Promise<void> => {
  out[name] = await work(world).catch((error: unknown) => `failed: ${String(error)}`);
};
const { together = {}, inOrder = {} } = GROUPS[spec.group] as {
  together?: Record<string, Case>;
  inOrder?: Record<string, Case>;
};
await Promise.all(Object.entries(together).map(([name, work]) => run(name, work)));
for (const [name, work] of Object.entries(inOrder)) await run(name, work);
const counters = { ...world.stack.counters };
world.stop();
const outcome: EdgesOutcome = { out, counters, frames: world.frames };
console.log(JSON.stringify(outcome));
process.exit(0);
