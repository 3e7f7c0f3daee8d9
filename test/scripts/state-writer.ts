// For tests that kill it: writes the state in the folder given again and again, and says after each write which one it
// was. It begins above the one that it finds.
import { writeSync } from "node:fs";
import { StateFolder } from "../../src/peer/state.ts";
import type { PeerState } from "../../src/peer/state-schema.ts";

const KEY = `${"B".repeat(42)}A=`;
const folder = StateFolder.open(process.argv[2]!);
let count = Number(folder.read()?.identity?.slice(6) ?? 0);
const state: PeerState = {
  version: 1,
  coordinator: { url: `http://127.0.0.1:7171/${"x".repeat(2_000)}`, key: KEY },
  wireguardKey: KEY,
  signSeed: KEY,
};
for (;;) {
  folder.write({ ...state, identity: `agent:${++count}` });
  writeSync(1, `${count}\n`);
}
