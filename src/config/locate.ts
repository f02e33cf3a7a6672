// Where each key of a TOML text stands. A scanner over text that smol-toml has already accepted: it follows keys, tables
// and arrays and steps over all other values, in one pass. Only made when there is a problem to place.
import type { KeyPath } from "./problem.ts";

/** Counted from 1; columns in UTF-16 units, as editors count them. */
export interface Place {
  line: number;
  column: number;
}

/**
 * Finds the place of a key path in valid TOML. A key's place is the key itself, also where its value is what is wrong: in
 * `[pools.web]` the place of pools.web is `web`. An array element's place is the element. What is not in the text (a
 * missing key) has the place of the nearest thing above it that is.
 */
export function locator(text: string): (path: KeyPath) => Place {
  const root = new Scanner(text).document();
  const lineStarts = startsOfLines(text);
  return (path) => {
    let node = root;
    for (const part of path) {
      const below = node.children?.get(part);
      if (below === undefined) break;
      node = below;
    }
    return placeOf(node.at, lineStarts);
  };
}

/** A key or an array element: where it stands, and what is below it. `length` counts the elements of an array of tables. */
interface Node {
  at: number;
  length: number;
  children: Map<string | number, Node> | null;
}

/** Walks valid TOML. Whatever it meets, it goes forward, so it ends on any text. */
class Scanner {
  private readonly text: string;
  private position = 0;

  constructor(text: string) {
    this.text = text;
  }

  document(): Node {
    const root: Node = { at: 0, length: 0, children: null };
    let table = root;
    if (this.text.startsWith("\uFEFF")) this.position++;
    for (;;) {
      this.skipBlank();
      if (this.position >= this.text.length) return root;
      if (this.peek() === "[") table = this.header(root);
      else this.pair(table);
    }
  }

  /** `[a.b]` or `[[a.b]]` → the node that the lines below it fill. */
  private header(root: Node): Node {
    const isArray = this.text.startsWith("[[", this.position);
    this.position += isArray ? 2 : 1;
    const keys = this.keys("]");
    this.position = Math.min(this.text.length, this.position + (isArray ? 2 : 1));
    const last = keys.pop();
    if (last === undefined) return root;
    let node = root;
    for (const key of keys) node = lastElement(child(node, key.name, key.at));
    const named = child(node, last.name, last.at);
    if (!isArray) {
      // `[a.b]` may come after `[a.b.c]`, which made the node; what the user looks for is the header of its own.
      named.at = last.at;
      return named;
    }
    return child(named, named.length++, last.at);
  }

  /** `a.b = value` in a table or an inline table. */
  private pair(table: Node): void {
    const before = this.position;
    let node = table;
    for (const key of this.keys("=")) node = child(node, key.name, key.at);
    if (this.peek() === "=") this.position++;
    this.skipSpace();
    this.value(node);
    if (this.position === before) this.position++;
  }

  /** Dotted keys up to `end`, which is left to be read. */
  private keys(end: string): { name: string; at: number }[] {
    const keys: { name: string; at: number }[] = [];
    for (;;) {
      this.skipSpace();
      const at = this.position;
      const next = this.peek();
      if (next === '"' || next === "'") keys.push({ name: this.string(), at });
      else if (next === ".") this.position++;
      else {
        const bare = this.match(/[A-Za-z0-9_-]+/y);
        if (bare === "" || next === end) return keys;
        keys.push({ name: bare, at });
      }
    }
  }

  private value(node: Node): void {
    const next = this.peek();
    if (next === '"' || next === "'") this.string();
    else if (next === "[") this.array(node);
    else if (next === "{") this.inlineTable(node);
    else this.match(/[^,\]}#\r\n]+/y);
  }

  private array(node: Node): void {
    this.position++;
    for (let index = 0; ; index++) {
      this.skipBlank();
      const next = this.peek();
      if (next === "]" || next === "") break;
      const before = this.position;
      this.value(child(node, index, before));
      this.skipBlank();
      if (this.peek() === ",") this.position++;
      if (this.position === before) this.position++;
    }
    this.position++;
  }

  private inlineTable(node: Node): void {
    this.position++;
    for (;;) {
      this.skipBlank();
      const next = this.peek();
      if (next === "}" || next === "") break;
      this.pair(node);
      this.skipBlank();
      if (this.peek() === ",") this.position++;
    }
    this.position++;
  }

  /** A string of any of the four forms; answers its value, which matters for keys only. */
  private string(): string {
    const quote = this.peek();
    const long = quote.repeat(3);
    const isLong = this.text.startsWith(long, this.position);
    const start = (this.position += isLong ? 3 : 1);
    for (;;) {
      const next = this.peek();
      if (next === "") break;
      if (next === "\\" && quote === '"') this.position += 2;
      else if (isLong ? this.text.startsWith(long, this.position) : next === quote) break;
      else this.position++;
    }
    const raw = this.text.slice(start, this.position);
    this.position += isLong ? 3 : 1;
    // Up to two quotes may stand right before the closing three.
    if (isLong) this.match(quote === '"' ? /"{1,2}/y : /'{1,2}/y);
    return quote === '"' ? unescape(raw) : raw;
  }

  private skipSpace(): void {
    this.match(/[ \t]+/y);
  }

  /** Over white space, ends of lines and comments. */
  private skipBlank(): void {
    while (this.match(/[ \t\r\n]+|#[^\n]*/y) !== "");
  }

  private match(pattern: RegExp): string {
    pattern.lastIndex = this.position;
    const found = pattern.exec(this.text)?.[0] ?? "";
    this.position += found.length;
    return found;
  }

  private peek(): string {
    return this.text[this.position] ?? "";
  }
}

function child(node: Node, name: string | number, at: number): Node {
  node.children ??= new Map();
  let found = node.children.get(name);
  if (found === undefined) node.children.set(name, (found = { at, length: 0, children: null }));
  return found;
}

/** `[a.b]` below `[[a]]` speaks of the last element of a. */
function lastElement(node: Node): Node {
  return node.length === 0 ? node : (node.children?.get(node.length - 1) ?? node);
}

function unescape(raw: string): string {
  const simple: Record<string, string> = { b: "\b", t: "\t", n: "\n", f: "\f", r: "\r", e: "\u001b" };
  return raw.replace(/\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))/gs, (_, u, big, x, one) => {
    const code: string | undefined = u ?? big ?? x;
    if (code === undefined) return simple[one] ?? one;
    const point = Number.parseInt(code, 16);
    return point <= 0x10ffff ? String.fromCodePoint(point) : "";
  });
}

function startsOfLines(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}

function placeOf(at: number, starts: number[]): Place {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] ?? 0) <= at) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: at - (starts[low] ?? 0) + 1 };
}
