// The options by which a peer offers and opens something, read once before anything is started, so that a mistake in
// the last of them is not found after the session was enrolled.
import { formatAddress } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import { isLoopback } from "./command.ts";

export interface EntryOptions {
  readonly routes: readonly string[];
  readonly serves: readonly string[];
  /** "" asks for the default place. */
  readonly socks: string | undefined;
  readonly allowRemote: boolean;
  readonly forwards: readonly string[];
  readonly exposes: readonly string[];
}

/** @throws USAGE, naming the option and what it takes */
export async function checkEntryOptions(options: EntryOptions): Promise<void> {
  const { parseOffers } = await import("../peer/gateway-offers.ts"); // only the commands that stay pay for loading it
  const { parseForward } = await import("../peer/forward.ts");
  const { parseListen } = await import("../peer/local-listener.ts");
  parseOffers(options);
  for (const forward of options.forwards) parseForward(forward);
  if (options.socks === undefined || options.socks === "") return;
  const at = parseListen("--socks", options.socks);
  if ("path" in at || options.allowRemote || isLoopback(formatAddress(at.address))) return;
  throw new WirebadgeError("USAGE", `--socks ${options.socks} would be open to the network`, {
    hint: "use a loopback address; --allow-remote opens it, and then it demands credentials",
  });
}
