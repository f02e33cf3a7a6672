// The last ten minutes of the whole process, one point per second, as plain data: the answer of /api/history, so its keys are a public
// interface.
import * as v from "valibot";
import { said } from "./said.ts";

const point = v.object({
  at: said(v.number(), "Seconds since the epoch."),
  open: said(v.number(), "Open connections."),
  accepted: said(v.number(), "New connections per second, as all below."),
  refused: v.number(),
  bytes_in: v.number(),
  bytes_out: v.number(),
});
/** One second of the whole process. */
export type Point = v.InferOutput<typeof point>;

export const history = v.object({
  points: said(v.array(point), "The oldest first; one a second, at most ten minutes."),
});
