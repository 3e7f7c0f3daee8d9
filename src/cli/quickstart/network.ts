// The quickstart's network: which processes there are and how they are started, each through the CLI that users run.
import { join } from "node:path";
import type { SocksEntry } from "../socks-client.ts";
import { parseSocksEntry } from "../socks-client.ts";
import type { Places, Role } from "./places.ts";
import { type Child, type Processes, sibling, WIREBADGE } from "./processes.ts";

const READY_WITHIN_MS = 30_000;

/** What a test turns over to see the check fail at one step. */
export const FLIPS = ["grant-removed", "production-granted", "revoke-noop", "staging-down"] as const;
export type Flip = (typeof FLIPS)[number];

export interface RunningAgent {
  readonly child: Child;
  readonly state: string;
  readonly identity: string;
  readonly session: string;
  readonly socks: SocksEntry | undefined;
  /** As printed: for curl by hand. */
  readonly socksListen: string;
  /** From the start of `wirebadge up` to its ready line. */
  readonly upMs: number;
}

export class Network {
  readonly processes: Processes;
  readonly places: Places;
  readonly flip: Flip | undefined;
  readonly dataFolder: string;
  #adminUrl = "";

  constructor(processes: Processes, places: Places, flip: Flip | undefined) {
    this.processes = processes;
    this.places = places;
    this.flip = flip;
    this.dataFolder = join(processes.folder, "coordinator");
  }

  get adminUrl(): string {
    return this.#adminUrl;
  }

  state(name: string): string {
    return join(this.processes.folder, name);
  }

  async startCoordinator(): Promise<string> {
    const { processes, places } = this;
    const words = ["coordinator", "--listen", places.coordinatorListen, "--admin-listen", "127.0.0.1:0"];
    const child = processes.start("coordinator", [WIREBADGE, ...words, "--data", this.dataFolder, "--json"], {
      namespace: places.namespaceOf("coordinator"),
    });
    const ready = await child.event("ready line", READY_WITHIN_MS, readyLine);
    this.#adminUrl = String(ready["adminUrl"]);
    return String(ready["url"]);
  }

  /** A command for the administrator, in the coordinator's place. */
  admin(words: readonly string[], stdin?: string): Promise<Record<string, unknown>> {
    return this.processes.ask(this.adminWords(words), {
      namespace: this.places.namespaceOf("coordinator"),
      ...(stdin === undefined ? {} : { stdin }),
    });
  }

  adminWords(words: readonly string[]): string[] {
    return [...words, "--url", this.#adminUrl, "--data", this.dataFolder];
  }

  /** A private HTTP service beside the gateway; resolves to its port. */
  async startService(name: "staging" | "production"): Promise<{ child: Child; port: number }> {
    const { host, port } = this.places[name];
    const child = this.processes.start(name, [sibling("service"), name, host, String(port), this.state("gateway")], {
      namespace: this.places.namespaceOf("services"),
    });
    const listening = await child.event("its port", READY_WITHIN_MS, (value) =>
      value["event"] === "listening" ? Number(value["port"]) : undefined,
    );
    return { child, port: listening };
  }

  /** `name` tells state folders apart; by default it is the role's. */
  async startPeer(role: Role, token: string, words: readonly string[], name: string = role): Promise<RunningAgent> {
    const startedMs = performance.now();
    const state = this.state(name);
    const child = this.processes.start(
      role,
      [WIREBADGE, "up", "--token-file", "-", "--state", state, ...words, "--json"],
      { namespace: this.places.namespaceOf(role), stdin: token },
    );
    const ready = await child.event("ready line", READY_WITHIN_MS, readyLine);
    const entryPoints = (ready["entryPoints"] ?? []) as readonly { readonly kind: string; readonly listen: string }[];
    const listen = entryPoints.find((entry) => entry.kind === "socks5")?.listen;
    return {
      child,
      state,
      identity: String(ready["identity"]),
      session: String(ready["session"]),
      socks: listen === undefined ? undefined : parseSocksEntry(listen),
      socksListen: listen ?? "",
      upMs: performance.now() - startedMs,
    };
  }

  /** The policy, with what the flip turns over. */
  policyText(): string {
    const { places, flip } = this;
    const coder = { id: "coder-reads-staging", from: "agent:coder", to: "service:staging" };
    const auditor = { id: "auditor-reads-production", from: "agent:auditor", to: "service:production" };
    const tooMuch = { id: "coder-reads-production", from: "agent:coder", to: "service:production" };
    const ping = { id: "agents-ping-the-gateway", from: "kind:agent", to: "node:gateway icmp" };
    const grants = [
      ping,
      ...(flip === "grant-removed" ? [] : [coder]),
      auditor,
      ...(flip === "production-granted" ? [tooMuch] : []),
    ];
    const policy = {
      services: {
        staging: { at: places.staging.at, via: ["node:gateway"] },
        production: { at: places.production.at, via: ["node:gateway"], discoverable: true },
      },
      grants,
      tests:
        flip === undefined
          ? [
              { from: "agent:coder", to: "service:staging", expect: "allow" },
              { from: "agent:coder", to: "service:production", expect: "deny" },
            ]
          : [],
    };
    return `// Who may reach what. Nothing is allowed that no grant allows.\n${JSON.stringify(policy, undefined, 2)}\n`;
  }
}

function readyLine(value: Record<string, unknown>): Record<string, unknown> | undefined {
  if (value["error"] !== undefined) throw new Error("a failure");
  return value["event"] === "ready" ? value : undefined;
}
