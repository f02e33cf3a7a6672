import { expect, test } from "vitest";
import { callsPer } from "../../bench/strace.ts";

const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 78.05    1.310748          14      4000           sendto
  0.01    0.000231          25        10         9 connect
------ ----------- ----------- --------- --------- ----------------
100.00    1.310979          14      4010         9 total
`;

test("counts each call for one exchange, with errors or without", () => {
  expect([...callsPer(10, table)]).toEqual([
    ["sendto", 400],
    ["connect", 1],
  ]);
});

test("refuses a table without a call, which would look like a proxy that does nothing", () => {
  expect(() => callsPer(10, table.split("\n").slice(0, 2).join("\n"))).toThrow("counted nothing");
});
