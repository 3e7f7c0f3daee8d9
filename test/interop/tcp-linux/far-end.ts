// The other kernel's end of a goodput run, in a namespace of its own: takes bytes on one port and prints their hash,
// pours them on the next; ends with its standard input.
import { createServer } from "node:net";
import { blocks, hashOf, pourInto } from "./ends.ts";

const bytes = Number(process.argv[2]);
createServer({ allowHalfOpen: true }, async (socket) => {
  console.log(await hashOf(socket));
  socket.end();
}).listen(7_700);
createServer({ allowHalfOpen: true }, (socket) => void pourInto(socket.resume(), blocks(bytes, 1))).listen(
  7_701,
  () => {
    console.log("listening");
  },
);
process.stdin.resume().once("end", () => process.exit(0));
