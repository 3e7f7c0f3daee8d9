import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { journalFolder } from "../../../src/peer/tun/host-network.ts";
import { type HostTools, hostFailure, type Place, privilegeHint } from "../../../src/peer/tun/host-tools.ts";
import { undoLeftovers } from "../../../src/peer/tun/undo.ts";
import { claimJournal, readJournals, UndoJournal, type UndoStep } from "../../../src/peer/tun/undo-journal.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "wirebadge-undo-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const PLACE: Place = { bootId: "boot-1", networkNamespace: "net:[1]", pidNamespace: "pid:[1]", pid: 70, start: "700" };
const DEVICE = { name: "wg0", index: 5 };
const RULES: readonly UndoStep[] = [
  { kind: "rule", family: 4, priority: 32765, mark: 51820 },
  { kind: "rule", family: 4, priority: 32764, mark: null },
];
const SYSCTL: UndoStep = { kind: "sysctl", key: "net.ipv4.conf.all.src_valid_mark", former: "0", set: "1" };

interface FakeHost extends HostTools {
  rules: object[];
  sysctl: string;
  readonly done: string[];
  /** pid → start */
  readonly alive: Map<number, string>;
  here: Place;
  deviceIndex: number | undefined;
  undoFails: string;
}

function fakeHost(): FakeHost {
  const host: FakeHost = {
    rules: [
      { priority: 0, table: "255" },
      { priority: 32764, table: "254", suppress_prefixlen: 0 },
      { priority: 32765, not: null, fwmark: "0xca6c", table: "51820" },
      { priority: 32766, table: "254" },
    ],
    sysctl: "1",
    done: [],
    alive: new Map(),
    here: { ...PLACE, pid: 90, start: "900" },
    deviceIndex: undefined,
    undoFails: "",
    has: () => true,
    async run(program, args, input = "") {
      const ended = { code: 0, stdout: "", stderr: "" };
      if (program === "nft") host.done.push(...input.split("\n").filter(Boolean));
      else if (args.includes("-batch")) {
        const lines = input.split("\n").filter(Boolean);
        if (host.undoFails !== "") return { code: 1, stdout: "", stderr: `${host.undoFails}\nCommand failed -:1\n` };
        host.done.push(...lines);
        const gone = new Set(lines.map((line) => Number(/^rule del .* priority (\d+)$/.exec(line)?.[1])));
        host.rules = host.rules.filter((row) => !gone.has((row as { priority: number }).priority));
      } else if (args.includes("rule")) return { ...ended, stdout: JSON.stringify(host.rules) };
      else if (host.deviceIndex === undefined) return { ...ended, code: 1, stderr: 'Device "wg0" does not exist.' };
      else return { ...ended, stdout: JSON.stringify([{ ifindex: host.deviceIndex, flags: [], mtu: 1420 }]) };
      return ended;
    },
    readSysctl: () => host.sysctl,
    writeSysctl(key, value) {
      host.sysctl = value;
      host.done.push(`${key}=${value}`);
    },
    place: () => host.here,
    isOfServices: () => true,
    startOf: (process) => host.alive.get(process),
  };
  return host;
}

const journal = (place: Place = PLACE): UndoJournal => new UndoJournal(folder, place, DEVICE);
const DELETED = [
  "rule del not fwmark 51820 table 51820 priority 32765",
  "rule del table main suppress_prefixlength 0 priority 32764",
];

test("what was written is read again, closed to others, and gone once nothing stands in it", () => {
  const own = journal();
  own.write([...RULES, SYSCTL]);
  const [found] = readJournals(folder);
  expect(found).toMatchObject({
    version: 1,
    place: PLACE,
    device: DEVICE,
    steps: [...RULES, SYSCTL],
    claim: undefined,
  });
  expect(statSync(found!.path).mode & 0o777).toBe(0o600);
  own.write(RULES);
  expect(readJournals(folder)[0]?.steps).toEqual(RULES);
  own.write([]);
  expect(readdirSync(folder)).toEqual([]);
});

test("a killed process's rules are undone, its sysctl after them; then its journal goes", async () => {
  journal().write([...RULES, { kind: "nft", family: 6 }, SYSCTL]);
  const host = fakeHost();
  expect(await undoLeftovers(folder, host)).toEqual({ undone: [{ device: "wg0", pid: 70 }], left: [] });
  expect(host.done).toEqual([
    ...DELETED,
    "add table ip6 wirebadge-wg0",
    "delete table ip6 wirebadge-wg0",
    "net.ipv4.conf.all.src_valid_mark=0",
  ]);
  expect(readdirSync(folder)).toEqual([]);
});

test("rules that look otherwise by now are somebody else's", async () => {
  journal().write(RULES);
  const host = fakeHost();
  host.rules = [
    { priority: 32764, table: "254" },
    { priority: 32765, not: null, fwmark: "0xca6d", table: "51821" },
  ];
  expect((await undoLeftovers(folder, host)).undone).toHaveLength(1);
  expect(host.done).toEqual([]);
});

test("the sysctl stays while another default route by mark needs it, and when somebody changed it since", async () => {
  journal().write([SYSCTL]);
  const host = fakeHost(); // whose rule at 32765 is not in this journal
  await undoLeftovers(folder, host);
  expect(host.done).toEqual([]);
  journal().write([SYSCTL]);
  host.rules = [];
  host.sysctl = "0";
  await undoLeftovers(folder, host);
  expect(host.done).toEqual([]);
});

test("a living process's journal stays; a reused pid is not that process", async () => {
  journal().write(RULES);
  const host = fakeHost();
  host.alive.set(70, "700");
  expect(await undoLeftovers(folder, host)).toEqual({ undone: [], left: [] });
  host.alive.set(70, "701");
  expect((await undoLeftovers(folder, host)).undone).toHaveLength(1);
});

test("from another pid namespace the device tells whether its process lives", async () => {
  journal({ ...PLACE, pidNamespace: "pid:[2]" }).write(RULES);
  const host = fakeHost();
  host.deviceIndex = 5;
  expect((await undoLeftovers(folder, host)).undone).toEqual([]);
  host.deviceIndex = 6;
  expect((await undoLeftovers(folder, host)).undone).toHaveLength(1);
});

test("another network namespace's journal stays, an earlier boot's is forgotten", async () => {
  journal({ ...PLACE, networkNamespace: "net:[2]" }).write(RULES);
  journal({ ...PLACE, bootId: "boot-0", pid: 71 }).write(RULES);
  const host = fakeHost();
  expect(await undoLeftovers(folder, host)).toEqual({ undone: [], left: [] });
  expect(host.done).toEqual([]);
  expect(readJournals(folder).map(({ place }) => place.networkNamespace)).toEqual(["net:[2]"]);
});

test("what can't be undone is said, and the next start tries it again", async () => {
  journal().write(RULES);
  const host = fakeHost();
  host.undoFails = "RTNETLINK answers: Operation not permitted";
  const why = "RTNETLINK answers: Operation not permitted";
  expect(await undoLeftovers(folder, host)).toEqual({ undone: [], left: [{ device: "wg0", pid: 70, why }] });
  host.undoFails = "";
  expect((await undoLeftovers(folder, host)).undone).toHaveLength(1);
  expect(readdirSync(folder)).toEqual([]);
});

test("one that another start is undoing is left to it, unless that was killed too", async () => {
  journal().write(RULES);
  const host = fakeHost();
  const [found] = readJournals(folder);
  expect(claimJournal(found!, { ...PLACE, pid: 91, start: "910" })).toMatch(/\.91-910$/);
  expect(claimJournal(found!, host.here)).toBeUndefined();
  host.alive.set(91, "910");
  expect(await undoLeftovers(folder, host)).toEqual({ undone: [], left: [] });
  host.alive.delete(91);
  expect((await undoLeftovers(folder, host)).undone).toHaveLength(1);
  expect(readdirSync(folder)).toEqual([]);
});

test("a device that is still the same gets its routes and addresses back, newest first; another does not", async () => {
  const steps: readonly UndoStep[] = [
    { kind: "link", up: false, mtuBytes: 1500, addressMode: "eui64" },
    { kind: "address", address: "10.0.0.2/24" },
    { kind: "route", prefix: "10.7.0.0/16", table: null },
    { kind: "route", prefix: "0.0.0.0/0", table: 51820 },
  ];
  const host = fakeHost();
  journal().write(steps);
  host.deviceIndex = 6;
  await undoLeftovers(folder, host);
  expect(host.done).toEqual([]);
  journal().write(steps);
  host.deviceIndex = 5;
  await undoLeftovers(folder, host);
  expect(host.done).toEqual([
    "route del 0.0.0.0/0 dev wg0 table 51820",
    "route del 10.7.0.0/16 dev wg0",
    "addr del 10.0.0.2/24 dev wg0",
    "link set dev wg0 mtu 1500 down",
    "link set dev wg0 addrgenmode eui64",
  ]);
});

test.each([
  ["not JSON", "{"],
  ["a device's name that is none", (text: string) => text.replace('"wg0"', '"wg0 table 7"')],
  ["a sysctl that is not ours", (text: string) => text.replace("src_valid_mark", "rp_filter")],
  ["a value that is no number", (text: string) => text.replace('"former":"0"', '"former":"0\\n1"')],
  ["a step of no known kind", (text: string) => text.replace('"kind":"rule"', '"kind":"run"')],
])("a journal with %s is refused by its name, and nothing is done", async (_what, change) => {
  journal().write([...RULES, SYSCTL]);
  const path = join(folder, readdirSync(folder)[0]!);
  const text = readFileSync(path, "utf8");
  const changed = typeof change === "string" ? change : change(text);
  expect(changed).not.toBe(text);
  writeFileSync(path, changed);
  const host = fakeHost();
  await expect(undoLeftovers(folder, host)).rejects.toMatchObject({ code: "STATE_UNREADABLE" });
  expect(host.done).toEqual([]);
});

test("a folder or a journal that others may write to is not believed", async () => {
  journal().write(RULES);
  const path = join(folder, readdirSync(folder)[0]!);
  chmodSync(path, 0o620);
  await expect(undoLeftovers(folder, fakeHost())).rejects.toMatchObject({ code: "STATE_UNREADABLE" });
  chmodSync(path, 0o600);
  chmodSync(folder, 0o722);
  await expect(undoLeftovers(folder, fakeHost())).rejects.toMatchObject({ code: "STATE_UNREADABLE" });
  expect(() => journal()).toThrow("may be written to by others");
  chmodSync(folder, 0o700);
  const link = `${folder}-link`;
  symlinkSync(folder, link);
  await expect(undoLeftovers(link, fakeHost())).rejects.toMatchObject({ code: "STATE_UNREADABLE" });
  rmSync(link);
});

test("no folder, or none of our files in it: nothing to do", async () => {
  expect(await undoLeftovers(join(folder, "none"), fakeHost())).toEqual({ undone: [], left: [] });
  writeFileSync(join(folder, "tun-wg0-70-700.json.new"), "{");
  writeFileSync(join(folder, "notes.txt"), "");
  expect(await undoLeftovers(folder, fakeHost())).toEqual({ undone: [], left: [] });
});

test("root's journals are under /run, a user's in its runtime folder", () => {
  expect(journalFolder({}, 0)).toBe("/run/wirebadge");
  expect(journalFolder({ XDG_RUNTIME_DIR: "/run/user/7" }, 7)).toBe("/run/user/7/wirebadge");
  expect(() => journalFolder({}, 7)).toThrow("no folder");
});

const NET_ADMIN = "0000000000001000";
const NONE = "0000000000000000";
test.each([
  [NONE, NONE, 0, "--cap-add NET_ADMIN"],
  [NET_ADMIN, NONE, 7, "AmbientCapabilities"],
  [NONE, NONE, 7, "run it as root"],
  [NET_ADMIN, NET_ADMIN, 7, "run it as root"],
])("with CapEff %s, CapAmb %s as user %i the advice is %s", (effective, ambient, uid, advice) => {
  expect(privilegeHint(`Name:\tnode\nCapEff:\t${effective}\nCapAmb:\t${ambient}\n`, uid)).toContain(advice);
});

test.each([
  ["RTNETLINK answers: Operation not permitted\nCommand failed -:1\n", "FORBIDDEN", "x: Operation not permitted"],
  ["RTNETLINK answers: File exists\n", "CONFLICT", "x: File exists"],
  ["Error: ipv4: Address already assigned.\n", "CONFLICT", "x: ipv4: Address already assigned."],
  ["RTNETLINK answers: Permission denied\n", "CONFLICT", "x: Permission denied"],
  ['Cannot find device "wg0"\n', "CONFLICT", 'x: Cannot find device "wg0"'],
  ["ip: unrecognized option: j\nBusyBox v1.36\n", "NATIVE_UNAVAILABLE", "x: unrecognized option: j"],
  ["", "INTERNAL", "x: it failed without a word"],
])("what `ip` says is an error with a way out: %j", (said, code, message) => {
  expect(hostFailure("x", said)).toMatchObject({ code, message, hint: expect.any(String) });
});
