// The control channel at both its ends: the input is a script of records and of what a hostile wire, or a hostile end
// with the right keys, makes of their messages. Only the next message of the other end is taken; anything else is a
// named drop, after which the channel is closed for good.
import { concatBytes } from "../../../src/base/bytes.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import { Channel, type ChannelDrop, NOISE_MESSAGE_MAX_BYTES } from "../../../src/control/channel.ts";
import { decodeCoordinatorRecord, decodePeerRecord, encodeJsonRecord } from "../../../src/control/messages.ts";
import { NoiseInitiator, type NoiseKeys, respond } from "../../../src/control/noise-nk.ts";
import { FuzzCrypto } from "../fuzz-crypto.ts";
import { bytesOf, type FuzzTarget, must, same } from "../target.ts";

const crypto = new FuzzCrypto();
const PROLOGUE = bytesOf("prologue");
const PRIVATE = new Uint8Array(32).fill(3);
const STATIC = { privateKey: PRIVATE, publicKey: crypto.publicKey(PRIVATE) };
const RECORD_MAX_BYTES = 140_000; // three messages
const FULL_BYTES = NOISE_MESSAGE_MAX_BYTES - 17;
const SIZES = [0, 1, 17, 300, FULL_BYTES - 1, FULL_BYTES, FULL_BYTES + 1, RECORD_MAX_BYTES, RECORD_MAX_BYTES + 1];

/** A real handshake: what each end made of it. */
function handshake(seed: number): readonly [peer: NoiseKeys, coordinator: NoiseKeys] {
  const initiator = new NoiseInitiator(crypto, new SeededRandom(seed), PROLOGUE, STATIC.publicKey);
  const answer = respond(crypto, new SeededRandom(seed + 1), PROLOGUE, STATIC, initiator.writeMessage1()!);
  if (typeof answer === "string") throw new Error(answer);
  const read = initiator.readMessage2(answer.message2);
  if (typeof read === "string") throw new Error(read);
  return [read.keys, answer.keys];
}

const HANDSHAKES = [handshake(10), handshake(20)];

/** Of one direction: what was sealed, in order, and what has been taken. Closed is the end that receives. */
interface Direction {
  readonly from: Channel;
  readonly to: Channel;
  readonly key: Uint8Array;
  readonly messages: Uint8Array[];
  /** What the messages say, flag first, for the model. */
  readonly plain: Uint8Array[];
  taken: number;
  underWay: Uint8Array[];
  closed: boolean;
  /** Its sender has turned hostile: the honest channel's counter is not the one that counts any more. */
  hostile: boolean;
}

function direction(from: Channel, to: Channel, key: Uint8Array): Direction {
  return { from, to, key: key.slice(), messages: [], plain: [], taken: 0, underWay: [], closed: false, hostile: false };
}

/** What has to become of a message with this plaintext, if it is the next. */
function expected(way: Direction, plain: Uint8Array): ChannelDrop | "more" | Uint8Array {
  const [flag, part] = [plain[0], plain.subarray(1)];
  if (flag === undefined || flag > 1 || (flag === 1 && part.length !== FULL_BYTES)) return "channel-bad-fragment";
  const record = concatBytes(...way.underWay, part);
  if (record.length > RECORD_MAX_BYTES) return "channel-record-too-large";
  way.underWay = flag === 1 ? [...way.underWay, part] : [];
  return flag === 1 ? "more" : record;
}

class Script {
  readonly #bytes: Uint8Array;
  readonly #ways: readonly Direction[];
  readonly #others: readonly Channel[];
  #at = 0;
  #outcome = "nothing";

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    const [[peerKeys, coordinatorKeys], other] = [HANDSHAKES[0]!, HANDSHAKES[1]!];
    const peer = new Channel(crypto, peerKeys, RECORD_MAX_BYTES);
    const coordinator = new Channel(crypto, coordinatorKeys, RECORD_MAX_BYTES);
    must(same(peer.handshakeHash, coordinator.handshakeHash), "two ends of one handshake differ");
    this.#ways = [direction(peer, coordinator, peerKeys.send), direction(coordinator, peer, coordinatorKeys.send)];
    this.#others = other.map((keys) => new Channel(crypto, keys, RECORD_MAX_BYTES));
  }

  #take(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  #record(): Uint8Array {
    const kind = this.#take();
    if (kind % 4 === 0) return encodeJsonRecord({ type: "ping", n: kind });
    const record = new Uint8Array(SIZES[(kind >> 2) % SIZES.length]!);
    for (let i = 0; i < Math.min(record.length, 40); i++) record[i] = kind + i;
    return record;
  }

  #seal(way: Direction): void {
    const record = this.#record();
    if (way.hostile) return;
    const sealed = way.from.seal(record);
    must(way.from.closed === (typeof sealed === "string"), "a closed channel seals");
    if (typeof sealed === "string") return;
    must(sealed.length === Math.max(1, Math.ceil(record.length / FULL_BYTES)), "an odd number of messages");
    for (const message of sealed) {
      must(message.length <= NOISE_MESSAGE_MAX_BYTES, "a message over Noise's limit");
      way.messages.push(message);
      way.plain.push(message.slice(0, -16));
    }
  }

  /** An end with the right key that writes what no honest one does. */
  #forgeInside(way: Direction): void {
    way.hostile = true;
    const plain = new Uint8Array([0, 1, 2, 100][this.#take() % 4]!);
    plain.fill(this.#take(), 0, 1);
    way.messages[way.taken] = crypto.seal(way.key, way.taken, plain, new Uint8Array(0));
    way.plain[way.taken] = plain;
    way.messages.length = way.taken + 1;
    way.plain.length = way.taken + 1;
  }

  #choose(way: Direction, op: number): Uint8Array | undefined {
    const [next, pick] = [way.messages[way.taken], this.#take()];
    switch (op) {
      case 0:
        return way.messages[pick % (way.messages.length + 1)]; // again, or ahead of its turn
      case 1:
        return next?.subarray(0, pick % (next.length + 1));
      case 2:
        return next === undefined ? undefined : concatBytes(next, new Uint8Array(1 + pick));
      case 3: {
        const changed = next?.slice();
        if (changed !== undefined) changed[(pick * 257) % changed.length]! ^= 1 << (pick % 8);
        return changed;
      }
      case 4: // back to who sent it
        return this.#ways.find((other) => other !== way)?.messages[pick % 4];
      case 5: {
        const sealed = this.#others[pick % 2]!.seal(bytesOf("of another handshake"));
        return typeof sealed === "string" ? undefined : sealed[0];
      }
      case 6:
        return new Uint8Array([0, 16, 17, 65_535, 65_536, 70_000][pick % 6]!).fill(pick);
      default:
        this.#forgeInside(way);
        return way.messages[way.taken];
    }
  }

  #deliver(way: Direction, message: Uint8Array): void {
    const next = way.messages[way.taken];
    const isNext = next !== undefined && same(message, next);
    const opened = way.to.open(message.slice());
    if (way.closed) {
      must(opened === "channel-closed", () => `a closed channel said ${String(opened).slice(0, 40)}`);
      return;
    }
    const isOdd = message.length < 17 || message.length > NOISE_MESSAGE_MAX_BYTES;
    const right = isOdd ? "channel-bad-length" : isNext ? expected(way, way.plain[way.taken]!) : "channel-forged";
    if (typeof right === "string") must(opened === right, () => `${String(opened).slice(0, 40)}, should be ${right}`);
    else must(typeof opened !== "string" && same(opened, right), "another record than was sealed");
    if (typeof right === "string" && right !== "more") {
      must(way.to.closed, "a drop that leaves the channel open");
      way.closed = true;
      this.#outcome = right;
      return;
    }
    way.taken++;
    if (typeof opened === "string") return;
    const read = way === this.#ways[0] ? decodePeerRecord(opened) : decodeCoordinatorRecord(opened);
    this.#outcome = typeof read === "string" ? read : "record";
  }

  run(): string {
    while (this.#at < this.#bytes.length) {
      const op = this.#take();
      const way = this.#ways[(op >> 4) % 2]!;
      if (op % 16 < 4) this.#seal(way);
      else {
        const message = op % 16 < 8 ? way.messages[way.taken] : this.#choose(way, (op % 16) - 8);
        if (message !== undefined) this.#deliver(way, message);
      }
    }
    return this.#outcome;
  }
}

export const CHANNEL_TARGETS: readonly FuzzTarget[] = [
  {
    name: "channel",
    share: 8,
    most: 30_000,
    maxBytes: 120,
    seeds: [
      Uint8Array.of(0, 0, 4, 16, 0, 20, 0, 5, 4, 0, 9, 4),
      Uint8Array.of(0, 29, 4, 4, 4, 0, 0, 4), // a record of exactly the limit
      Uint8Array.of(16, 33, 20, 20, 20), // one more
      Uint8Array.of(0, 0, 0, 0, 4, 8, 0), // again
      Uint8Array.of(0, 0, 0, 0, 8, 1, 4), // out of order
      Uint8Array.of(0, 0, 13, 0, 4),
      Uint8Array.of(15, 2, 3, 4),
    ],
    run: (input) => new Script(input).run(),
    reaches: ["record", "record-unknown-kind", "channel-bad-length", "channel-forged", "channel-bad-fragment"].concat([
      "channel-record-too-large",
    ]),
  },
];
