import { describe, expect, test } from "vitest";
import { FIRST_STATE, press, shownRows, type Key, type Outcome, type TopState } from "../../../src/cli/top/state.ts";
import { NO_DATA, viewOf, type TopData } from "../../../src/cli/top/views.ts";
import { pairOf } from "../../../src/observe/figures.ts";
import { CLIENT, CONNECTION } from "../../support/live-lists.ts";
import { filledSnapshot } from "../../support/snapshot.ts";

const snapshot = filledSnapshot();
snapshot.pools[0]!.backends.forEach((backend, i) => {
  backend.name = `b${i + 1}`;
  backend.open = [5, 20, 1][i]!;
});
const data: TopData = {
  ...NO_DATA,
  pair: pairOf(snapshot, null),
  answeredAtMs: Date.parse("2026-01-02T03:14:06.000Z"),
  connections: { total: 1, connections: [CONNECTION] },
  clients: [CLIENT],
};

/** The result of keys one after the other: characters, and the names of other keys in braces. */
function pressed(keys: string, state: TopState = FIRST_STATE): Outcome {
  let outcome: Outcome = { state };
  for (const [part] of keys.matchAll(/\{\w+\}|./g)) {
    const key = (part.startsWith("{") ? { name: part.slice(1, -1) } : { char: part }) as Key;
    outcome = press(outcome.state, key, data, 10);
  }
  return outcome;
}

const names = (state: TopState): string[] => shownRows(state, viewOf(state.view, data)).map(({ key }) => key);

test("digits, arrows and Tab change the view", () => {
  expect(pressed("1").state.view).toBe("listeners");
  expect(pressed("{right}").state.view).toBe("clients");
  expect(pressed("{left}{left}{left}").state.view).toBe("workers");
  expect(pressed("6{tab}").state.view).toBe("listeners");
});

test("sorts by the next column, largest numbers first, and reverses", () => {
  expect(names(FIRST_STATE)).toEqual(["app/b1", "app/b2", "app/b3"]);
  const byOpen = pressed("ssssss").state;
  expect(viewOf("backends", data).columns[byOpen.sort.backends.column]!.title).toBe("OPEN");
  expect(names(byOpen)).toEqual(["app/b2", "app/b1", "app/b3"]);
  expect(names(pressed("r", byOpen).state)).toEqual(["app/b3", "app/b1", "app/b2"]);
  expect(names(pressed("s<<", FIRST_STATE).state)).toHaveLength(3);
});

test("the sort order cycles through the columns and the config's order", () => {
  const count = viewOf("backends", data).columns.length;
  expect(pressed("s".repeat(count + 1)).state.sort.backends.column).toBe(-1);
  expect(pressed("<").state.sort.backends.column).toBe(count - 1);
});

test("a filter keeps the rows with every word, and Esc removes it", () => {
  const filtered = pressed("/B2 app{enter}").state;
  expect(names(filtered)).toEqual(["app/b2"]);
  expect(filtered.mode.is).toBe("browse");
  expect(names(pressed("/b2x{backspace}").state)).toEqual(["app/b2"]);
  expect(names(pressed("{escape}", filtered).state)).toHaveLength(3);
  expect(pressed("/q").state.filter).toBe("q");
});

describe("changes need confirmation with y", () => {
  test("drain, and ready for a drained backend", () => {
    const asked = pressed("{down}d");
    expect(asked.request).toBeUndefined();
    expect(asked.state.mode).toMatchObject({ is: "confirm", action: { question: expect.stringMatching(/app\/b2\?/) } });
    expect(pressed("y", asked.state).request).toEqual({
      method: "PATCH",
      path: "/api/pools/app/backends/b2",
      body: { state: "drain" },
    });
    const no = pressed("n", asked.state);
    expect(no.request).toBeUndefined();
    expect(no.state).toMatchObject({ mode: { is: "browse" }, message: "nothing was changed" });
    expect(pressed("q", asked.state).quit).toBeUndefined();
  });

  test("weight, where empty input means the config's weight", () => {
    expect(pressed("w12{enter}y").request).toMatchObject({ path: "/api/pools/app/backends/b1", body: { weight: 12 } });
    expect(pressed("w{enter}y").request).toMatchObject({ body: { weight: null } });
    expect(pressed("w1x2{enter}").state.mode).toMatchObject({ action: { question: "give app/b1 weight 12?" } });
    expect(pressed("w999{enter}").state).toMatchObject({ mode: { is: "weight" }, message: "a weight is 0 to 256" });
    expect(pressed("w5{escape}").state.mode.is).toBe("browse");
  });

  test("kill of a connection, and of all connections of a client", () => {
    expect(pressed("5xy").request).toEqual({ method: "DELETE", path: "/api/connections/17" });
    const all = pressed("4x");
    expect(all.state.mode).toMatchObject({
      action: { question: expect.stringMatching(/end 3 connections of 192.0.2.1/) },
    });
    expect(pressed("y", all.state).request).toMatchObject({ query: { client: "192.0.2.1" } });
  });

  test("and a selected row", () => {
    expect(pressed("1d").state).toMatchObject({ mode: { is: "browse" }, message: expect.stringMatching(/select/) });
    expect(pressed("5d").state.message).toBe("this is for backends");
  });
});

test("the selection stays on its row while rows come and go", () => {
  const { selected } = pressed("{end}").state;
  expect(selected).toBe("app/b3");
  expect(pressed("{up}{up}{up}", pressed("{end}").state).state.selected).toBe("app/b1");
  expect(pressed("{pageDown}").state.selected).toBe("app/b3");
  expect(pressed("k", { ...FIRST_STATE, selected: "app/gone" }).state.selected).toBe("app/b1");
});

test("q and Ctrl-C quit, Ctrl-C from anywhere", () => {
  expect(pressed("q").quit).toBe(true);
  expect(pressed("/abc{interrupt}").quit).toBe(true);
  expect(pressed("w{interrupt}").quit).toBe(true);
});

test("any key closes the help, and p pauses", () => {
  expect(pressed("?").state.mode.is).toBe("help");
  expect(pressed("?q")).toMatchObject({ state: { mode: { is: "browse" } } });
  expect(pressed("p").state.paused).toBe(true);
  expect(pressed("pp").state.paused).toBe(false);
});
