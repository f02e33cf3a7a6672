// What the tests of a file or of a group share: made before the first of them, ended after the last. Where it needs a program
// that this machine lacks, the tests say so and skip. And what a single test leaves to be undone.
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";

/** Gives back what it was given, which ends after the tests; what was kept last ends first. */
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

/** What a test puts in here is called after it, the last first. */
export function calledAfterEach(): (() => unknown)[] {
  const calls: (() => unknown)[] = [];
  afterEach(async () => {
    for (const call of calls.splice(0).toReversed()) await call();
  });
  return calls;
}
