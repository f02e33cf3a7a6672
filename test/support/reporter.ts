// The end of a test run: why tests were skipped, and as the last line `N passed, N failed`, with `, N skipped` if there are any. Everything
// above it comes from the default reporter.
import type { Reporter, TestModule } from "vitest/node";

export class Totals implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    let passed = 0;
    let skipped = 0;
    const reasons = new Map<string, number>();
    // An error outside of every test fails the run as well, so the numbers must include it.
    let failed = unhandledErrors.length;
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") passed++;
        else if (result.state === "failed") failed++;
        else skipped++;
        if (result.state !== "skipped" || result.note === undefined) continue;
        reasons.set(result.note, (reasons.get(result.note) ?? 0) + 1);
      }
      // A file that cannot be loaded, or whose hooks fail, has no failed test.
      failed += countSuiteErrors(module);
    }
    const lines = [...reasons].map(([reason, count]) => `${count} skipped: ${reason}`);
    lines.push(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
    // The default reporter writes its summary in the same turn; this comes after it.
    process.once("exit", () => process.stdout.write(`${lines.join("\n")}\n`));
  }
}

function countSuiteErrors(module: TestModule): number {
  let count = module.errors().length;
  for (const suite of module.children.allSuites()) count += suite.errors().length;
  return count;
}
