import { expect, test, vi } from "vitest";
import { pause } from "../../src/dashboard/pause.ts";

test("a pause ends with its time or with the signal, and leaves no listener on the signal", async () => {
  const abort = new AbortController();
  const added = vi.spyOn(abort.signal, "addEventListener");
  const removed = vi.spyOn(abort.signal, "removeEventListener");
  await pause(1, abort.signal);
  await pause(1, abort.signal);
  const endless = pause(1e8, abort.signal);
  abort.abort();
  await endless;
  expect(added).toHaveBeenCalledTimes(3);
  expect(removed.mock.calls).toEqual(added.mock.calls);
});
