// Deterministic interleavings of two threads that share memory: one is interrupted by the other at each of its atomic operations in turn.

const OPERATIONS = ["load", "store", "add", "sub", "compareExchange"] as const;

/** Runs `run` and returns its result; `other` runs once in between. */
type Interrupt = <Result>(run: () => Result, other: () => void) => Result;

/**
 * For each atomic operation of what is run: a function that runs it and the other thread's part before that operation. Ends when an
 * interruption would come after the last operation.
 */
export function* interruptions(): Generator<Interrupt> {
  for (let at = 0, reached = true; reached; at++) {
    reached = false;
    yield (run, other) => {
      let operations = 0;
      const originals = OPERATIONS.map((name) => [name, Atomics[name]] as const);
      const restore = (): void => {
        for (const [name, original] of originals) Object.assign(Atomics, { [name]: original });
      };
      for (const [name, original] of originals) {
        const interrupted = (...args: unknown[]): unknown => {
          if (operations++ === at) {
            reached = true;
            restore();
            other();
          }
          return (original as (...args: unknown[]) => unknown)(...args);
        };
        Object.assign(Atomics, { [name]: interrupted });
      }
      try {
        const result = run();
        if (!reached) {
          restore();
          other();
        }
        return result;
      } finally {
        restore();
      }
    };
  }
}

const REAL = OPERATIONS.map((name) => [name, Atomics[name]] as const);

/** Runs what no interruption comes into: for the `other` of one that is inside another. */
export function uninterrupted(run: () => void): void {
  const current = OPERATIONS.map((name) => [name, Atomics[name]] as const);
  for (const [name, real] of REAL) Object.assign(Atomics, { [name]: real });
  run();
  for (const [name, wrapped] of current) Object.assign(Atomics, { [name]: wrapped });
}
