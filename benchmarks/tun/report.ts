// A run in words: the table of the terminal with every sample below it, and the table of the README.
import { formatValue, type Target } from "./figures.ts";
import { type Judgement, judgements, type RunRecord, samplesOf } from "./run-record.ts";
import { EQUAL_BELOW } from "./statistics.ts";

const NONE = "–";

const value = (number: number | undefined): string => (number === undefined ? NONE : formatValue(number));
const ratio = (number: number | undefined): string => (number === undefined ? NONE : `${number.toFixed(2)} ×`);

function targetWords(target: Target, better: "more" | "less"): string {
  const sign = better === "more" ? "≥" : "≤";
  const of = { "wireguard-go": " × wireguard-go", best: " × the best peer", value: "" }[target.against];
  return `${sign} ${target.must}${of}${target.aim === target.must ? "" : ` (aim ${target.aim})`}`;
}

/** "held: ≥ 1.25 × wireguard-go (aim 1.8)" */
function verdict({ figure, target }: Judgement): string {
  if (figure.target === undefined) return "";
  const words = targetWords(figure.target, figure.better);
  return target === undefined ? words : `${{ aim: "aim held", must: "held", missed: "MISSED" }[target]}: ${words}`;
}

function row(run: RunRecord, judgement: Judgement): string[] {
  const { figure, medians, toBase, toBest, best } = judgement;
  return [
    `${figure.title}, ${figure.unit}`,
    ...run.contenders.map(({ name }) => value(medians[name])),
    `${ratio(toBase)} ${judgement.word ?? ""}`.trim(),
    best === undefined || best === run.base ? ratio(toBest) : `${ratio(toBest)} ${best}`,
  ];
}

const head = (run: RunRecord): string[] => [
  "figure, median",
  ...run.contenders.map(({ name }) => name),
  `to ${run.base}`,
  "to the best peer",
];

/** What the figures hold for: machine, versions, how it was measured. */
export function conditions(run: RunRecord): string[] {
  const { cores, cpu, kernel, node, openssl, iperf3 } = run.machine;
  const counts = Object.values(run.samples).flatMap((samples) => Object.values(samples).map((list) => list.length));
  const starts = `${Math.max(0, ...counts)} starts of each, in turn${run.quick ? " (the quick form)" : ""}`;
  const [full, masked] = [formatValue(run.sealRate.full), formatValue(run.sealRate.masked)];
  const [others, stolen] = [run.otherCores.toFixed(2), run.stolenCores.toFixed(2)];
  return [
    `${run.date.slice(0, 10)}, commit ${run.commit}: ${starts}; a ratio is the median of the ratios of neighbouring ` +
      `starts, and below ${EQUAL_BELOW} × is called equal.`,
    `${cores} × ${cpu}, Linux ${kernel}, Node ${node}, OpenSSL ${openssl}, ${iperf3}; both ends, their load and the ` +
      "kernel's work share these cores; veth with MTU 1500, tunnel MTU 1420.",
    `OpenSSL inside Node seals 1,420-byte packets at ${full} GB/s on one core, ${masked} with AVX-512 masked.`,
    ...run.contenders.map(({ name, version, aead }) => `${name} ${version}: ${aead}.`),
    `Other processes took at most ${others} cores during a start, the hypervisor ${stolen}.`,
  ];
}

/** Columns side by side, the first to the left. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => [...(cells[column] ?? "")].length)));
  const pad = (cell: string, column: number): string => {
    const space = " ".repeat(widths[column]! - [...cell].length);
    return column === 0 || column === widths.length - 1 ? cell + space : space + cell;
  };
  return rows.map((cells) => cells.map(pad).join("  ").trimEnd());
}

export function textReport(run: RunRecord): string {
  const all = judgements(run);
  const table = aligned([
    [...head(run), "held"],
    ...all.map((judgement) => [...row(run, judgement), verdict(judgement)]),
  ]);
  const shown = (sample: number | null): string => (sample === null ? "failed" : formatValue(sample));
  const samples = all.flatMap(({ figure }) =>
    Object.entries(samplesOf(run, figure)).map(
      ([name, list]) => `  ${figure.key} ${name}: ${list.map(shown).join(" ")}`,
    ),
  );
  return [
    ...conditions(run),
    ...run.notes,
    "",
    ...table,
    "",
    "all samples, in the order of starts:",
    ...samples,
    "",
  ].join("\n");
}

/** Conditions, table and chart for the README; `chart` is the path of the SVG from there. */
export function markdownReport(run: RunRecord, chart: string): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const columns = head(run);
  const missed = judgements(run).filter(({ target }) => target === "missed");
  return [
    "### Through a TUN device, beside other programs",
    "",
    conditions(run).join(" "),
    "",
    line(columns),
    `|---|${"---:|".repeat(columns.length - 1)}`,
    ...judgements(run).map((judgement) => line(row(run, judgement))),
    "",
    `![How many times as good as wireguard-go](${chart})`,
    ...(missed.length === 0 ? [] : ["", "Missed:"]),
    ...missed.map(({ figure }) => `- ${figure.title}: ${targetWords(figure.target!, figure.better)}`),
  ].join("\n");
}

/** Each figure of ours with its target and whether that is held, for test/CLAIMS.md. */
export function claimsReport(run: RunRecord): string {
  const rows = judgements(run).map((judgement) => {
    const { figure, medians, toBase, toBest, best } = judgement;
    const against = best === undefined ? ratio(toBest) : `${ratio(toBest)} ${best}`;
    return [`${figure.title}, ${figure.unit}`, value(medians[run.ours]), ratio(toBase), against, verdict(judgement)];
  });
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const columns = ["Figure, median", run.ours, `to ${run.base}`, "to the best peer", "Target"];
  return [
    `Written by \`npm run bench -- tun\`. ${conditions(run).slice(0, 2).join(" ")} ${run.notes.join(" ")}`.trim(),
    "",
    line(columns),
    "|---|---:|---:|---:|---|",
    ...rows.map(line),
  ].join("\n");
}
