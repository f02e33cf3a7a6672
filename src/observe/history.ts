// The last ten minutes of the whole process, one point per second, as plain data: the answer of /api/history, so its keys are a public
// interface.
import * as v from "valibot";

const point = v.object({
  at: v.pipe(v.number(), v.description("Seconds since the epoch.")),
  open: v.pipe(v.number(), v.description("Open connections.")),
  accepted: v.pipe(v.number(), v.description("New connections per second, as all below.")),
  refused: v.number(),
  bytes_in: v.number(),
  bytes_out: v.number(),
});
/** One second of the whole process. */
export type Point = v.InferOutput<typeof point>;

export const history = v.object({
  points: v.pipe(v.array(point), v.description("The oldest first; one a second, at most ten minutes.")),
});
