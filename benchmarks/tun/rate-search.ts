// The highest rate that is carried: doubled until it isn't, then halved in.

export interface RateProbe {
  /** A second, as the sender managed it. */
  readonly sent: number;
  /** A second, as it arrived. */
  readonly received: number;
  /** 0 to 1 */
  readonly lost: number;
}

export interface RateSearch {
  readonly from: number;
  /** A rate holds below this share of losses. */
  readonly lostBelow: number;
  /** Ends when the lowest rate that failed is at most this many times the highest that held. */
  readonly within: number;
}

const SENDER_SHARE = 0.9;
const RATE_MIN = 100;

/**
 * The received rate of the best probe that lost less than `lostBelow`; 0 when not even RATE_MIN holds. A rate that
 * fails is tried once more: a hiccup of the machine is no limit of the tunnel. A sender that can't keep up ends it.
 */
export async function highestRate(probe: (rate: number) => Promise<RateProbe>, search: RateSearch): Promise<number> {
  let best = 0;
  const holds = async (rate: number): Promise<"yes" | "no" | "sender"> => {
    for (let tries = 0; tries < 2; tries++) {
      const { sent, received, lost } = await probe(rate);
      if (lost >= search.lostBelow) continue;
      best = Math.max(best, received);
      return sent < SENDER_SHARE * rate ? "sender" : "yes";
    }
    return "no";
  };
  let held = 0;
  let failed = search.from;
  for (let rate = search.from; rate >= RATE_MIN; rate = held > 0 ? rate * 2 : rate / 2) {
    const outcome = await holds(rate);
    if (outcome === "sender") return best;
    if (outcome === "yes") held = rate;
    else failed = rate;
    if (held > 0 && failed > held) break;
  }
  while (held > 0 && failed / held > search.within) {
    const rate = Math.sqrt(held * failed);
    const outcome = await holds(rate);
    if (outcome === "sender") return best;
    if (outcome === "yes") held = rate;
    else failed = rate;
  }
  return best;
}
