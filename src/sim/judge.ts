// May this packet pass at this station, now? By the naive evaluator over the law that the station was told, and by the
// judge's own memory of flows: a packet passes if its sender may open what it asks for, or if it answers a flow that
// the other end opened and still may open.
import { FlowMemory, type Opener } from "./flow-memory.ts";
import { type Law, mayOpen } from "./law.ts";
import { ACK, type Facts, isEchoReply, isEchoRequest, isIcmp, SYN, TCP, turned } from "./packets.ts";

export type Permission = "opens" | "answers" | "error-of-flow";

/** An answer as its flow's opener would have sent it: an echo reply becomes the request. */
function asOpened(answer: Facts): Facts {
  const facts = turned(answer);
  return isEchoReply(answer) ? { ...facts, icmpType: answer.icmpType === 0 ? 8 : 128 } : facts;
}

export class Judge {
  readonly flows = new FlowMemory();
  readonly #self: string;

  /** `self`: the session of the station that judges. */
  constructor(self: string) {
    this.#self = self;
  }

  /** Undefined: it must not pass. `sender` says which end of the tunnel sent it. */
  permits(nowMs: number, law: Law, clockMs: number, remote: string, sender: Opener, facts: Facts) {
    if (facts.quoted !== undefined) return this.#permitsError(nowMs, law, clockMs, remote, sender, facts.quoted);
    if (!isEchoReply(facts) && this.#mayOpen(law, clockMs, remote, sender, facts)) return "opens" as const;
    const isOpening = facts.protocol === TCP ? (facts.tcpFlags & (SYN | ACK)) === SYN : isEchoRequest(facts);
    if (isOpening) return undefined;
    const opener = sender === "local" ? "remote" : "local";
    const opened = asOpened(facts);
    if (!this.flows.isOpen(nowMs, remote, opener, opened)) return undefined;
    return this.#mayOpen(law, clockMs, remote, opener, opened) ? ("answers" as const) : undefined;
  }

  /** It passed, as permitted. */
  note(nowMs: number, remote: string, sender: Opener, facts: Facts, permission: Permission): void {
    const opener = sender === "local" ? "remote" : "local";
    if (permission === "opens") {
      this.flows.opened(nowMs, remote, sender, facts);
      if (facts.protocol === TCP || !isIcmp(facts)) this.flows.touched(nowMs, remote, opener, asOpened(facts));
    } else if (permission === "answers") this.flows.touched(nowMs, remote, opener, asOpened(facts));
  }

  #mayOpen(law: Law, clockMs: number, remote: string, opener: Opener, facts: Facts): boolean {
    const [from, at] = opener === "local" ? [this.#self, remote] : [remote, this.#self];
    return mayOpen(law, from, at, facts, clockMs);
  }

  /** An ICMP error tells the sender of a packet about a flow that lives, whichever end opened it. */
  #permitsError(
    nowMs: number,
    law: Law,
    clockMs: number,
    remote: string,
    sender: Opener,
    quoted: Facts,
  ): Permission | undefined {
    const other = sender === "local" ? "remote" : "local"; // it sent what is quoted
    const ways: readonly (readonly [Opener, Facts])[] = [
      [other, quoted],
      [sender, asOpened(quoted)],
    ];
    for (const [opener, facts] of ways) {
      if (!this.flows.isOpen(nowMs, remote, opener, facts)) continue;
      if (this.#mayOpen(law, clockMs, remote, opener, facts)) return "error-of-flow";
    }
    return undefined;
  }
}
