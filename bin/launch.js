// Starts an entry point of Wirebadge on a Node that is new enough: this one, else the one that `npm ci` brought along,
// else says what to do. Written for old Nodes to read (12 and on): CommonJS, nothing newer than ES2019. From a checkout
// it runs the sources, from an installed package dist/.
// biome-ignore-all lint/style/useNodejsImportProtocol: Node 12 knows no "node:"
// biome-ignore-all lint/complexity/useOptionalChain: Node 12 knows no "?."
"use strict";
const { spawn } = require("child_process");
const fs = require("fs");
const { constants } = require("os");
const path = require("path");
const { pathToFileURL } = require("url");

const NEEDED = [24, 15];
// A peer's young generation would grow to 48 MiB under load and stay there; what packets leave in it dies at once, so
// that 3 cost no time. Each thread that compiles in the background keeps 2 MB. And where V8 comes to think that what a
// line of code makes lives long it makes it old at once: a flood's datagrams then stay until a full collection. (It
// reads these only at the start.)
const LEAN = ["--max-semi-space-size=1", "--v8-pool-size=1", "--no-allocation-site-pretenuring"];
const PEERS = ["up", "wg"];
const top = path.dirname(__dirname);
const EXIT_USAGE = 2;

/** "24.21.0" */
function isNewEnough(version) {
  const [major, minor] = version.split(".").map(Number);
  return major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1]);
}

/** The Node that the dev dependency `node` pins, if it is installed and new enough. */
function pinnedNode() {
  const folder = path.join(top, "node_modules", "node");
  try {
    if (!isNewEnough(JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8")).version)) return undefined;
    const file = path.join(folder, "bin", process.platform === "win32" ? "node.exe" : "node");
    fs.accessSync(file, fs.constants.X_OK);
    return file;
  } catch (_) {
    return undefined; // not installed: an installed package, or before `npm ci`
  }
}

function fail(lines) {
  process.stderr.write(`${lines.join("\n")}\n`);
  process.exitCode = EXIT_USAGE;
}

function adviseNode() {
  const lines = [
    `wirebadge needs Node ${NEEDED.join(".")} or newer; this is ${process.version} (${process.execPath}).`,
  ];
  if (fs.existsSync(path.join(top, "node_modules", "node")))
    lines.push(
      `The Node for it was installed without its install script. Run \`npm rebuild node\` in ${top}, then try again.`,
    );
  else if (fs.existsSync(path.join(top, "src")))
    lines.push(`Run \`npm ci\` in ${top}: it brings the right Node along. Then try again.`);
  else lines.push("Install Node 24 (https://nodejs.org, or `nvm install 24`), then try again with it.");
  fail(lines);
}

/** Of V8, for this command. */
function flags() {
  return PEERS.indexOf(process.argv[2]) < 0 ? [] : LEAN;
}

/** The same process begins anew with them, where it can and has not begun so. */
function takeFlags() {
  const missing = flags().filter((flag) => process.execArgv.indexOf(flag) < 0);
  if (missing.length === 0 || process.execve === undefined || process.send !== undefined) return;
  process.execve(process.execPath, [process.execPath].concat(process.execArgv, missing, process.argv.slice(1)));
}

/** Runs the same command on another Node as if it were this process: same terminal, signals passed on, same end. */
function runOn(node, script) {
  const child = spawn(node, flags().concat(script, process.argv.slice(2)), { stdio: "inherit" });
  // On a terminal these reach the child from the kernel: passed on too, they would be two, which means "at once".
  const fromTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  for (const signal of ["SIGINT", "SIGQUIT", "SIGHUP"]) process.on(signal, () => fromTerminal || child.kill(signal));
  for (const signal of ["SIGTERM", "SIGUSR2"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => fail([`wirebadge could not start ${node}: ${error.message}`, "Run `npm ci` again."]));
  child.on("exit", (code, signal) => {
    if (code !== null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // SIGKILL and the like have ended us by now; what a shell would say for the rest
    setTimeout(() => process.exit(128 + (constants.signals[signal] || 0)), 1000);
  });
}

/**
 * Halves the start of every command of a checkout. The folder has the checkout's own owner: one below the system's
 * temporary folder could be another user's, and what it holds is run.
 */
function cacheCompiledSources() {
  const folder = path.join(top, "node_modules", ".cache", "wirebadge");
  if (fs.existsSync(path.join(top, "node_modules"))) require("module").enableCompileCache(folder);
}

function runHere(entry) {
  const candidates = [path.join(top, "src", `${entry}.ts`), path.join(top, "dist", `${entry}.js`)];
  const file = candidates.find((candidate) => fs.existsSync(candidate));
  if (file === undefined) {
    fail([`wirebadge is not whole: neither ${candidates.join(" nor ")} is there.`, "Install it again."]);
    return;
  }
  if (file === candidates[0]) cacheCompiledSources();
  import(pathToFileURL(file).href).catch((error) => {
    const uninstalled = error && error.code === "ERR_MODULE_NOT_FOUND" && file === candidates[0];
    if (!uninstalled || fs.existsSync(path.join(top, "node_modules"))) throw error;
    fail([`The packages that wirebadge needs are not installed. Run \`npm ci\` in ${top}.`]);
  });
}

/** `launch("cli/main")` */
exports.launch = function launch(entry) {
  if (isNewEnough(process.versions.node)) {
    takeFlags();
    return runHere(entry);
  }
  const node = pinnedNode();
  if (node === undefined) adviseNode();
  else runOn(node, process.argv[1]);
};
