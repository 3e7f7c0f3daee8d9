// The house rules as functions over source texts: each takes the files and gives back what breaks it. tidy.test.ts runs
// them over the tree, and over a planted violation of each. A word that a rule looks for is spelt here so that the rule
// doesn't find itself.

export interface SourceFile {
  /** From the top of the repository, with forward slashes: "src/base/ring.ts". */
  readonly path: string;
  readonly text: string;
}

export interface Rule {
  readonly name: string;
  /** One line a finding: "path:line: what". */
  check(files: readonly SourceFile[]): string[];
}

/** A folder may import from itself and from those above it. `pure`: no clock, chance, I/O, timers or async. */
const FOLDERS: readonly { readonly names: readonly string[]; readonly pure: boolean }[] = [
  ...["base", "crypto", "wire", "wireguard", "filter", "path", "netstack", "engine", "policy", "control"].map(
    (name) => ({
      names: [name],
      pure: true,
    }),
  ),
  { names: ["io"], pure: false },
  { names: ["peer"], pure: false },
  { names: ["coordinator"], pure: false },
  { names: ["sdk", "cli", "dashboard"], pure: false },
  { names: ["sim"], pure: false },
];

/** The coordinator handles no packets: the data plane stays out of it, whatever the order says. */
const BARRED: Readonly<Record<string, readonly string[]>> = {
  coordinator: ["wireguard", "path", "netstack", "engine", "peer"],
};

const BANNED_IN_PURE_FOLDERS: readonly (readonly [pattern: RegExp, instead: string])[] = [
  [/\bDate\s*\.\s*now\b|\bperformance\s*\.\s*now\b|\bnew\s+Date\s*\(\s*\)|\bhrtime\b/, "the nowMs argument"],
  [
    /\bMath\s*\.\s*random\b|\brandom(Bytes|Fill|FillSync|UUID|Int)\s*\(|\bgetRandomValues\b/,
    "the Random of the caller",
  ],
  [/\bset(Timeout|Interval|Immediate)\b|\bqueueMicrotask\b|\bnextTick\b/, "nextDeadlineMs()"],
  [/\basync\b|\bawait\b|\bPromise\b/, "a plain value: the shells wait"],
  [/\bprocess\s*\.|\bconsole\s*\./, "a value given back: the shells know the process"],
];

/** `randomBytes(random, n)` of base/random.ts is the given source, not the machine's. */
const GIVEN_RANDOM = /\brandomBytes\s*\(\s*(this\.)?#?\w*[rR]andom\b|\bfunction\s+randomBytes\s*\(/g;

const IMPORT = /\b(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']|\bimport\s*\(?\s*["']([^"']+)["']/g;
const KEBAB_FILE = /^\.?[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)*$/;
const BANNED_NAMES = ["utils", "util", "helpers", "helper", "manager", "common", "types", "index", "misc", "shared"];
const FILE_LINES_MAX = 600;
const LINE_CHARACTERS_MAX = 120;

const isCode = (file: SourceFile): boolean => /\.(ts|js|mjs)$/.test(file.path) || /^bin\/[^.]+$/.test(file.path);
const inSrc = (file: SourceFile): boolean => isCode(file) && file.path.startsWith("src/");
const inTest = (file: SourceFile): boolean => isCode(file) && file.path.startsWith("test/");
const folderOf = (path: string): string => path.split("/")[1] ?? "";
const rankOf = (folder: string): number => FOLDERS.findIndex((entry) => entry.names.includes(folder));
const isPure = (file: SourceFile): boolean => inSrc(file) && FOLDERS[rankOf(folderOf(file.path))]?.pure === true;
const lineAt = (text: string, index: number): number => text.slice(0, index).split("\n").length;

/** The same text, same length and lines, with comments (and string contents, if asked) turned into spaces. */
export function codeOf(text: string, keep: "strings" | "comments" | "nothing" = "nothing"): string {
  const out: string[] = [];
  const depths: number[] = []; // open braces within each ${ } that we are inside of
  let at = 0;
  let lastToken = "";
  const copy = (length: number): void => {
    out.push(text.slice(at, at + length));
    at += length;
  };
  const blank = (end: number, kept: boolean): void => {
    out.push(kept ? text.slice(at, end) : text.slice(at, end).replace(/[^\n]/g, " "));
    at = end;
  };
  const template = (): void => {
    let end = at;
    while (end < text.length && text[end] !== "`" && !text.startsWith("${", end)) end += text[end] === "\\" ? 2 : 1;
    blank(Math.min(end, text.length), keep === "strings");
    if (text.startsWith("${", at)) {
      copy(2);
      depths.push(0);
      lastToken = "{";
    } else {
      copy(1);
      lastToken = "a";
    }
  };
  while (at < text.length) {
    const char = text[at] ?? "";
    if (text.startsWith("//", at)) {
      const end = text.indexOf("\n", at);
      blank(end < 0 ? text.length : end, keep === "comments");
    } else if (text.startsWith("/*", at)) {
      const end = text.indexOf("*/", at + 2);
      blank(end < 0 ? text.length : end + 2, keep === "comments");
    } else if (char === '"' || char === "'") {
      let end = at + 1;
      while (end < text.length && text[end] !== char && text[end] !== "\n") end += text[end] === "\\" ? 2 : 1;
      copy(1);
      blank(Math.min(end, text.length), keep === "strings");
      copy(1);
      lastToken = "a";
    } else if (char === "`") {
      copy(1);
      template();
    } else if (char === "}" && depths.at(-1) === 0) {
      depths.pop();
      copy(1);
      template();
    } else if (char === "/" && (/^[^\w)\]}$]?$/.test(lastToken) || /^(return|typeof|case|in|of)$/.test(lastToken))) {
      const regex = /^\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/.exec(text.slice(at));
      if (regex === null) copy(1);
      else blank(at + regex[0].length, keep === "strings");
      lastToken = "a";
    } else {
      const word = /^[\w$]+/.exec(text.slice(at, at + 200))?.[0] ?? char;
      if (depths.length > 0 && word === "{") depths[depths.length - 1]! += 1;
      if (depths.length > 0 && word === "}") depths[depths.length - 1]! -= 1;
      if (word.trim() !== "") lastToken = word;
      copy(word.length);
    }
  }
  return out.join("");
}

function search(file: SourceFile, text: string, pattern: RegExp, what: string): string[] {
  const global = new RegExp(pattern.source, pattern.flags.includes("g") ? pattern.flags : `${pattern.flags}g`);
  return [...text.matchAll(global)].map((hit) => `${file.path}:${lineAt(text, hit.index)}: ${what}`);
}

/** A rule that looks at each file alone. */
function each(name: string, applies: (file: SourceFile) => boolean, check: (file: SourceFile) => string[]): Rule {
  return { name, check: (files) => files.filter(applies).flatMap(check) };
}

interface Import {
  readonly from: string;
  readonly line: number;
}

export function importsOf(file: SourceFile): Import[] {
  const text = codeOf(file.text, "strings");
  return [...text.matchAll(IMPORT)].map((hit) => ({ from: hit[1] ?? hit[2] ?? "", line: lineAt(text, hit.index) }));
}

/** "src/peer/a.ts" + "../io/b.ts" = "src/io/b.ts" */
function resolve(path: string, specifier: string): string {
  const parts = path.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}

function checkDirection(file: SourceFile): string[] {
  const from = folderOf(file.path);
  if (file.path.split("/").length < 3 || rankOf(from) < 0) return [`${file.path}:1: is in no folder of the layout`];
  const found: string[] = [];
  for (const { from: specifier, line } of importsOf(file)) {
    if (!specifier.startsWith(".")) continue;
    const target = resolve(file.path, specifier);
    const to = folderOf(target);
    const at = `${file.path}:${line}:`;
    if (!target.startsWith("src/") || rankOf(to) < 0) found.push(`${at} imports ${specifier}, outside of src/`);
    else if (!specifier.endsWith(".ts")) found.push(`${at} imports ${specifier} without its .ts ending`);
    else if (to !== from && rankOf(to) >= rankOf(from)) found.push(`${at} ${from}/ may not import from ${to}/`);
    else if (BARRED[from]?.includes(to)) found.push(`${at} ${from}/ may not import from ${to}/`);
  }
  return found;
}

function checkPurity(file: SourceFile): string[] {
  const code = codeOf(file.text).replace(GIVEN_RANDOM, (hit) => " ".repeat(hit.length));
  const used = BANNED_IN_PURE_FOLDERS.flatMap(([pattern, instead]) =>
    [...code.matchAll(new RegExp(pattern.source, "g"))].map(
      (hit) => `${file.path}:${lineAt(code, hit.index)}: ${hit[0]} in a pure folder: use ${instead}`,
    ),
  );
  const imported = importsOf(file).filter(({ from }) => from.startsWith("node:"));
  return [...used, ...imported.map(({ from, line }) => `${file.path}:${line}: imports ${from} in a pure folder`)];
}

const NAMED_SOURCE = /(?<!\bfrom\s*)(?<!\bimport\s*\(?\s*)["'`]\.\.?\/[\w./-]+\.ts["'`]/g;

function checkNamedSources(file: SourceFile): string[] {
  const code = codeOf(file.text, "strings");
  const what = 'end it by import.meta.url.endsWith(".ts") ? ".ts" : ".js"';
  return [...code.matchAll(NAMED_SOURCE)].map((hit) => `${file.path}:${lineAt(code, hit.index)}: ${hit[0]}: ${what}`);
}

const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");

function checkDependencies(files: readonly SourceFile[]): string[] {
  const manifest = files.find((file) => file.path === "package.json");
  const parsed = JSON.parse(manifest?.text ?? "{}") as { dependencies?: Record<string, string> };
  const declared = Object.keys(parsed.dependencies ?? {});
  return files.filter(inSrc).flatMap((file) =>
    importsOf(file)
      .filter(({ from }) => !from.startsWith(".") && !from.startsWith("node:") && !declared.includes(packageOf(from)))
      .map(({ from, line }) => `${file.path}:${line}: imports ${from}, which is not in dependencies`),
  );
}

function checkNames(file: SourceFile): string[] {
  const name = file.path.split("/").at(-1) ?? "";
  const found: string[] = [];
  if (!KEBAB_FILE.test(name)) found.push(`${file.path}:1: the name is not kebab-case`);
  if (BANNED_NAMES.includes(name.split(".")[0] ?? "")) found.push(`${file.path}:1: name the noun that it holds`);
  return found;
}

function checkSizes(file: SourceFile): string[] {
  const lines = file.text.replace(/\n$/, "").split("\n");
  const found = lines.flatMap((line, index) =>
    [...line].length > LINE_CHARACTERS_MAX ? [`${file.path}:${index + 1}: longer than ${LINE_CHARACTERS_MAX}`] : [],
  );
  if (lines.length > FILE_LINES_MAX) found.push(`${file.path}:${lines.length}: more than ${FILE_LINES_MAX} lines`);
  return found;
}

const EMPTY_CATCH = /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}|\.catch\s*\(\s*(?:\(\w*\)|\w+)\s*=>\s*\{\s*\}\s*\)/;
const SKIPPED = /\b(?:describe|it|test|suite|bench)\b[\w.]*\.(?:only|skip|skipIf|todo|fails)\b|\.skip\s*\(/;
const MACHINE_PATH = /\/(?:work\/(?:wt|main|shared)|root|home\/[a-z]|Users\/[A-Za-z]|tmp\/(?:wb|fresh|bash_))[\w./-]*/;
const REGISTRY = new RegExp(
  `"${"resol"}ved"|registry\\s*=|https?://[^\\s"/]*(?:${"regis"}try|${"arti"}factory|${"nex"}us)`,
);

/** What a text sends its reader to has to be there. */
function checkNamedDocuments(files: readonly SourceFile[]): string[] {
  const there = new Set(["README.md", ...files.map((file) => file.path.split("/").at(-1))]);
  return files.flatMap((file) =>
    [...file.text.matchAll(/\b[A-Z][A-Z_-]+\.md\b/g)]
      .filter(([name]) => !there.has(name))
      .map((hit) => `${file.path}:${lineAt(file.text, hit.index)}: names ${hit[0]}, which isn't here`),
  );
}

export const RULES: readonly Rule[] = [
  { name: "documents that are named are there", check: checkNamedDocuments },
  each("pure folders have no clock, chance, I/O, timers or async", isPure, checkPurity),
  each("imports follow the folder order", inSrc, checkDirection),
  each(
    "koffi is imported in src/io/ffi only",
    (file) => isCode(file) && !file.path.startsWith("src/io/ffi/"),
    (file) =>
      importsOf(file)
        .filter(({ from }) => packageOf(from) === "koffi")
        .map(({ line }) => `${file.path}:${line}: imports koffi`),
  ),
  { name: "src imports only declared dependencies", check: checkDependencies },
  // The build rewrites "./a.ts" in imports only: new URL("./a.ts", …) would miss dist/a.js.
  each("a source is named outside of imports by the ending of the file that names it", inSrc, checkNamedSources),
  each("no cast to any", isCode, (file) => search(file, codeOf(file.text), /\bas\s+any\b|<any>/, "casts to any")),
  each("no unfinished work is left as a note", isCode, (file) =>
    search(file, file.text, /\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b/, "do it, or open an issue"),
  ),
  each("no test is left out or singled out", inTest, (file) =>
    search(file, codeOf(file.text), SKIPPED, "runs not all tests"),
  ),
  each(
    "a suite is left out by needs() only",
    (file) => inTest(file) && /\.runIf\s*\(/.test(codeOf(file.text)) && !/\bneeds\s*\(/.test(codeOf(file.text)),
    (file) => [`${file.path}:1: runIf without needs()`],
  ),
  each("no catch is empty", isCode, (file) =>
    search(file, codeOf(file.text, "comments"), EMPTY_CATCH, "say why nothing is to be done"),
  ),
  each("no default exports in src", inSrc, (file) =>
    search(file, codeOf(file.text), /\bexport\s+default\b|\bas\s+default\b/, "export it by name"),
  ),
  each("files and lines keep to their size", isCode, checkSizes),
  each("file names are kebab-case nouns", isCode, checkNames),
  each(
    "each source file opens with a comment",
    (file) => inSrc(file) || (isCode(file) && file.path.startsWith("bin/")),
    (file) =>
      /^(?:#!.*\n)?\/[/*]/.test(file.text) ? [] : [`${file.path}:1: say what it is and where on the path it stands`],
  ),
  each(
    "no path of one machine",
    () => true,
    (file) => search(file, file.text, MACHINE_PATH, "a path of one machine"),
  ),
  each(
    "no registry host, no lock-file addresses",
    () => true,
    (file) => search(file, file.text, REGISTRY, "an address of a package registry"),
  ),
];
