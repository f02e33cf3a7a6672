import { expect, test } from "vitest";
import { padded, printable, table } from "../../src/cli/table.ts";

test("columns are as wide as their widest cell, and numbers stand to the right", () => {
  const rows = [
    { name: "a", open: 7 },
    { name: "longer", open: 12_345 },
  ];
  const lines = table<(typeof rows)[number]>(
    [
      { title: "NAME", cell: ({ name }) => name },
      { title: "OPEN", align: "right", cell: ({ open }) => String(open) },
    ],
    rows,
  );
  expect(lines).toEqual(["NAME     OPEN", "a           7", "longer  12345"]);
});

test("a column without a word in it is left out, unless there are no rows", () => {
  const columns = [
    { title: "A", cell: (row: string) => row },
    { title: "B", cell: () => "" },
  ];
  expect(table(columns, ["x"])).toEqual(["A", "x"]);
  expect(table(columns, [])).toEqual(["A  B"]);
});

test("control characters are shown as question marks", () => {
  expect(printable("a\x1b[31mb\n\u202Ec\u0085")).toBe("a?[31mb??c?");
  expect(table([{ title: "A", cell: (row: string) => row }], ["\x1b]0;x\x07"])).toEqual(["A", "?]0;x?"]);
});

test("wide characters take two columns", () => {
  expect(padded("数", 4, "left")).toBe("数  ");
  expect(padded("数", 4, "right")).toBe("  数");
});
