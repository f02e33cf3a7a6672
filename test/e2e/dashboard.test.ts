// The dashboard of a running lb in a real browser.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { source as axeSource, type AxeResults } from "axe-core";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { noBrowser, startBrowser, watch, type Watched } from "../support/browser.ts";
import { connect } from "../support/client.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";

let browser: Browser;
let backends: Backend[];
let pages: Page[] = [];

beforeAll(async () => {
  if (noBrowser !== null) return;
  browser = await startBrowser();
  backends = [await echo(), await echo()];
});
afterAll(async () => {
  await browser?.close();
  backends?.forEach((backend) => backend.stop());
});
beforeEach((context) => {
  if (noBrowser !== null) context.skip(noBrowser);
  backends.forEach((backend) => backend.start());
});
afterEach(async () => {
  await Promise.all(pages.map((page) => page.context().close()));
  pages = [];
});

const config = (port: number, more = ""): string => `${more}
[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
[pools.app]
backends = [{ address = "${backends[0]!.address}", name = "one" }, { address = "${backends[1]!.address}", name = "two" }]
health = { interval = "200ms", fall = 1, rise = 1 }
`;

async function open(lb: Lb, options: BrowserContextOptions = {}): Promise<{ page: Page; seen: Watched }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  pages.push(page);
  const seen = watch(page);
  await page.goto(`${lb.adminUrl}/`);
  return { page, seen };
}

const row = (page: Page, table: string, name: string): ReturnType<Page["locator"]> =>
  page.getByRole("region", { name: table, exact: true }).getByRole("row").filter({ hasText: name });

/** The browser's globals that the tests use; their types differ from Bun's. */
interface InPage {
  getComputedStyle(element: unknown): { color: string };
  axe: { run(): Promise<AxeResults> };
}

/** A colour of the style sheet in the theme of the page: "rgb(1, 2, 3)". */
function colourOf(page: Page, property: string): Promise<unknown> {
  return page.evaluate(`(() => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = "var(${property})";
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  })()`);
}

/** The findings of axe-core in the page, one line each. */
async function violations(page: Page): Promise<string[]> {
  // The page's policy allows no script from elsewhere; the debugger's evaluation is exempt.
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => (globalThis as unknown as InPage).axe.run());
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`),
  );
}

test("shows a running lb, asks nothing of others, and a backend that dies turns red by itself", async () => {
  const port = await freePort();
  await using lb = await startLb(config(port));
  const { page, seen } = await open(lb);
  await page.getByText("live", { exact: true }).waitFor();
  expect(await page.getByRole("heading", { level: 1 }).innerText()).toMatch(/^lb \d/);
  await row(page, "Backends", "two").getByText("up", { exact: true }).waitFor();
  await row(page, "Listeners", "web").getByText("ready", { exact: true }).waitFor();

  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  await row(page, "Live connections", client.address).getByText("relaying").waitFor();

  backends[1]!.stop();
  await row(page, "Backends", "two").getByText("down", { exact: true }).waitFor();
  await row(page, "Backends", "two").getByText("connection refused").waitFor();
  const badge = row(page, "Backends", "two").getByText("down", { exact: true });
  const colour = await badge.evaluate((element) => (globalThis as unknown as InPage).getComputedStyle(element).color);
  expect(colour).toBe(await colourOf(page, "--bad"));
  await page
    .getByRole("list", { name: "Changes" })
    .getByText(/backend down .*backend=two/)
    .waitFor();
  backends[1]!.start();
  await row(page, "Backends", "two").getByText("up", { exact: true }).waitFor();

  expect(seen.errors).toEqual([]);
  expect(new Set(seen.requests.map((url) => new URL(url).origin).filter((origin) => origin !== "null"))).toEqual(
    new Set([lb.adminUrl]),
  );
});

test("kills a connection after a confirmation", async () => {
  const port = await freePort();
  await using lb = await startLb(config(port));
  const { page } = await open(lb);
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  const line = row(page, "Live connections", client.address);
  await line.getByRole("button", { name: /^Kill/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  expect(await client.echoes()).toBe(true);
  await line.getByRole("button", { name: /^Kill/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Kill" }).click();
  expect(await client.ended).toBe("reset");
  await line.waitFor({ state: "detached" });
  expect(await lb.lineOf(client)).toMatchObject({ end: "killed", end_by: "lb" });
});

test("drains a backend in the dialog, ends its connections later, and makes it ready again", async () => {
  const port = await freePort();
  await using lb = await startLb(config(port).replace('name = "two" }', 'name = "two", backup = true }'));
  const { page } = await open(lb);
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  const line = row(page, "Backends", "one");
  await row(page, "Backends", "two").getByText("backup").waitFor();
  const change = async (state: string, timeout = ""): Promise<void> => {
    await line.getByRole("button", { name: "Change app/one" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("radio", { name: `${state}:` }).check();
    if (timeout !== "") await dialog.getByLabel("End what still lives after").fill(timeout);
    await dialog.getByRole("button", { name: "Apply" }).click();
    await dialog.waitFor({ state: "detached" });
  };

  await change("Drain");
  await line.getByText("drain", { exact: true }).waitFor();
  await line.getByText("drain by API").waitFor();
  expect(await client.echoes()).toBe(true);
  await change("Drain", "0s");
  expect(await client.ended).toBe("reset");
  expect(await lb.lineOf(client)).toMatchObject({ backend: "one", end: "drain" });
  await change("Ready");
  await line.getByText("up", { exact: true }).waitFor();
});

describe("with a token", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "lb-dashboard-"));
    await writeFile(join(folder, "token"), "the-right-token");
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test("asks for it, refuses a wrong one, and keeps it out of every URL", async () => {
    const admin = await freePort();
    const text = config(
      await freePort(),
      `[admin]\nbind = "127.0.0.1:${admin}"\ntoken_file = "${join(folder, "token")}"\n`,
    );
    await using lb = await startLb(text);
    const context = await browser.newContext();
    const page = await context.newPage();
    pages.push(page);
    const seen = watch(page);
    await page.goto(`http://127.0.0.1:${admin}/`);
    const field = page.getByLabel("Token");
    await field.fill("wrong");
    await page.getByRole("button", { name: "Open" }).click();
    await page.getByText("lb does not accept this token").waitFor();
    expect(await violations(page)).toEqual([]);
    await field.fill("the-right-token");
    await page.getByRole("button", { name: "Open" }).click();
    await row(page, "Backends", "one").getByText("up", { exact: true }).waitFor();
    expect(seen.requests.filter((url) => url.includes("token"))).toEqual([]);
    await page.getByRole("button", { name: "Forget token" }).click();
    await page.getByLabel("Token").waitFor();
    expect(lb.running).toBe(true);
  });
});

describe("for everyone", () => {
  test.each(["light", "dark"] as const)("axe-core finds nothing in the %s page or its dialogs", async (colorScheme) => {
    const port = await freePort();
    await using lb = await startLb(config(port));
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
    const { page } = await open(lb, { colorScheme });
    await row(page, "Live connections", client.address).waitFor();
    expect(await violations(page)).toEqual([]);
    await row(page, "Backends", "one").getByRole("button", { name: "Change app/one" }).click();
    await page
      .getByRole("dialog")
      .getByLabel(/^Weight/)
      .waitFor();
    expect(await violations(page)).toEqual([]);
  });

  test("the page and its charts have the system's theme, or the one that the button chooses", async () => {
    await using lb = await startLb(config(await freePort()));
    const { page } = await open(lb, { colorScheme: "dark" });
    const ground = (): Promise<unknown> => page.evaluate("getComputedStyle(document.body).backgroundColor");
    const chartHas = async (property: string): Promise<unknown> => {
      const colour = String(await colourOf(page, property)).match(/\d+/g);
      return page.evaluate(`(() => {
        const canvas = document.querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const [r, g, b] = [${colour?.join(", ")}];
        for (let i = 0; i < data.length; i += 4)
          if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255) return true;
        return false;
      })()`);
    };
    const [light, dark] = ["rgb(244, 245, 247)", "rgb(15, 19, 24)"];
    const button = page.getByRole("button", { name: "Theme" });
    await button.waitFor();
    await page.locator("canvas").first().waitFor();
    const steps = [
      { step: () => Promise.resolve(), theme: dark },
      { step: () => page.emulateMedia({ colorScheme: "light" }), theme: light },
      { step: () => page.emulateMedia({ colorScheme: "dark" }), theme: dark },
      { step: () => button.click(), theme: light },
      { step: () => button.click(), theme: dark },
      { step: () => page.emulateMedia({ colorScheme: "light" }), theme: dark },
      { step: () => button.click(), theme: light },
    ];
    for (const { step, theme } of steps) {
      await step();
      await expect.poll(ground).toBe(theme);
      await expect.poll(() => chartHas("--line")).toBe(true);
    }
  });

  test.each([400, 1280, 2560])("nothing but tables scrolls sideways at %d px", async (width) => {
    await using lb = await startLb(config(await freePort()));
    const { page } = await open(lb, { viewport: { width, height: 900 } });
    await row(page, "Backends", "one").waitFor();
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
  });

  test("the keyboard reaches sorting, and Esc leaves a dialog", async () => {
    await using lb = await startLb(config(await freePort()));
    const { page } = await open(lb);
    const names = (): Promise<string[]> =>
      page.getByRole("region", { name: "Backends", exact: true }).locator("tbody tr td:nth-child(2)").allInnerTexts();
    await row(page, "Backends", "one").waitFor();
    const title = page.getByRole("region", { name: "Backends", exact: true }).getByRole("button", { name: "Backend" });
    await title.focus();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Enter");
    await expect.poll(names).toEqual(["two", "one"]);
    await row(page, "Backends", "two").getByRole("button", { name: "Change app/two" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
  });
});

test("asks for nothing while it is hidden or paused", async () => {
  await using lb = await startLb(config(await freePort()));
  const { page, seen } = await open(lb);
  await page.getByText("live", { exact: true }).waitFor();
  const hide = (hidden: boolean): Promise<unknown> =>
    page.evaluate(`
      Object.defineProperty(document, "hidden", { value: ${hidden}, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));`);
  await hide(true);
  await page.getByText("paused", { exact: true }).waitFor();
  const before = seen.requests.length;
  // Longer than any pause between two requests.
  await page.waitForTimeout(2500);
  expect(seen.requests.length).toBe(before);
  await hide(false);
  await page.getByText("live", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("paused", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("live", { exact: true }).waitFor();
});

test("loads itself again when lb was replaced by another version", async () => {
  await using lb = await startLb(config(await freePort()));
  const status = await lb.status();
  const context = await browser.newContext();
  const page = await context.newPage();
  pages.push(page);
  let loads = 0;
  page.on("load", () => loads++);
  // A stream that ends with its first event: the page connects again, and finds another version.
  const versions = ["1.0.0", "1.0.0"];
  await page.route("**/api/events*", (route) => {
    const data = JSON.stringify({ ...status, version: versions.shift() ?? "1.0.1" });
    return route.fulfill({ contentType: "text/event-stream", body: `event: snapshot\ndata: ${data}\n\n` });
  });
  await page.goto(`${lb.adminUrl}/`);
  await page.getByRole("heading", { level: 1 }).getByText("1.0.0").waitFor();
  await page.getByRole("heading", { level: 1 }).getByText("1.0.1").waitFor();
  expect([loads, versions]).toEqual([2, []]);
});

test("shows that lb is gone, keeps the last figures, and continues when lb is back", async () => {
  const [port, admin] = [await freePort(), await freePort()];
  const text = config(port, `[admin]\nbind = "127.0.0.1:${admin}"\n`);
  const first = await startLb(text);
  const context = await browser.newContext();
  const page = await context.newPage();
  pages.push(page);
  await page.goto(`http://127.0.0.1:${admin}/`);
  await row(page, "Backends", "one").waitFor();
  process.kill(first.pid, "SIGKILL");
  await first.exited;
  await page.getByText(/^No answer from lb/).waitFor();
  expect(await row(page, "Backends", "one").count()).toBe(1);
  await using second = await startLb(text);
  await page.getByText("live", { exact: true }).waitFor();
  expect(second.running).toBe(true);
  await first.stop();
});

test("1,000 backends and 200 listeners stay usable", async () => {
  const listeners = Array.from(
    { length: 200 },
    (_, i) => `[listeners.l${i}]\nbind = "127.0.0.9:${20_000 + i}"\npool = "app"\n`,
  ).join("");
  const many = Array.from({ length: 1000 }, (_, i) => `{ address = "127.0.1.${i % 250}:${1000 + i}", name = "b${i}" }`);
  await using lb = await startLb(
    `workers = 1\n${listeners}[pools.app]\nbackends = [${many.join(",")}]\nhealth = { type = "off" }\n`,
  );
  const { page } = await open(lb);
  await row(page, "Backends", "b0").first().waitFor();
  const inPage = (): Promise<number> => page.locator("tr").count();
  expect(await inPage()).toBeLessThan(200);
  await page.getByRole("searchbox", { name: "Search backends" }).fill("b777");
  await expect
    .poll(() => page.getByRole("region", { name: "Backends", exact: true }).locator("tbody tr").count())
    .toBe(1);
  await page.getByRole("searchbox", { name: "Search backends" }).fill("");
  await page.getByRole("region", { name: "Backends", exact: true }).evaluate((place) => {
    place.scrollTop = place.scrollHeight;
  });
  await row(page, "Backends", "b999").waitFor();
  expect(await inPage()).toBeLessThan(250);
});
