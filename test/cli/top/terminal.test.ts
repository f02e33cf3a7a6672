import { expect, test } from "vitest";
import { keysOf } from "../../../src/cli/top/terminal.ts";

test.each([
  ["\x1b[A", [{ name: "up" }]],
  ["\x1bOB", [{ name: "down" }]],
  ["\x1b[5~\x1b[6~", [{ name: "pageUp" }, { name: "pageDown" }]],
  ["qä", [{ char: "q" }, { char: "ä" }]],
  ["\x1b", [{ name: "escape" }]],
  ["\x03", [{ name: "interrupt" }]],
  ["\r\x7f", [{ name: "enter" }, { name: "backspace" }]],
  ["\x1b[200~x\x1b[201~", [{ char: "x" }]],
  ["\x1b[1;5C", []],
  ["\x01\x02", []],
])("%j is %j", (data, keys) => {
  expect(keysOf(data)).toEqual(keys);
});
