// A peer of the control channel that does as a test says, not as it should: raw frames, records out of order, wrong
// proofs.
import { WebSocket } from "ws";
import { concatBytes, fromBase64, toBase64 } from "../../src/base/bytes.ts";
import { randomBytes } from "../../src/base/random.ts";
import { Channel } from "../../src/control/channel.ts";
import { controlUrl, prologueOf } from "../../src/control/contexts.ts";
import { possessionProof, signHello } from "../../src/control/hello.ts";
import { type CoordinatorRecord, decodeCoordinatorRecord, encodeJsonRecord } from "../../src/control/messages.ts";
import { NoiseInitiator } from "../../src/control/noise-nk.ts";
import type { JoinToken } from "../../src/control/token.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { crypto } from "./network.ts";

export class RawPeer {
  readonly token: JoinToken;
  readonly signSeed = randomBytes(osRandom, 32);
  readonly wireguardKey = randomBytes(osRandom, 32);
  readonly records: CoordinatorRecord[] = [];
  readonly #socket: WebSocket;
  #deaf = false;
  #initiator: NoiseInitiator | undefined;
  #channel: Channel | undefined;
  #closed: { code: number; reason: string } | undefined;
  #wake: (() => void)[] = [];

  constructor(token: JoinToken) {
    this.token = token;
    this.#socket = new WebSocket(controlUrl(token.url), { perMessageDeflate: false });
    this.#socket.binaryType = "nodebuffer";
    this.#socket.on("error", () => undefined);
    this.#socket.on("open", () => this.#notify());
    this.#socket.on("close", (code, reason) => {
      this.#closed = { code, reason: reason.toString() };
      this.#notify();
    });
    this.#socket.on("message", (data: Buffer) => this.#onMessage(data));
  }

  get channel(): Channel {
    return this.#channel!;
  }

  async opened(): Promise<this> {
    await this.#until(() => this.#socket.readyState !== WebSocket.CONNECTING, "it is connected");
    return this;
  }

  /** The handshake, up to the challenge. */
  async shaken(version = 1): Promise<this> {
    await this.opened();
    this.sendRaw(this.message1(version));
    await this.#until(() => this.records.length > 0 || this.#closed !== undefined, "the challenge is here");
    return this;
  }

  message1(version = 1): Uint8Array {
    this.#initiator = new NoiseInitiator(crypto, osRandom, prologueOf(version), this.token.coordinatorKey);
    return concatBytes(Uint8Array.of(version), this.#initiator.writeMessage1()!);
  }

  sendRaw(bytes: Uint8Array | string): void {
    this.#socket.send(bytes);
  }

  sendRecord(record: Uint8Array): void {
    const messages = this.channel.seal(record);
    if (typeof messages === "string") throw new Error(messages);
    for (const message of messages) this.#socket.send(message);
  }

  send(message: object): void {
    this.sendRecord(encodeJsonRecord(message as Parameters<typeof encodeJsonRecord>[0]));
  }

  hello(handshakeHash = this.channel.handshakeHash): object {
    const signature = toBase64(signHello(crypto, this.signSeed, handshakeHash));
    const signKey = toBase64(crypto.signPublicKey(this.signSeed));
    return { type: "hello", version: 1, signKey, signature, software: "raw" };
  }

  /** Its WireGuard key, where an Ed25519 key should be. */
  enrollKey(): string {
    return toBase64(crypto.publicKey(this.wireguardKey));
  }

  /** Sends what somebody else wrote; the answer is nothing that this end can read. */
  replay(message1: Uint8Array): void {
    this.#deaf = true;
    this.#socket.send(message1);
  }

  enroll(changes: object = {}): object {
    const challenge = this.records[0];
    const key = challenge?.kind === "message" && challenge.message.type === "challenge" ? challenge.message.key : "";
    const wireguardKey = crypto.publicKey(this.wireguardKey);
    const proof = possessionProof(crypto, {
      privateKey: this.wireguardKey,
      publicKey: fromBase64(key)!,
      handshakeHash: this.channel.handshakeHash,
      signKey: crypto.signPublicKey(this.signSeed),
      wireguardKey,
    })!;
    return {
      type: "enroll",
      token: this.token.id,
      secret: toBase64(this.token.secret),
      publicKey: toBase64(wireguardKey),
      proof: toBase64(proof),
      offers: { routes: [], serves: [] },
      endpoints: [],
      ...changes,
    };
  }

  /** Through to the welcome, netmap and lease. */
  async admitted(): Promise<this> {
    await this.shaken();
    this.send(this.hello());
    this.send(this.enroll());
    await this.#until(() => this.records.some(({ kind }) => kind === "lease"), "it is admitted");
    return this;
  }

  async closed(): Promise<{ code: number; reason: string }> {
    await this.#until(() => this.#closed !== undefined, "the coordinator closes");
    return this.#closed!;
  }

  /** That many records, or the end. */
  async recorded(count: number): Promise<void> {
    await this.#until(() => this.records.length >= count || this.#closed !== undefined, `${count} records are here`);
  }

  end(): void {
    this.#socket.terminate();
  }

  #onMessage(data: Buffer): void {
    if (this.#deaf) return;
    if (this.#channel === undefined) {
      const answer = this.#initiator!.readMessage2(data);
      if (typeof answer === "string") throw new Error(answer);
      this.#channel = new Channel(crypto, answer.keys, 2 ** 24);
      return;
    }
    const record = this.#channel.open(data);
    if (record === "more") return;
    if (typeof record === "string") throw new Error(record);
    const decoded = decodeCoordinatorRecord(record);
    if (typeof decoded === "string") throw new Error(decoded);
    this.records.push(decoded);
    this.#notify();
  }

  #notify(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!condition()) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Error(`waited in vain until ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(leftMs, 1_000));
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }
}
