// The gateway's live flows, TCP and UDP: by caller's session (to cut them) and by the source of the socket that was
// dialled (so that the service behind can ask who called). Dials in progress are flows, too: they count, answer
// whois, and can be cut.
import { type Endpoint, formatEndpoint } from "../base/address.ts";
import type { GatewayTarget } from "./gateway-offers.ts";
import type { Caller, DialledFlow, GatewayFlow } from "./gateway-view.ts";

export interface FlowOpening {
  readonly caller: Caller;
  readonly protocol: "tcp" | "udp";
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly target: GatewayTarget;
  /** For a `host:` route. */
  readonly name: string | undefined;
  readonly startedMs: number;
}

/** One flow from its opening to its end. */
export class LiveFlow {
  readonly opening: FlowOpening;
  dialled: Endpoint | undefined;
  /** What ends it now: the dial's abort, later the pipe's cut. */
  cut: () => void;
  ruleId: string | undefined;
  policyVersion = 0;
  revision = 0;
  state: "dialling" | "live" | "ended" = "dialling";
  localKey: string | undefined;

  constructor(opening: FlowOpening, cut: () => void) {
    this.opening = opening;
    this.cut = cut;
  }
}

interface SessionFlows {
  readonly flows: Set<LiveFlow>;
  dialling: number;
  tcp: number;
  udp: number;
}

export class GatewayFlows {
  readonly #sessions = new Map<string, SessionFlows>();
  readonly #byLocal = new Map<string, LiveFlow>();
  #udp = 0;

  get udp(): number {
    return this.#udp;
  }

  /** Flows of one caller, the dials in progress among them. */
  countOf(session: string): { readonly dialling: number; readonly tcp: number; readonly udp: number } {
    return this.#sessions.get(session) ?? { dialling: 0, tcp: 0, udp: 0 };
  }

  open(opening: FlowOpening, cut: () => void): LiveFlow {
    const flow = new LiveFlow(opening, cut);
    const { session } = opening.caller;
    let own = this.#sessions.get(session);
    if (own === undefined) {
      own = { flows: new Set(), dialling: 0, tcp: 0, udp: 0 };
      this.#sessions.set(session, own);
    }
    own.flows.add(flow);
    own.dialling++;
    own[opening.protocol]++;
    if (opening.protocol === "udp") this.#udp++;
    return flow;
  }

  /** The source of the real socket; a later attempt of the same dial takes the earlier one's place. */
  setLocal(flow: LiveFlow, local: Endpoint): void {
    if (flow.state === "ended") return;
    this.#forgetLocal(flow);
    flow.localKey = keyOf(flow.opening.protocol, local);
    this.#byLocal.set(flow.localKey, flow);
  }

  /** The dial succeeded. */
  live(flow: LiveFlow): void {
    if (flow.state !== "dialling") return;
    flow.state = "live";
    this.#sessions.get(flow.opening.caller.session)!.dialling--;
  }

  /** False when it has ended before. */
  end(flow: LiveFlow): boolean {
    if (flow.state === "ended") return false;
    const { session } = flow.opening.caller;
    const own = this.#sessions.get(session)!;
    if (flow.state === "dialling") own.dialling--;
    own[flow.opening.protocol]--;
    if (flow.opening.protocol === "udp") this.#udp--;
    own.flows.delete(flow);
    if (own.flows.size === 0) this.#sessions.delete(session);
    flow.state = "ended";
    this.#forgetLocal(flow);
    return true;
  }

  whoisDialled(local: Endpoint): DialledFlow | undefined {
    const flow = this.#byLocal.get(keyOf("tcp", local)) ?? this.#byLocal.get(keyOf("udp", local));
    if (flow === undefined) return undefined;
    const { caller, destination, target } = flow.opening;
    return { caller, destination, target: target.label };
  }

  /** A copy: cutting a flow takes it out. */
  ofSession(session: string): readonly LiveFlow[] {
    return [...(this.#sessions.get(session)?.flows ?? [])];
  }

  all(): readonly LiveFlow[] {
    return [...this.#sessions.values()].flatMap((own) => [...own.flows]);
  }

  #forgetLocal(flow: LiveFlow): void {
    if (flow.localKey === undefined) return;
    if (this.#byLocal.get(flow.localKey) === flow) this.#byLocal.delete(flow.localKey);
    flow.localKey = undefined;
  }
}

/** The flow's line, once it has ended. */
export function flowLine(
  flow: LiveFlow,
  end: { readonly endedMs: number; readonly bytesIn: number; readonly bytesOut: number; readonly end: string },
): GatewayFlow {
  const { caller, protocol, source, destination, target, startedMs } = flow.opening;
  return {
    caller,
    protocol,
    source,
    destination,
    target: target.label,
    dialled: flow.dialled,
    ruleId: flow.ruleId,
    policyVersion: flow.policyVersion,
    revision: flow.revision,
    startedMs,
    ...end,
  };
}

function keyOf(protocol: "tcp" | "udp", endpoint: Endpoint): string {
  return `${protocol} ${formatEndpoint(endpoint)}`;
}
