// A real HTTP server for tests, a process of its own. GET /blob/N gives N reproducible bytes, PUT /hash answers with
// the SHA-256 of what came, GET / says who asks. Arguments: HOST PORT [NAME].
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { Readable } from "node:stream";

/** The same bytes on both ends, without a file: a counter in 64 KiB blocks. */
export function* blocks(length: number): Generator<Buffer> {
  for (let at = 0; at < length; at += 65_536) {
    const block = Buffer.alloc(Math.min(65_536, length - at), at % 251);
    if (block.length >= 8) block.writeDoubleBE(at, 0);
    yield block;
  }
}

export function hashOfBlob(length: number): string {
  const hash = createHash("sha256");
  for (const block of blocks(length)) hash.update(block);
  return hash.digest("hex");
}

if (process.argv[1] === import.meta.filename) {
  const [host, port, name = "target"] = process.argv.slice(2);
  const server = createServer((request, response) => {
    const blob = /^\/blob\/(\d+)$/.exec(request.url ?? "");
    if (blob !== null) {
      Readable.from(blocks(Number(blob[1]))).pipe(response);
    } else if (request.method === "PUT") {
      const hash = createHash("sha256");
      request.on("data", (chunk: Buffer) => hash.update(chunk));
      request.on("end", () => response.end(hash.digest("hex")));
    } else {
      response.end(`${name} ${request.socket.remoteAddress} ${request.socket.remotePort}\n`);
    }
  });
  server.listen(Number(port), host, () => process.stdout.write("listening\n"));
}
