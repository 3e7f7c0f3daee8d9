// The providers that every suite of cryptography runs over. The native one must be there where the tests run: a build
// without it would else pass untested.
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { Crypto } from "../../src/crypto/provider.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";

export const PROVIDERS: readonly (readonly [name: string, crypto: Crypto])[] = [
  ["portable", new PortableCrypto()],
  ["native", createNativeCrypto()],
  ["native, EVP alone", createNativeCrypto(undefined, { evpOnly: true })],
];
