// Set-up that the tests of a file or of a group share: made before the first of them, ended after the last. If it needs a program that this
// machine lacks, the tests skip with the reason. And clean-up of single tests.
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";

/** Returns its argument, which ends after the tests, in reverse order. */
type Keep = <T extends Disposable | AsyncDisposable>(thing: T | Promise<T>) => Promise<T>;

export function setUp(make: (keep: Keep) => Promise<void>): void {
  const kept = new AsyncDisposableStack();
  beforeAll(() => make(async (thing) => kept.use(await thing)));
  afterAll(() => kept.disposeAsync());
}

/** The same, unless something is `missing`: then nothing is made, and every test skips with this reason. */
export function setUpUnless(missing: string | null, make: (keep: Keep) => Promise<void>): void {
  if (missing === null) setUp(make);
  else beforeEach((context) => context.skip(missing));
}

/** Functions in this list are called after the test, in reverse order. */
export function calledAfterEach(): (() => unknown)[] {
  const calls: (() => unknown)[] = [];
  afterEach(async () => {
    for (const call of calls.splice(0).toReversed()) await call();
  });
  return calls;
}
