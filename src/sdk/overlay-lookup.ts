// dns.lookup for the network's names, for libraries that resolve before they connect and take a function for it.
import type { LookupAddress, LookupAllOptions, LookupOneOptions, LookupOptions } from "node:dns";
import { formatAddress } from "../base/address.ts";
import { printable } from "../base/printable.ts";
import { SocketError } from "../peer/socket-error.ts";
import { familyOf, type OverlayHosts } from "./overlay-hosts.ts";

type OneCallback = (error: NodeJS.ErrnoException | null, address: string, family: number) => void;
type AllCallback = (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void;
type AnyCallback = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

export interface OverlayLookup {
  (host: string, family: number, callback: OneCallback): void;
  (host: string, options: LookupOneOptions, callback: OneCallback): void;
  (host: string, options: LookupAllOptions, callback: AllCallback): void;
  (host: string, options: LookupOptions, callback: AnyCallback): void;
  (host: string, callback: OneCallback): void;
}

function wantedFamily(family: LookupOptions["family"]): number {
  if (family === "IPv4") return 4;
  return family === "IPv6" ? 6 : (family ?? 0);
}

/** IPv6 first, as the network has it. @throws SocketError ENOTFOUND */
export function lookUp(hosts: OverlayHosts, host: string, options: LookupOptions): LookupAddress[] {
  const family = wantedFamily(options.family);
  const found = hosts
    .addressesOf(host)
    .map((address) => ({ address: formatAddress(address), family: familyOf(address) }));
  const wanted = found.filter((entry) => family === 0 || entry.family === family);
  if (wanted.length > 0) return wanted;
  const why = hosts.covers(host) ? "connect by its name: it has no such address here" : "the network has no such name";
  const message = `getaddrinfo ENOTFOUND ${printable(host)}: ${why}`;
  throw Object.assign(new SocketError("ENOTFOUND", message, "getaddrinfo"), { hostname: host });
}

export function makeLookup(hosts: OverlayHosts): OverlayLookup {
  return (host: string, ...rest: readonly unknown[]): void => {
    const callback = rest.at(-1) as AnyCallback;
    const [first] = rest;
    const options: LookupOptions =
      typeof first === "number" ? { family: first } : typeof first === "object" && first !== null ? first : {};
    try {
      const found = lookUp(hosts, host, options);
      if (options.all === true) process.nextTick(callback, null, found);
      else process.nextTick(callback, null, found[0]!.address, found[0]!.family);
    } catch (error) {
      process.nextTick(callback, error as Error, "");
    }
  };
}
