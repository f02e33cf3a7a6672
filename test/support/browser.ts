// Debian's Chromium, driven by Playwright.
import { existsSync } from "node:fs";
import { chromium, type Browser, type Page } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executable = PLACES.find((path) => existsSync(path));

/** Why there is no browser here, or null. */
export const noBrowser = executable === undefined ? "chromium is not installed" : null;

export function startBrowser(): Promise<Browser> {
  // Its sandbox needs user namespaces, which containers and root do not have; the page is ours.
  return chromium.launch({ executablePath: executable!, args: ["--no-sandbox", "--disable-gpu"] });
}

/** The errors of a page so far, and its requests. */
export interface Watched {
  errors: string[];
  requests: string[];
}

/** Records errors on the console, uncaught errors, failed requests, and every URL. */
export function watch(page: Page): Watched {
  const seen: Watched = { errors: [], requests: [] };
  page.on("console", (message) => {
    if (message.type() === "error") seen.errors.push(message.text());
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("request", (request) => seen.requests.push(request.url()));
  return seen;
}
