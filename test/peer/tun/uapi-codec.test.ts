import fc from "fast-check";
import { expect, test } from "vitest";
import { formatPrefix, makeV4, parseAddress, parsePrefix } from "../../../src/base/address.ts";
import { ALLOWED_IPS_MAX, PEERS_MAX } from "../../../src/base/limits.ts";
import { formatDevice, parseUapiRequest, UAPI_ERRNO, type UapiChange } from "../../../src/peer/tun/uapi-codec.ts";

const A = "a1".repeat(32);
const B = "b2".repeat(32);
const ZERO = "00".repeat(32);
const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));

function change(...lines: readonly string[]): UapiChange {
  const request = parseUapiRequest(["set=1", ...lines].join("\n"));
  if (request.operation !== "set") throw new Error(`refused: ${JSON.stringify(request)}`);
  return request.change;
}

test("a set is read whole, in order", () => {
  expect(
    change(
      `private_key=${A.toUpperCase()}`,
      "listen_port=51820",
      "fwmark=51820",
      "replace_peers=true",
      `public_key=${B}`,
      `preshared_key=${A}`,
      "endpoint=[2001:db8::1]:51821",
      "persistent_keepalive_interval=25",
      "allowed_ip=10.9.0.0/24",
      "replace_allowed_ips=true",
      "allowed_ip=10.0.0.7/24",
      "allowed_ip=-fd00::/64",
      "protocol_version=1",
      `public_key=${A}`,
      "remove=true",
      "update_only=true",
      `preshared_key=${ZERO}`,
    ),
  ).toEqual({
    privateKey: bytes(A),
    listenPort: 51820,
    fwMark: 51820,
    replacePeers: true,
    peers: [
      {
        publicKey: bytes(B),
        remove: false,
        updateOnly: false,
        presharedKey: bytes(A),
        endpoint: { address: parseAddress("2001:db8::1"), port: 51821 },
        persistentKeepaliveSeconds: 25,
        replaceAllowedIps: true,
        allowedIps: [
          { prefix: parsePrefix("10.0.0.0/24"), remove: false },
          { prefix: parsePrefix("fd00::/64"), remove: true },
        ],
      },
      {
        publicKey: bytes(A),
        remove: true,
        updateOnly: true,
        presharedKey: "none",
        endpoint: undefined,
        persistentKeepaliveSeconds: undefined,
        replaceAllowedIps: false,
        allowedIps: [],
      },
    ],
  });
});

test("a private key of zeros takes it away; an empty set changes nothing; fwmark 0 is one", () => {
  expect(change(`private_key=${ZERO}`).privateKey).toBe("none");
  const nothing = { privateKey: undefined, listenPort: undefined, fwMark: undefined, replacePeers: false, peers: [] };
  expect(change()).toEqual(nothing);
  expect(change("fwmark=0", "listen_port=0")).toEqual({ ...nothing, fwMark: 0, listenPort: 0 });
});

const PEER = `public_key=${B}`;
test.each([
  ["a key that is none of a device", ["jc=1"], "EINVAL"],
  ["a peer's key before the first peer", ["endpoint=192.0.2.1:1"], "EINVAL"],
  ["a device's key after it", [PEER, "listen_port=1"], "EINVAL"],
  ["an unknown key of a peer", [PEER, "advanced_security=true"], "EINVAL"],
  ["an answer's key", [PEER, "rx_bytes=1"], "EINVAL"],
  ["no =", ["listen_port"], "EPROTO"],
  ["an empty key", ["=1"], "EPROTO"],
  ["a short key", ["private_key=aabb"], "EINVAL"],
  ["a key that is not hexadecimal", [`private_key=${"g".repeat(64)}`], "EINVAL"],
  ["a public key in base64", ["public_key=HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="], "EINVAL"],
  ["a port above 65535", ["listen_port=65536"], "EINVAL"],
  ["a negative port", ["listen_port=-1"], "EINVAL"],
  ["an empty number", ["listen_port="], "EINVAL"],
  ["a mark of more than 32 bits", ["fwmark=4294967296"], "EINVAL"],
  ["a mark in hexadecimal", ["fwmark=0x1"], "EINVAL"],
  ["a mark by name", ["fwmark=off"], "EINVAL"],
  ["a flag that is false", ["replace_peers=false"], "EINVAL"],
  ["a removal that is false", [PEER, "remove=false"], "EINVAL"],
  ["an update that is false", [PEER, "update_only="], "EINVAL"],
  ["a replacement that is false", [PEER, "replace_allowed_ips=1"], "EINVAL"],
  ["an endpoint by name", [PEER, "endpoint=vpn.example.com:51820"], "EINVAL"],
  ["an endpoint without a port", [PEER, "endpoint=192.0.2.1"], "EINVAL"],
  ["an endpoint with port 0", [PEER, "endpoint=192.0.2.1:0"], "EINVAL"],
  ["a keepalive above 65535", [PEER, "persistent_keepalive_interval=65536"], "EINVAL"],
  ["a keepalive by name", [PEER, "persistent_keepalive_interval=off"], "EINVAL"],
  ["an allowed IP without a length", [PEER, "allowed_ip=10.0.0.1"], "EINVAL"],
  ["an allowed IP that is too long", [PEER, "allowed_ip=10.0.0.1/33"], "EINVAL"],
  ["another protocol", [PEER, "protocol_version=2"], "EINVAL"],
] as const)("refused whole: %s", (_what, lines, errno) => {
  const request = parseUapiRequest(["set=1", "fwmark=1", ...lines].join("\n"));
  expect(request).toEqual({ operation: "refused", errno: UAPI_ERRNO[errno] });
});

test.each([
  ["get=1", { operation: "get" }],
  ["get=1\nlisten_port=1", { operation: "refused", errno: UAPI_ERRNO.EINVAL }],
  ["get=2", { operation: "refused", errno: UAPI_ERRNO.EINVAL }],
  ["set=2\nfwmark=1", { operation: "refused", errno: UAPI_ERRNO.EINVAL }],
  ["GET / HTTP/1.1", { operation: "refused", errno: UAPI_ERRNO.EPROTO }],
  ["", { operation: "refused", errno: UAPI_ERRNO.EPROTO }],
])("%j", (text, wanted) => {
  expect(parseUapiRequest(text)).toEqual(wanted);
});

test("as many peers and prefixes as fit, and no more", () => {
  const peers = Array.from({ length: PEERS_MAX }, () => PEER);
  expect(change(...peers).peers).toHaveLength(PEERS_MAX);
  const tooMany = parseUapiRequest(["set=1", ...peers, PEER].join("\n"));
  expect(tooMany).toEqual({ operation: "refused", errno: UAPI_ERRNO.E2BIG });
  const prefixes = Array.from(
    { length: ALLOWED_IPS_MAX },
    (_, at) => `allowed_ip=${formatPrefix({ address: makeV4(at), bits: 128 })}`,
  );
  expect(change(PEER, ...prefixes).peers[0]?.allowedIps).toHaveLength(ALLOWED_IPS_MAX);
  const more = parseUapiRequest(["set=1", PEER, ...prefixes, "allowed_ip=::/0"].join("\n"));
  expect(more).toEqual({ operation: "refused", errno: UAPI_ERRNO.E2BIG });
});

test("a device is shown in the order that wg(8) reads", () => {
  const peer = {
    publicKey: bytes(B),
    presharedKey: bytes(A),
    endpoint: { address: parseAddress("192.0.2.1")!, port: 51821 },
    persistentKeepaliveSeconds: 25,
    allowedIps: [parsePrefix("10.0.0.0/24")!, parsePrefix("::/0")!],
    lastHandshakeMs: 1_700_000_000_123,
    sentBytes: 2 ** 40,
    receivedBytes: 0,
  };
  const device = { privateKey: bytes(A), listenPort: 51820, fwMark: 51820, peers: [peer] };
  const shown = [
    `private_key=${A}`,
    "listen_port=51820",
    "fwmark=51820",
    `public_key=${B}`,
    `preshared_key=${A}`,
    "protocol_version=1",
    "endpoint=192.0.2.1:51821",
    "last_handshake_time_sec=1700000000",
    "last_handshake_time_nsec=123000000",
    "tx_bytes=1099511627776",
    "rx_bytes=0",
    "persistent_keepalive_interval=25",
    "allowed_ip=10.0.0.0/24",
    "allowed_ip=::/0",
    "errno=0",
    "",
    "",
  ];
  expect(formatDevice(device, true).split("\n")).toEqual(shown);
  const open = shown.filter((line) => !/^(?:private|preshared)_key/.test(line));
  expect(formatDevice(device, false).split("\n")).toEqual(open);
  expect(formatDevice({ privateKey: undefined, listenPort: 7, fwMark: 0, peers: [] }, true)).toBe(
    "listen_port=7\nerrno=0\n\n",
  );
});

test("whatever is sent has an answer, and what is shown can be set", () => {
  const word = fc.oneof(
    fc.constantFrom("set=1", "get=1", PEER, "remove=true", "allowed_ip=10.0.0.0/8", "endpoint=[::1]:1", "=", ""),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(word), (lines) => {
      const request = parseUapiRequest(lines.join("\n"));
      expect(["get", "set", "refused"]).toContain(request.operation);
      if (request.operation === "refused") expect(request.errno).toBeGreaterThan(0);
    }),
  );
});
