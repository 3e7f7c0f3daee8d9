// Handshakes and transport data, for each provider: one thread, both ends of a tunnel in it, no sockets.
import { parseEndpoint } from "../src/base/address.ts";
import { PortableCrypto } from "../src/crypto/portable.ts";
import type { Crypto } from "../src/crypto/provider.ts";
import { chooseCrypto } from "../src/io/crypto-choice.ts";
import { Arena } from "../src/io/ffi/arena.ts";
import { osRandom } from "../src/io/os-random.ts";
import { Device } from "../src/wireguard/device.ts";
import { newEphemeral } from "../src/wireguard/handshake.ts";
import type { DeviceSink, Tunnel } from "../src/wireguard/tunnel.ts";
import { type BenchResult, measureRate } from "./result.ts";

const PACKET_BYTES = 1_420;
const MEGABYTE = 1e6;
const NOWHERE = parseEndpoint("192.0.2.1:51820")!;

/** Keeps the last message that was sent. */
class Catch implements DeviceSink<undefined> {
  message = new Uint8Array(0);

  sendDatagram(
    _nowMs: number,
    _tunnel: unknown,
    _to: unknown,
    _kind: unknown,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void {
    this.message = buffer.slice(offset, offset + length);
  }

  sessionStarted(): void {
    // the first message is enough
  }

  handshakeFailed(): void {
    throw new Error("a handshake failed");
  }

  endpointChanged(): void {
    // there is no network
  }
}

function makeEnds(crypto: Crypto): {
  send(nowMs: number): Uint8Array;
  receive(nowMs: number, bytes: Uint8Array): Uint8Array;
} {
  const [a, b] = [newEphemeral(crypto, osRandom), newEphemeral(crypto, osRandom)];
  const [atA, atB] = [new Catch(), new Catch()];
  const options = {
    crypto,
    random: osRandom,
    mtuBytes: PACKET_BYTES,
  };
  const initiator = new Device<undefined>({ ...options, keyPair: a, sink: atA });
  const responder = new Device<undefined>({ ...options, keyPair: b, sink: atB });
  const peer = initiator.addPeer(0, { owner: undefined, publicKey: b.publicKey, endpoint: NOWHERE });
  responder.addPeer(0, { owner: undefined, publicKey: a.publicKey, endpoint: NOWHERE });
  if (typeof peer === "string") throw new Error(peer);
  const tunnel: Tunnel<undefined> = peer;
  return {
    send(nowMs) {
      initiator.startHandshake(nowMs, tunnel);
      return atA.message;
    },
    receive(nowMs, bytes) {
      if (responder.receive(nowMs, NOWHERE, bytes, 0, bytes.length).kind !== "HANDSHAKE") throw new Error("not taken");
      const response = atB.message;
      if (initiator.receive(nowMs, NOWHERE, response, 0, response.length).kind !== "HANDSHAKE")
        throw new Error("refused");
      return response;
    },
  };
}

/** Both ends' work of one handshake: Diffie–Hellman, macs, the session's keys, the confirming keepalive. */
function handshakesPerSecond(crypto: Crypto): number {
  const ends = makeEnds(crypto);
  let nowMs = 1_700_000_000_000;
  return measureRate(() => {
    nowMs += 6_000; // REKEY_TIMEOUT at virtual time
    ends.receive(nowMs, ends.send(nowMs));
  });
}

function sealAndOpen(crypto: Crypto, buffer: Uint8Array): { seal: number; open: number } {
  const aead = crypto.transportAead(new Uint8Array(32).fill(7));
  let counter = 0;
  const seal = measureRate(() => aead.seal(counter++, 0, buffer, 16, PACKET_BYTES));
  aead.seal(0, 0, buffer, 16, PACKET_BYTES);
  const sealed = buffer.slice(16, 16 + PACKET_BYTES + 16);
  const open = measureRate(() => {
    buffer.set(sealed, 16);
    if (!aead.open(0, 0, buffer, 16, PACKET_BYTES + 16)) throw new Error("not opened");
  });
  aead.destroy();
  return { seal: (seal * PACKET_BYTES) / MEGABYTE, open: (open * PACKET_BYTES) / MEGABYTE };
}

/** About eight seconds of CPU time. The native provider is left out where it can't be had. */
export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  const measure = (crypto: Crypto, buffer: Uint8Array): void => {
    const { seal, open } = sealAndOpen(crypto, buffer);
    results.push(
      { name: `handshakes (both ends on one core), ${crypto.name}`, value: handshakesPerSecond(crypto), unit: "1/s" },
      { name: `seal, 1,420-byte packets, ${crypto.name}`, value: seal, unit: "MB/s" },
      { name: `open, 1,420-byte packets, ${crypto.name}`, value: open, unit: "MB/s" },
    );
  };
  measure(new PortableCrypto(), new Uint8Array(PACKET_BYTES + 48));
  const probe = chooseCrypto();
  if (probe.reason === undefined) {
    const arena = new Arena(131_072);
    measure(chooseCrypto({ arena }).crypto, arena.allocate(PACKET_BYTES + 48));
  }
  return results;
}
