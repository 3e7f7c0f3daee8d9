// What the SDK's tests share: a coordinator and a gateway in this process, and joins to them.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { type TokenCreate, tokenCreatedSchema } from "../../src/coordinator/http/schema.ts";
import { type RunningPeer, startPeer } from "../../src/peer/peer.ts";
import { type JoinOptions, join } from "../../src/sdk/join.ts";
import type { Network } from "../../src/sdk/network.ts";
import { TestNetwork } from "../coordinator/network.ts";

const SILENT = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function ignore(): void {
  // What a peer tells of itself is not looked at here.
}

export class Scene {
  readonly network: TestNetwork;
  readonly folder = mkdtempSync(joinPath(tmpdir(), "wb-sdk-"));
  readonly #closers: (() => Promise<void>)[] = [];

  private constructor(network: TestNetwork) {
    this.network = network;
  }

  static async start(policy: object): Promise<Scene> {
    const scene = new Scene(await TestNetwork.start());
    await scene.network.setPolicy(policy);
    return scene;
  }

  /** As `wirebadge token create` prints it. */
  async token(as: string, rest: Partial<TokenCreate> = {}): Promise<string> {
    const request = { as, ...rest } as TokenCreate;
    return (await this.network.admin(tokenCreatedSchema, "POST", "/v1/tokens", request)).token;
  }

  async join(as: string, options: JoinOptions = {}): Promise<Network> {
    const net = await join({ token: await this.token(as), ...options });
    this.#closers.push(() => net.close());
    return net;
  }

  /** A peer as `wirebadge up` makes it: a gateway, unless it offers nothing. */
  async gateway(as: string, offers: { serves?: readonly string[]; routes?: readonly string[] }): Promise<RunningPeer> {
    const peer = await startPeer({
      token: await this.token(as),
      stateDir: joinPath(this.folder, as.replace(":", "-")),
      listenPort: undefined,
      routes: offers.routes ?? [],
      serves: offers.serves ?? [],
      socks: undefined,
      allowRemote: false,
      forwards: [],
      exposes: [],
      tun: undefined,
      shared: false,
      dns: false,
      ipForward: false,
      requireNative: false,
      logger: SILENT,
      onDenial: ignore,
    });
    this.#closers.push(() => peer.stop());
    return peer;
  }

  async end(): Promise<void> {
    for (const close of this.#closers.reverse()) await close();
    await this.network.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
