// Regular expressions that match in linear time, for untrusted text. JavaScript's own engine backtracks: with `a*a*b`, 4 KiB of text
// take ten seconds. Syntax and meaning are those of JavaScript with the flag m, without look-around and back-references. A search says
// whether there is a match, not where. (Thompson, "Regular expression search algorithm", 1968.)

/** Maximum number of instructions of a compiled pattern, which is the maximum cost of one step of the search. */
export const PATTERN_SIZE_MAX = 500;

const REPEATS_MAX = 200;

/** Sorted pairs of code units, both ends included. */
type Ranges = readonly (readonly [first: number, last: number])[];

type Assertion = "line start" | "line end" | "word boundary" | "no word boundary";

type Instruction =
  | { readonly is: "char"; readonly ranges: Ranges }
  | { readonly is: "assert"; readonly what: Assertion }
  /** Continues at both. */
  | { readonly is: "split"; readonly to: number; readonly or: number }
  | { readonly is: "match" };

export interface Pattern {
  readonly source: string;
  readonly program: readonly Instruction[];
}

/** The compiled pattern, or why the source is not valid. */
export function compilePattern(source: string): Pattern | { readonly bad: string } {
  try {
    // Users know the messages of JavaScript's parser.
    RegExp(source, "m");
  } catch (error) {
    return { bad: error instanceof Error ? error.message.replace(/^Invalid regular expression: /, "") : "not valid" };
  }
  try {
    const program = generate(new Parser(source).parse());
    return { source, program };
  } catch (error) {
    if (error instanceof Unsupported) return { bad: error.message };
    throw error;
  }
}

class Unsupported extends Error {}

// ---------------------------------------------------------------------- searching

const END = -1;

/** The search for a pattern in a text that arrives in parts. */
export class PatternSearch {
  readonly #program: readonly Instruction[];
  /** Where the search can continue with the next character. */
  #next: number[] = [];
  #before = END;
  /** By instruction, the number of the last step that visited it. */
  readonly #visited: Float64Array;
  #step = 0;
  #found = false;

  constructor({ program }: Pattern) {
    this.#program = program;
    this.#visited = new Float64Array(program.length);
  }

  /** Continues the search. True = the text so far contains a match, with its end taken as the end of a line. */
  push(text: string): boolean {
    for (let i = 0; i < text.length && !this.#found; i++) {
      const char = text.charCodeAt(i);
      const reached = this.#reach(char);
      this.#next = [];
      for (const at of reached) {
        const instruction = this.#program[at];
        if (instruction?.is === "char" && isIn(instruction.ranges, char)) this.#next.push(at + 1);
      }
      this.#before = char;
    }
    if (this.#found) return true;
    this.#reach(END);
    const found = this.#found;
    this.#found = false;
    return found;
  }

  /** The character instructions that can be reached before the character `after`. Sets #found. */
  #reach(after: number): number[] {
    this.#step++;
    const reached: number[] = [];
    // A match may begin anywhere.
    const stack = [...this.#next, 0];
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      if (this.#visited[at] === this.#step) continue;
      this.#visited[at] = this.#step;
      const instruction = this.#program[at];
      switch (instruction?.is) {
        case "char":
          reached.push(at);
          break;
        case "split":
          stack.push(instruction.to, instruction.or);
          break;
        case "assert":
          if (holds(instruction.what, this.#before, after)) stack.push(at + 1);
          break;
        case "match":
          this.#found = true;
          break;
        case undefined:
          throw new Error(`a pattern has no instruction ${at}`);
      }
    }
    return reached;
  }
}

function holds(what: Assertion, before: number, after: number): boolean {
  switch (what) {
    case "line start":
      return before === END || isIn(LINE_ENDS, before);
    case "line end":
      return after === END || isIn(LINE_ENDS, after);
    case "word boundary":
      return isIn(WORD, before) !== isIn(WORD, after);
    case "no word boundary":
      return isIn(WORD, before) === isIn(WORD, after);
  }
}

function isIn(ranges: Ranges, char: number): boolean {
  for (const [first, last] of ranges) if (first <= char && char <= last) return true;
  return false;
}

// ---------------------------------------------------------------------- sets of characters

const CHAR_MAX = 0xffff;
const LINE_ENDS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const DIGIT: Ranges = [[0x30, 0x39]];
const WORD: Ranges = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
// ECMA-262: WhiteSpace and LineTerminator.
const SPACE: Ranges = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];

const CLASSES: Readonly<Record<string, Ranges>> = {
  d: DIGIT,
  D: inverse(DIGIT),
  w: WORD,
  W: inverse(WORD),
  s: SPACE,
  S: inverse(SPACE),
};

const CONTROLS: Readonly<Record<string, number>> = { n: 0x0a, r: 0x0d, t: 0x09, f: 0x0c, v: 0x0b };

function inverse(ranges: Ranges): Ranges {
  const rest: [number, number][] = [];
  let from = 0;
  for (const [first, last] of ranges.toSorted(([a], [b]) => a - b)) {
    if (first > from) rest.push([from, first - 1]);
    from = Math.max(from, last + 1);
  }
  if (from <= CHAR_MAX) rest.push([from, CHAR_MAX]);
  return rest;
}

// ---------------------------------------------------------------------- parsing

type Node =
  | { readonly is: "char"; readonly ranges: Ranges }
  | { readonly is: "assert"; readonly what: Assertion }
  | { readonly is: "sequence"; readonly nodes: readonly Node[] }
  | { readonly is: "either"; readonly nodes: readonly Node[] }
  | { readonly is: "repeat"; readonly node: Node; readonly least: number; readonly most: number };

/** Parses what RegExp has accepted, so anything unexpected here is a feature that is not supported. */
class Parser {
  readonly #source: string;
  #at = 0;

  constructor(source: string) {
    this.#source = source;
  }

  parse(): Node {
    const node = this.#either();
    if (this.#at < this.#source.length)
      throw new Unsupported(`${JSON.stringify(this.#source[this.#at])} is not supported`);
    return node;
  }

  #either(): Node {
    const nodes = [this.#sequence()];
    while (this.#take("|")) nodes.push(this.#sequence());
    return { is: "either", nodes };
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    for (
      let char = this.#source[this.#at];
      char !== undefined && char !== "|" && char !== ")";
      char = this.#source[this.#at]
    ) {
      nodes.push(this.#repeated(this.#atom()));
    }
    return { is: "sequence", nodes };
  }

  #repeated(node: Node): Node {
    const [text, one, least, comma, most] = this.#match(/([*+?])|\{(\d+)(?:(,)(\d*))?\}/y) ?? [];
    if (text === undefined) return node;
    // Lazy or greedy makes no difference to whether there is a match.
    this.#take("?");
    if (one !== undefined) return { is: "repeat", node, least: one === "+" ? 1 : 0, most: one === "?" ? 1 : Infinity };
    const from = Number(least);
    const to = comma === undefined ? from : most === "" ? Infinity : Number(most);
    if (from > REPEATS_MAX || (to > REPEATS_MAX && to !== Infinity)) {
      throw new Unsupported(`${text} repeats more than ${REPEATS_MAX} times`);
    }
    return { is: "repeat", node, least: from, most: to };
  }

  #atom(): Node {
    const char = this.#source[this.#at++] ?? "";
    switch (char) {
      case "(":
        return this.#group();
      case "[":
        return { is: "char", ranges: this.#set() };
      case ".":
        return { is: "char", ranges: inverse(LINE_ENDS) };
      case "^":
        return { is: "assert", what: "line start" };
      case "$":
        return { is: "assert", what: "line end" };
      case "\\":
        if (this.#take("b")) return { is: "assert", what: "word boundary" };
        if (this.#take("B")) return { is: "assert", what: "no word boundary" };
        return { is: "char", ranges: this.#escape() };
      default:
        return { is: "char", ranges: one(char) };
    }
  }

  #group(): Node {
    if (this.#take("?") && !this.#take(":") && this.#match(/<[^=!>]+>/y) === null) {
      throw new Unsupported(
        `(?${this.#source.slice(this.#at, this.#at + 2)} is not supported: neither look-around nor flags`,
      );
    }
    const node = this.#either();
    this.#take(")");
    return node;
  }

  /** After a backslash. */
  #escape(): Ranges {
    const [, hex2, hex4, control] = this.#match(/x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|c([A-Za-z])/y) ?? [];
    if (hex2 !== undefined || hex4 !== undefined)
      return one(String.fromCharCode(Number.parseInt(hex2 ?? hex4 ?? "", 16)));
    if (control !== undefined) return one(String.fromCharCode(control.charCodeAt(0) % 32));
    const char = this.#source[this.#at++] ?? "";
    if (char === "0" && !/\d/.test(this.#source[this.#at] ?? "")) return one("\0");
    if (/[0-9kcxupP]/.test(char)) throw new Unsupported(`\\${char} is not supported here`);
    const known = CONTROLS[char];
    return CLASSES[char] ?? (known === undefined ? one(char) : [[known, known]]);
  }

  /** After [. */
  #set(): Ranges {
    const isInverse = this.#take("^");
    const ranges: (readonly [number, number])[] = [];
    while (!this.#take("]")) {
      const first = this.#member();
      const [, dash] = this.#match(/(-)(?!\])/y) ?? [];
      if (dash === undefined) {
        ranges.push(...first);
        continue;
      }
      const last = this.#member();
      const [[from, fromEnd], [to, toEnd]] = [first[0] ?? [0, -1], last[0] ?? [0, -1]];
      if (first.length === 1 && last.length === 1 && from === fromEnd && to === toEnd) ranges.push([from, to]);
      // A class at one end of a range: the dash is a literal.
      else ranges.push(...first, ...one("-"), ...last);
    }
    return isInverse ? inverse(ranges) : ranges;
  }

  #member(): Ranges {
    const char = this.#source[this.#at++] ?? "";
    if (char !== "\\") return one(char);
    return this.#take("b") ? one("\b") : this.#escape();
  }

  #take(char: string): boolean {
    if (this.#source[this.#at] !== char) return false;
    this.#at++;
    return true;
  }

  #match(sticky: RegExp): RegExpExecArray | null {
    sticky.lastIndex = this.#at;
    const found = sticky.exec(this.#source);
    if (found !== null) this.#at = sticky.lastIndex;
    return found;
  }
}

function one(char: string): Ranges {
  const code = char.charCodeAt(0);
  return [[code, code]];
}

// ---------------------------------------------------------------------- generating

function generate(node: Node): Instruction[] {
  const program: Instruction[] = [];
  const add = (instruction: Instruction): number => {
    if (program.length >= PATTERN_SIZE_MAX) throw new Unsupported("it is too large");
    return program.push(instruction) - 1;
  };
  const emit = (part: Node): void => {
    switch (part.is) {
      case "char":
      case "assert":
        add(part);
        return;
      case "sequence":
        for (const each of part.nodes) emit(each);
        return;
      case "either":
        return emitEither(part.nodes);
      case "repeat":
        return emitRepeat(part);
    }
  };
  const emitEither = (nodes: readonly Node[]): void => {
    const exits: number[] = [];
    for (const [index, each] of nodes.entries()) {
      const isLast = index === nodes.length - 1;
      const fork = isLast ? -1 : add({ is: "split", to: program.length + 1, or: -1 });
      emit(each);
      if (isLast) break;
      exits.push(add({ is: "split", to: -1, or: -1 }));
      program[fork] = { is: "split", to: fork + 1, or: program.length };
    }
    for (const exit of exits) program[exit] = { is: "split", to: program.length, or: program.length };
  };
  const emitRepeat = ({ node: each, least, most }: Extract<Node, { is: "repeat" }>): void => {
    for (let i = 0; i < least; i++) emit(each);
    const forks: number[] = [];
    const optional = most === Infinity ? 1 : most - least;
    for (let i = 0; i < optional; i++) {
      const fork = add({ is: "split", to: program.length + 1, or: -1 });
      forks.push(fork);
      emit(each);
      if (most === Infinity) add({ is: "split", to: fork, or: fork });
    }
    for (const fork of forks) program[fork] = { is: "split", to: fork + 1, or: program.length };
  };
  emit(node);
  add({ is: "match" });
  return program;
}
