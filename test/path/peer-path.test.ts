import { expect, test } from "vitest";
import { makeV4, parseEndpoint } from "../../src/base/address.ts";
import { PATH_CANDIDATES_MAX, PATH_CONFIRMED_MS } from "../../src/base/limits.ts";
import { PeerPath } from "../../src/path/peer-path.ts";

const lan = parseEndpoint("192.168.1.2:51820")!;
const wan = parseEndpoint("203.0.113.9:40000")!;
const roamed = parseEndpoint("198.51.100.7:1234")!;

test("with nothing confirmed an initiation goes to every candidate, data to the first", () => {
  const path = new PeerPath();
  expect(path.forData()).toBeUndefined();
  expect(path.forInitiation(0)).toEqual([]);
  path.setCandidates([lan, wan, lan]);
  expect(path.forInitiation(0)).toEqual([lan, wan]);
  expect(path.forData()).toEqual(lan);
});

test("a confirmed endpoint is used alone while fresh; after silence every candidate is tried again beside it", () => {
  const path = new PeerPath();
  path.setCandidates([lan, wan]);
  path.confirm(1000, roamed);
  expect(path.forData()).toEqual(roamed);
  expect(path.forInitiation(1000 + PATH_CONFIRMED_MS - 1)).toEqual([roamed]);
  expect(path.forInitiation(1000 + PATH_CONFIRMED_MS)).toEqual([roamed, lan, wan]);
  path.confirm(2000, wan);
  expect(path.forInitiation(2000 + PATH_CONFIRMED_MS)).toEqual([wan, lan]);
});

test("a confirmed endpoint that is no candidate any more is stale at once; one that never was is left alone", () => {
  const path = new PeerPath();
  expect(path.setCandidates([lan, wan])).toBe(false);
  path.confirm(1000, wan);
  expect(path.setCandidates([wan, lan])).toBe(false);
  expect(path.setCandidates([lan, roamed])).toBe(true);
  expect(path.isFresh(1001)).toBe(false);
  expect(path.forInitiation(1001)).toEqual([wan, lan, roamed]);
  expect(path.setCandidates([lan])).toBe(false); // as before: what is confirmed was not among them
  path.confirm(2000, wan);
  expect(path.setCandidates([roamed])).toBe(false);
  expect(path.isFresh(2001)).toBe(true);
});

test("where somebody says that it is, it is at once; if it was confirmed there already, nothing changes", () => {
  const path = new PeerPath();
  path.setCandidates([lan]);
  path.confirm(1000, roamed);
  expect(path.setCandidates([wan], true)).toBe(true);
  expect(path.forData()).toEqual(wan);
  expect(path.forInitiation(1001)).toEqual([wan]);
  path.confirm(2000, wan);
  expect(path.setCandidates([wan], true)).toBe(false);
  expect(path.isFresh(2001)).toBe(true);
  path.confirm(3000, roamed);
  expect(path.setCandidates([lan], false)).toBe(false);
  expect(path.forData()).toEqual(roamed);
});

test("it knows where its datagrams may go: the confirmed endpoint and each candidate", () => {
  const path = new PeerPath();
  path.setCandidates([lan, wan]);
  path.confirm(0, roamed);
  for (const endpoint of [lan, wan, roamed]) expect(path.leadsTo({ ...endpoint })).toBe(true);
  expect(path.leadsTo({ ...roamed, port: roamed.port + 1 })).toBe(false);
});

test("candidates over the limit are left out", () => {
  const path = new PeerPath();
  path.setCandidates(Array.from({ length: PATH_CANDIDATES_MAX + 1 }, (_, i) => ({ address: makeV4(i + 1), port: 1 })));
  expect(path.candidates.length).toBe(PATH_CANDIDATES_MAX);
});
