// `lb demo`: three small HTTP backends, a config for them in a temporary file, and suggestions to try. Everything is on the loopback
// interface, and nothing is left behind.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";

const NAMES = ["A", "B", "C"] as const;
const LISTEN_PORT = 8080;
const ADMIN_PORT = 9900;
/** How many further ports are tried if one is in use. */
const PORTS_TRIED = 100;
const STOPPED_FOR_SECONDS = 15;
/** The lines are printed when lb responds, or after this time. */
const READY_WITHIN_MS = 900;

/** `run` runs lb with a config file until it stops, and returns the exit code, as this function does. */
export async function demo(run: (file: string) => Promise<number>): Promise<number> {
  const listenPort = freePort(LISTEN_PORT);
  const adminPort = freePort(ADMIN_PORT, listenPort);
  if (listenPort === null || adminPort === null) {
    console.error(`lb demo: no free port on 127.0.0.1 from ${listenPort === null ? LISTEN_PORT : ADMIN_PORT} on`);
    return 1;
  }
  const backends = NAMES.map((name) => new Backend(name));
  const folder = mkdtempSync(join(tmpdir(), "lb-demo-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  const file = join(folder, "lb.toml");
  const ports = { listenPort, adminPort, backendPorts: backends.map(({ port }) => port) };
  writeFileSync(file, configText(ports));
  try {
    const running = run(file);
    const isReady = await Promise.race([answers(adminPort), running.then(() => false)]);
    if (isReady) console.log(hints(file, ports));
    return await running;
  } finally {
    for (const backend of backends) backend.close();
    remove();
    process.off("exit", remove);
  }
}

interface Ports {
  listenPort: number;
  adminPort: number;
  backendPorts: readonly number[];
}

/** A backend that answers with its name. POST /stop stops it for a while, so that one can watch what happens. */
class Backend {
  readonly port: number;
  readonly #name: string;
  #server: Bun.Server<undefined> | null;
  #requests = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(name: string) {
    this.#name = name;
    this.#server = this.#serve(0);
    this.port = this.#server.port ?? 0;
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    void this.#server?.stop(true);
    this.#server = null;
  }

  #serve(port: number): Bun.Server<undefined> {
    const fetch = (request: Request): Response => this.#answer(request);
    return Bun.serve({ hostname: "127.0.0.1", port, development: false, reusePort: false, fetch });
  }

  #answer(request: Request): Response {
    // A browser that kept its connection would reach one backend only: lb balances connections, not requests.
    const headers = { "Content-Type": "text/plain; charset=utf-8", Connection: "close" };
    const isStop = new URL(request.url, "http://localhost").pathname === "/stop" && request.method === "POST";
    if (!isStop) {
      this.#requests++;
      return new Response(`Hello from backend ${this.#name} (port ${this.port}), request ${this.#requests}\n`, {
        headers,
      });
    }
    // The answer first, then the stop.
    setTimeout(() => this.#pause(), 50);
    return new Response(`Backend ${this.#name} stops for ${STOPPED_FOR_SECONDS} s\n`, { headers });
  }

  #pause(): void {
    if (this.#server === null) return;
    void this.#server.stop(true);
    this.#server = null;
    const resume = (): void => {
      this.#timer = null;
      try {
        this.#server = this.#serve(this.port);
      } catch {
        // Another program has taken the port since then.
        this.#timer = setTimeout(resume, 1000);
      }
    };
    this.#timer = setTimeout(resume, STOPPED_FOR_SECONDS * 1000);
  }
}

/** The first port from `from` on that is free on 127.0.0.1 and is not `taken`. */
function freePort(from: number, taken: number | null = null): number | null {
  for (let port = from; port < from + PORTS_TRIED; port++) {
    if (port === taken) continue;
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data: () => {} } }).stop(true);
      return port;
    } catch {
      // In use.
    }
  }
  return null;
}

function configText({ listenPort, adminPort, backendPorts }: Ports): string {
  const backends = backendPorts.map((port, i) => `  { name = "${NAMES[i]}", address = "127.0.0.1:${port}" },`);
  return `# The config of lb demo. Change it while lb runs: it is reloaded as soon as you save.

shutdown_timeout = "3s"

[admin]
bind = "127.0.0.1:${adminPort}"

[listeners.demo]
bind = "127.0.0.1:${listenPort}"
pool = "demo"

[pools.demo]
balance = "round_robin"        # try "least_connections"
backends = [                   # try weight = 5 for one of them
${backends.join("\n")}
]

[pools.demo.health]
interval = "1s"
`;
}

/** Waits until lb answers, for a limited time; the lines are printed in any case. */
async function answers(adminPort: number): Promise<boolean> {
  const deadline = performance.now() + READY_WITHIN_MS;
  while (performance.now() < deadline) {
    const isAnswered = await new Promise<boolean>((resolve) => {
      // A plain connect: fetch would use the proxy of the environment.
      Bun.connect({
        hostname: "127.0.0.1",
        port: adminPort,
        socket: {
          open: (socket) => {
            socket.end();
            resolve(true);
          },
          data: () => {},
        },
      }).catch(() => resolve(false));
    });
    if (isAnswered) break;
    await Bun.sleep(20);
  }
  return true;
}

/** How the shell finds this executable: "dist/lb" after a build, or its whole path. */
function commandName(): string {
  const path = relative(process.cwd(), process.execPath);
  if (basename(path) !== "lb") return "lb";
  return inShell(path.startsWith("..") ? process.execPath : path.includes("/") ? path : `./${path}`);
}

/** A path as a word of a shell's command. */
export function inShell(path: string): string {
  return /^[\w./+@%,:=-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

function hints(file: string, { listenPort, adminPort, backendPorts }: Ports): string {
  const isTerminal = process.stdout.isTTY && !process.env["NO_COLOR"];
  const bold = (text: string): string => (isTerminal ? `\x1b[1m${text}\x1b[0m` : text);
  const dim = (text: string): string => (isTerminal ? `\x1b[2m${text}\x1b[0m` : text);
  const step = (what: string, how: string): string => `  ${what.padEnd(28)}${bold(how)}`;
  const admin = `http://127.0.0.1:${adminPort}`;
  return `
${bold("lb is balancing")} 127.0.0.1:${listenPort} over three backends: ${backendPorts.join(", ")}

${step("Ask it several times:", `curl http://127.0.0.1:${listenPort}`)}
${step("Take backend B away:", `curl -X POST http://127.0.0.1:${backendPorts[1]}/stop`)}
${dim(`${" ".repeat(30)}it comes back after ${STOPPED_FOR_SECONDS} s; no request fails meanwhile`)}
${step("Crash a worker thread:", `curl -X POST -H 'X-Lb-Admin: 1' ${admin}/api/workers/0/restart`)}
${step("See the dashboard:", `${admin}/`)}
${step("The same in a terminal:", `${commandName()} top --admin 127.0.0.1:${adminPort}`)}
${step("See the metrics:", `curl ${admin}/metrics`)}
${step("See the whole status:", `curl ${admin}/api/status`)}
${step("Edit, and it reloads:", file)}

  Ctrl-C ends it.
`;
}
