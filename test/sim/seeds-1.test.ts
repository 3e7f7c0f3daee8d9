// One part of the simulator's seeds: see held-seeds.ts.
import { testSeeds } from "./held-seeds.ts";

testSeeds(0);
