// Takes the screenshots of the dashboard in docs/images, from a real lb in front of small servers with some traffic, and prints the screen
// of `lb top`. Needs dist/lb, Chromium and tmux: bun scripts/screenshots.ts [FOLDER]
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startBrowser } from "../test/support/browser.ts";
import { Tmux } from "../test/support/tmux.ts";

const out = process.argv[2] ?? join(import.meta.dir, "../docs/images");
const binary = join(import.meta.dir, "../dist/lb");
const folder = mkdtempSync(join(tmpdir(), "lb-pictures-"));
const ADMIN = "127.0.0.1:9900";
/** Duration of traffic before the screenshots, so that the charts show something. */
const WARM_UP_MS = 75_000;

/** A server that answers with this many bytes after this many milliseconds. */
function server(port: number, bytes: number, delayMs: number): void {
  const body = "x".repeat(bytes);
  Bun.serve({
    hostname: "127.0.0.1",
    port,
    async fetch() {
      await Bun.sleep(delayMs * Math.random());
      return new Response(body);
    },
  });
}

const CONFIG = `
[listeners.web]
bind = "127.0.0.1:8080"
pool = "web"
[listeners.api]
bind = "127.0.0.1:8081"
pool = "api"
rate_limit = { rate = "40/s", burst = 40 }
[listeners.postgres]
bind = "127.0.0.1:5433"
pool = "postgres"
[pools.web]
balance = "least_connections"
backends = [{ address = "127.0.0.1:9101", name = "web-1" }, { address = "127.0.0.1:9102", name = "web-2" }, { address = "127.0.0.1:9103", name = "web-3", weight = 2 }]
[pools.api]
backends = [{ address = "127.0.0.1:9111", name = "api-1" }, { address = "127.0.0.1:9112", name = "api-2" }, { address = "127.0.0.1:9113", name = "api-3" }]
[pools.postgres]
balance = "first"
backends = [{ address = "127.0.0.1:9121", name = "primary" }, { address = "127.0.0.1:9122", name = "standby", backup = true }]
[log]
access = "off"
`;

async function traffic(url: string, everyMs: number, signal: AbortSignal): Promise<void> {
  for (let i = 0; !signal.aborted; i++) {
    void fetch(url, { headers: { Connection: "close" } })
      .then((response) => response.arrayBuffer())
      .catch(() => undefined);
    // Busy and quiet in turn.
    await Bun.sleep(everyMs * (1 + 0.6 * Math.sin(i / 60)) * (0.5 + Math.random()));
  }
}

for (const port of [9101, 9102, 9103]) server(port, 20_000, 30);
for (const port of [9111, 9112]) server(port, 2000, 80);
server(9121, 100, 1);
server(9122, 100, 1);
const file = join(folder, "lb.toml");
writeFileSync(file, CONFIG);
const lb = Bun.spawn([binary, file], { stdout: "ignore", stderr: "ignore" });
const stop = new AbortController();
try {
  await Bun.sleep(1000);
  void traffic("http://127.0.0.1:8080/", 12, stop.signal);
  void traffic("http://127.0.0.1:8081/", 18, stop.signal);
  for (let i = 0; i < 6; i++)
    await Bun.connect({ hostname: "127.0.0.1", port: 5433, socket: { data: () => undefined } });
  await fetch(`http://${ADMIN}/api/pools/web/backends/web-2`, {
    method: "PATCH",
    headers: { "X-Lb-Admin": "1", "Content-Type": "application/json" },
    body: JSON.stringify({ state: "drain" }),
  });
  await Bun.sleep(WARM_UP_MS);
  mkdirSync(out, { recursive: true });
  const browser = await startBrowser();
  for (const [name, width, height, colorScheme] of [
    ["dashboard-light", 1280, 1000, "light"],
    ["dashboard-dark", 1280, 1000, "dark"],
    ["dashboard-phone", 400, 900, "light"],
    ["dashboard-wall", 2560, 1300, "dark"],
  ] as const) {
    const page = await browser.newPage({ viewport: { width, height }, colorScheme });
    await page.goto(`http://${ADMIN}/`);
    await page.getByText("live", { exact: true }).waitFor();
    await page.waitForTimeout(4000);
    await page.screenshot({ path: join(out, `${name}.png`) });
    await page.close();
  }
  await browser.close();
  using terminal = new Tmux(100, 24);
  terminal.type(`${binary} top --admin ${ADMIN}`);
  terminal.press("Enter");
  await terminal.shows(/web-1/);
  await Bun.sleep(2500);
  console.log(terminal.screen());
} finally {
  stop.abort();
  lb.kill("SIGKILL");
  await lb.exited;
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
