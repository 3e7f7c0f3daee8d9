// Finds the guards of a source file: the conditions that turn something away. Each can be taken out by replacing its
// text:
// - an `if` whose body ends here (return, throw, continue, break): its condition becomes `false`; where it is an
//   `a || b`, each operand for itself too;
// - a returned `a && b`: each operand becomes `true`; a returned `a || b`: each becomes `false`;
// - a returned `guard() ?? rest`: becomes `rest`;
// - each row of a table that is named.
import { parseSync } from "vite";

export interface Guard {
  readonly file: string;
  readonly line: number;
  /** The text that is taken out, on one line. */
  readonly text: string;
  /** The function or method around it; empty at the top. */
  readonly inside: string;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
}

interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}

const isNode = (value: unknown): value is Node => typeof value === "object" && value !== null && "type" in value;

const FUNCTIONS = new Set(["MethodDefinition", "FunctionDeclaration"]);

/** The name of a function or method, `#private` as it is written; undefined for any other node. */
function nameOf(node: Node): string | undefined {
  if (!FUNCTIONS.has(node.type)) return undefined;
  const key = (node["key"] ?? node["id"]) as Node | null;
  if (key === null) return undefined;
  return `${key.type === "PrivateIdentifier" ? "#" : ""}${String(key["name"])}`;
}

function visit(node: Node, inside: string, see: (node: Node, inside: string) => void): void {
  see(node, inside);
  const here = nameOf(node) ?? inside;
  for (const value of Object.values(node)) {
    if (Array.isArray(value)) for (const item of value) if (isNode(item)) visit(item, here, see);
    if (isNode(value)) visit(value, here, see);
  }
}

const ENDS = new Set(["ReturnStatement", "ThrowStatement", "ContinueStatement", "BreakStatement"]);

/** Whether a statement leaves the block that it stands in. */
function leaves(statement: Node): boolean {
  if (statement.type === "BlockStatement") {
    const last = (statement["body"] as Node[]).at(-1);
    return last !== undefined && leaves(last);
  }
  return ENDS.has(statement.type);
}

function bare(node: Node): Node {
  return node.type === "ParenthesizedExpression" ? bare(node["expression"] as Node) : node;
}

/** The operands of a chain of one operator; the expression itself when it is none. */
function operandsOf(expression: Node, operator: string): Node[] {
  const node = bare(expression);
  if (node.type !== "LogicalExpression" || node["operator"] !== operator) return [expression];
  return [...operandsOf(node["left"] as Node, operator), ...operandsOf(node["right"] as Node, operator)];
}

/**
 * `guardsOf("src/filter/filter.ts", text)`; `tables` are constants that hold an array: each of its rows is a guard.
 */
export function guardsOf(file: string, text: string, tables: readonly string[] = []): Guard[] {
  const { program, errors } = parseSync(file, text, { lang: "ts" });
  if (errors.length > 0) throw new Error(`${file}: ${errors[0]!.message}`);
  const found: Guard[] = [];
  let around = "";
  const add = (node: Node, replacement: string): void => {
    const line = text.slice(0, node.start).split("\n").length;
    const shown = text.slice(node.start, node.end).replace(/\s+/g, " ");
    found.push({ file, line, text: shown, inside: around, start: node.start, end: node.end, replacement });
  };
  const addOperands = (expression: Node, operator: "&&" | "||", replacement: string): void => {
    const operands = operandsOf(expression, operator);
    if (operands.length > 1) for (const operand of operands) add(operand, replacement);
  };
  visit(program as unknown as Node, "", (node, inside) => {
    around = inside;
    if (node.type === "IfStatement" && leaves(node["consequent"] as Node)) {
      const test = node["test"] as Node;
      add(test, "false");
      addOperands(test, "||", "false");
    } else if (node.type === "ReturnStatement" && isNode(node["argument"])) {
      const value = bare(node["argument"]);
      addOperands(value, "&&", "true");
      addOperands(value, "||", "false");
      if (value.type === "LogicalExpression" && value["operator"] === "??") {
        const [left, right] = [value["left"] as Node, value["right"] as Node];
        if (/Call|Chain/.test(left.type)) add({ ...value, end: right.start }, "");
      }
    } else if (node.type === "VariableDeclarator" && tables.includes((node["id"] as Node)["name"] as string)) {
      const rows = (node["init"] as Node)["elements"] as Node[];
      for (const row of rows) add(row, text.slice(row.start, row.end).startsWith("[") ? "...[]" : "undefined");
    }
  });
  return found;
}

/** The text without that guard. */
export function without(text: string, guard: Guard): string {
  return text.slice(0, guard.start) + guard.replacement + text.slice(guard.end);
}
