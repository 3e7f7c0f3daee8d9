// Handshakes between two devices in memory, before any real one: the first few take ten times as long as the later
// ones (code not yet compiled, OpenSSL's own preparations), and handshakes are rationed by the time they take.
import { makeV4 } from "../base/address.ts";
import type { Random } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import { Device } from "./device.ts";
import type { DeviceSink } from "./tunnel.ts";

const HANDSHAKES = 8;
const PACKET_BYTES = 64;
const MTU_BYTES = 1_280;
const APART_MS = 300_000; // each is a new one

/** Some 20 ms of work; nothing of it is kept. */
export function warmUp(crypto: Crypto, random: Random): void {
  const queue: { readonly to: number; readonly bytes: Uint8Array }[] = [];
  const endpoints = [makeV4(0x7f000001), makeV4(0x7f000002)].map((address) => ({ address, port: 1 }));
  const keys = endpoints.map(() => newKeyPair(crypto, random));
  const devices = keys.map((keyPair, index) => {
    const sink: DeviceSink<number> = {
      sendDatagram: (_nowMs, _tunnel, _to, _kind, buffer, offset, length) =>
        void queue.push({ to: 1 - index, bytes: buffer.slice(offset, offset + length) }),
      sessionStarted: () => undefined,
      handshakeFailed: () => undefined,
      endpointChanged: () => undefined,
    };
    return new Device<number>({ crypto, random, keyPair, sink, mtuBytes: MTU_BYTES });
  });
  const tunnels = devices.map((device, index) =>
    device.addPeer(0, { owner: index, publicKey: keys[1 - index]!.publicKey }),
  );
  const packet = new Uint8Array(PACKET_BYTES + 64);
  for (let nowMs = APART_MS, i = 0; i < HANDSHAKES; i++, nowMs += APART_MS) {
    const tunnel = tunnels[i % 2]!;
    if (typeof tunnel === "string") return; // two keys that are alike, or none: not worth a word
    devices[i % 2]!.send(nowMs, tunnel, packet, 32, PACKET_BYTES);
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      devices[next.to]!.receive(nowMs, endpoints[1 - next.to]!, next.bytes, 0, next.bytes.length);
    }
  }
  for (const device of devices) device.close();
}

function newKeyPair(crypto: Crypto, random: Random): KeyPair {
  const privateKey = new Uint8Array(32);
  random.fill(privateKey);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
}
