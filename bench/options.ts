// The command line of the bench.
import { parseArgs } from "node:util";

export interface Options {
  rounds: number;
  /** Seconds of load before each measurement. */
  warmSeconds: number;
  /** Seconds of measured load. */
  seconds: number;
  /** Names of the scenarios to run; empty = all. */
  only: string[];
  /** Whether the proxies have a CPU of their own, and the load uses the others. */
  pinned: boolean;
  /** Another lb binary to compare with instead of haproxy and nginx; "" = none. */
  against: string;
  /** Whether the run is long and complete enough to be recorded. */
  kept: boolean;
}

export const usage = `bun bench/run.ts [--quick] [--only NAME]... [--rounds N] [--against BINARY] [--free]

  --quick           a short, rough run
  --only NAME       this scenario alone; may be given several times
  --rounds N        rounds instead of 5, or of 9 with --against
  --against BINARY  compare this build of lb with another one, instead of with haproxy and nginx
  --free            let the kernel place the processes, instead of one processor for the proxy and the others for the load

Only a whole run (no --quick, no --only, no --against, no --free, at least 5 rounds) is written to bench/RESULTS.md.`;

const roundsOfWholeRun = 5;
/** Enough rounds for an interval that resolves one per cent on a quiet machine. */
const roundsAgainst = 9;

/** The options, or a sentence that says what is wrong with them. */
export function parseOptions(args: string[], scenarios: string[]): Options | string {
  const { values } = parseArgs({
    args,
    strict: false,
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      rounds: { type: "string" },
      against: { type: "string", default: "" },
      free: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const known = ["quick", "only", "rounds", "against", "free", "help"];
  const stranger = Object.keys(values).find((name) => !known.includes(name));
  if (stranger !== undefined || values.help === true) return usage;
  const only = (values.only as string[]).flatMap((names) => names.split(","));
  const unknown = only.find((name) => !scenarios.includes(name));
  if (unknown !== undefined) return `no scenario "${unknown}"; there are: ${scenarios.join(", ")}`;
  const quick = values.quick === true;
  const against = values.against as string;
  const rounds = Number(values.rounds ?? (quick ? 1 : against === "" ? roundsOfWholeRun : roundsAgainst));
  if (!Number.isInteger(rounds) || rounds < 1) return "--rounds wants a whole number of at least 1";
  const pinned = values.free !== true;
  return {
    rounds,
    warmSeconds: 1,
    seconds: quick ? 1 : 3,
    only,
    pinned,
    against,
    kept: !quick && against === "" && only.length === 0 && pinned && rounds >= roundsOfWholeRun,
  };
}
