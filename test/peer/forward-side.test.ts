// What a gateway whose kernel forwards keeps out of it, packet by packet: the dial rules' table again.
import { expect, test } from "vitest";
import { type Address, addressTo16, formatAddress, isV4, makeV4, parsePrefix } from "../../src/base/address.ts";
import { readU16, writeU16, writeU32 } from "../../src/base/bytes.ts";
import { type ForwardPlan, ForwardSide } from "../../src/peer/forward-side.ts";
import type { OwnInterfaces } from "../../src/peer/real-network.ts";
import { DIAL_AROUND, REFUSED_V4, REFUSED_V6, WRAPPED_V4 } from "./dial-table.ts";
import { address } from "./world.ts";

const OWN_OVERLAY = "fd00:17::6";
const PLAN: ForwardPlan = {
  ownAddresses: [OWN_OVERLAY, "10.99.0.6"].map(address),
  served: ["0.0.0.0/0", "::/0"].map((text) => parsePrefix(text)!),
  overlay: DIAL_AROUND.overlay,
  mtuBytes: 1420,
};
const OWN: OwnInterfaces = { addresses: DIAL_AROUND.ownAddresses, broadcasts: DIAL_AROUND.broadcasts };

/** TCP SYN with an MSS of 1,460 to there. */
function syn(to: Address, change: { nextHeader?: number } = {}): Uint8Array {
  const v4 = isV4(to);
  const headerBytes = v4 ? 20 : 40;
  const bytes = new Uint8Array(headerBytes + 24);
  bytes[0] = v4 ? 0x45 : 0x60;
  if (v4) {
    writeU16(bytes, 2, bytes.length);
    bytes[9] = 6;
    writeU32(bytes, 16, to.w3);
  } else {
    writeU16(bytes, 4, 24);
    bytes[6] = change.nextHeader ?? 6;
    bytes.set(addressTo16(to), 24);
  }
  bytes[headerBytes + 12] = 0x60;
  bytes[headerBytes + 13] = 2;
  bytes.set([2, 4, 1460 >> 8, 1460 & 255], headerBytes + 20);
  return bytes;
}

function sideOf(plan: ForwardPlan | undefined = PLAN, own: () => OwnInterfaces | undefined = () => OWN): ForwardSide {
  const side = new ForwardSide(own);
  side.set(plan);
  return side;
}

const refusal = (side: ForwardSide, to: Address, nowMs = 0): string | undefined => {
  const packet = syn(to);
  return side.refusalOf(nowMs, packet, 0, packet.length);
};

test.each([...REFUSED_V4, ...REFUSED_V6])("%s never reaches the kernel: %s, at every packet", (text, reason) => {
  const side = sideOf();
  expect(refusal(side, address(text))).toBe(reason);
  expect(refusal(side, address(text))).toBe(reason);
});

test.each(WRAPPED_V4)("nor does any of them as %s", (_name, make) => {
  const side = sideOf();
  for (const [text] of REFUSED_V4) {
    const wrapped = make(address(text).w3);
    if (!isV4(wrapped)) expect(refusal(side, wrapped), text).not.toBeUndefined();
  }
  expect(refusal(side, make(address("10.20.0.5").w3))).toBeUndefined();
});

test("own overlay addresses are the host's; what is served is forwarded, and nothing beside it", () => {
  const side = sideOf({ ...PLAN, served: [parsePrefix("10.20.0.0/16")!] });
  for (const own of [OWN_OVERLAY, "10.99.0.6"]) expect(refusal(side, address(own))).toBeUndefined();
  expect(refusal(side, address("10.20.0.5"))).toBeUndefined();
  expect(refusal(side, address("10.21.0.5"))).toBe("not-served");
  expect(refusal(side, address("2001:db8::1"))).toBe("not-served");
  side.set({ ...PLAN, served: [] });
  expect(refusal(side, address("10.20.0.5"))).toBe("not-served");
});

test("a route that is narrower than a refused range opens none of it", () => {
  const side = sideOf({ ...PLAN, served: [parsePrefix("169.254.169.254/32")!, parsePrefix("127.0.0.1/32")!] });
  expect(refusal(side, address("169.254.169.254"))).toBe("METADATA");
  expect(refusal(side, address("127.0.0.1"))).toBe("LOOPBACK");
});

test("an address that this machine gets is its own within a second; while nobody knows, nothing is forwarded", () => {
  let own: OwnInterfaces | undefined = OWN;
  const side = sideOf(PLAN, () => own);
  const to = address("10.20.0.5");
  expect(refusal(side, to, 1_000)).toBeUndefined();
  own = { ...OWN, addresses: [to] };
  expect(refusal(side, to, 1_999)).toBeUndefined();
  expect(refusal(side, to, 2_000)).toBe("OWN_ADDRESS");
  own = undefined;
  expect(refusal(side, to, 3_000)).toBe("own-addresses-unknown");
  expect(refusal(side, address(OWN_OVERLAY), 3_000)).toBeUndefined();
});

test("many destinations at once are each judged by their own address", () => {
  const side = sideOf({ ...PLAN, served: [parsePrefix("10.20.0.0/16")!] });
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 5_000; i++) {
      const to = makeV4(0x0a13ff00 + i * 7);
      const isServed = formatAddress(to).startsWith("10.20.");
      expect(refusal(side, to) === undefined).toBe(isServed);
    }
  }
});

test("a stream is judged once a second", () => {
  let judged = 0;
  const served = Object.assign([...PLAN.served], {
    some() {
      judged++;
      return true;
    },
  });
  const side = sideOf({ ...PLAN, served });
  for (let i = 0; i < 100; i++) expect(refusal(side, address("10.20.0.5"), i)).toBeUndefined();
  expect(judged).toBe(1);
  refusal(side, address("10.20.0.5"), 1_000);
  expect(judged).toBe(2);
});

test("a routing header names destinations that nobody judged", () => {
  const side = sideOf();
  const packet = syn(address("2001:db8::1"), { nextHeader: 43 });
  expect(side.refusalOf(0, packet, 0, packet.length)).toBe("routing-header");
  const behind = syn(address("2001:db8::1"), { nextHeader: 60 });
  behind.set([43, 0], 40); // after eight bytes of options
  expect(side.refusalOf(0, behind, 0, behind.length)).toBe("routing-header");
});

test.each([
  ["10.20.0.5", 1380],
  ["2001:db8::1", 1360],
])("a SYN to %s offers segments that the tunnel takes", (to, mss) => {
  const side = sideOf();
  const packet = syn(address(to));
  expect(side.refusalOf(0, packet, 0, packet.length)).toBeUndefined();
  expect(readU16(packet, packet.length - 2)).toBe(mss);
  const back = syn(address(to));
  side.clamp(back, 0, back.length);
  expect(readU16(back, back.length - 2)).toBe(mss);
});

test("a SYN to this host itself stays as it is; without a plan everything does", () => {
  const side = sideOf();
  const packet = syn(address(OWN_OVERLAY));
  side.refusalOf(0, packet, 0, packet.length);
  expect(readU16(packet, packet.length - 2)).toBe(1460);
  side.set(undefined);
  expect(refusal(side, address("127.0.0.1"))).toBeUndefined();
  side.clamp(packet, 0, packet.length);
  expect(readU16(packet, packet.length - 2)).toBe(1460);
});
