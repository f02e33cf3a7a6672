// `lb top`: a live view of a running lb on the whole terminal, refreshed each second. It requests, draws, and sends what the user has
// confirmed.
import { isatty } from "node:tty";
import { pairOf } from "../../observe/figures.ts";
import type { ClientStatus, ConnectionList } from "../../observe/live.ts";
import type { Snapshot } from "../../observe/snapshot.ts";
import { AdminError, type AdminClient, type AdminRequest } from "../admin-client.ts";
import { askLb } from "../admin-command.ts";
import type { AdminOptions } from "../admin-endpoint.ts";
import { draw, pageOf } from "./screen.ts";
import { FIRST_STATE, press, type Key, type TopState } from "./state.ts";
import { Terminal } from "./terminal.ts";
import { NO_DATA, type TopData, type ViewName } from "./views.ts";

const INTERVAL_MS = 1000;
/** An lb that does not answer for this long is shown as disconnected. */
const ANSWER_MS = 3000;
/** Maximum number of rows that are requested in the views that can be longer than any screen. */
const ROWS_MAX = 500;

/** Runs until the user quits. Returns the exit code. */
export function top(options: AdminOptions): Promise<number> {
  if (!isatty(0) || !isatty(1)) {
    console.error("lb: top needs a terminal; lb status prints the same figures once");
    return Promise.resolve(2);
  }
  return askLb(options, (client) => new Top(client).run());
}

class Top {
  readonly #client: AdminClient;
  readonly #terminal: Terminal;
  readonly #colour = !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb";
  #state: TopState = FIRST_STATE;
  #data: TopData = NO_DATA;
  readonly #quit = Promise.withResolvers<number>();
  #isDrawnSoon = false;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(client: AdminClient) {
    this.#client = client;
    this.#terminal = new Terminal(process.stdin, process.stdout, {
      key: (key) => this.#pressed(key),
      resized: () => this.#draw(),
      ended: () => this.#quit.resolve(0),
    });
  }

  async run(): Promise<number> {
    // An error that prevents all requests, such as a wrong token, is printed in the shell.
    this.#remember(await this.#snapshot());
    this.#terminal.open();
    this.#draw();
    void this.#askAgain();
    const code = await this.#quit.promise;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#terminal.close();
    return code;
  }

  #snapshot(): Promise<Snapshot> {
    return this.#client.json<Snapshot>({ method: "GET", path: "/api/status", timeoutMs: ANSWER_MS });
  }

  // ---------------------------------------------------------------- asking

  async #askAgain(): Promise<void> {
    if (!this.#state.paused) await this.#ask();
    this.#timer = setTimeout(() => void this.#askAgain(), INTERVAL_MS);
  }

  async #ask(): Promise<void> {
    const [error] = await Promise.all([
      failureOf(async () => this.#remember(await this.#snapshot())),
      failureOf(() => this.#askForView(this.#state.view)).then((failure) => {
        if (failure !== null) this.#state = { ...this.#state, message: failure.message };
      }),
    ]);
    if (error !== null) this.#data = { ...this.#data, error: error.message };
    this.#draw();
  }

  // Only what is shown is requested.
  async #askForView(view: ViewName): Promise<void> {
    const query = { limit: ROWS_MAX };
    if (view === "connections") {
      const busiest = { ...query, sort: "rate_out" };
      const request: AdminRequest = { method: "GET", path: "/api/connections", query: busiest, timeoutMs: ANSWER_MS };
      const connections = await this.#client.json<ConnectionList>(request);
      this.#data = { ...this.#data, connections };
    } else if (view === "clients") {
      const request: AdminRequest = { method: "GET", path: "/api/clients", query, timeoutMs: ANSWER_MS };
      const { clients } = await this.#client.json<{ clients: ClientStatus[] }>(request);
      this.#data = { ...this.#data, clients };
    }
  }

  #remember(snapshot: Snapshot): void {
    const pair = pairOf(snapshot, this.#data.pair?.now ?? null);
    this.#data = { ...this.#data, pair, answeredAtMs: Date.now(), error: null };
  }

  // ---------------------------------------------------------------- keys

  #pressed(key: Key): void {
    const { view } = this.#state;
    const { state, request, quit } = press(this.#state, key, this.#data, pageOf(this.#terminal.rows));
    this.#state = state;
    if (quit === true) return this.#quit.resolve(0);
    this.#drawSoon();
    if (request !== undefined) void this.#send(request);
    else if (state.view !== view) void this.#ask();
  }

  async #send(request: AdminRequest): Promise<void> {
    let message = "";
    const failure = await failureOf(async () => {
      message = answerText(await this.#client.json<{ message?: string; ended?: number }>(request));
    });
    if (failure !== null) message = failure.cure === "" ? failure.message : `${failure.message}; ${failure.cure}`;
    this.#state = { ...this.#state, message };
    await this.#ask();
  }

  // ---------------------------------------------------------------- drawing

  // Once for all keys that arrive together, for example from a key that is held down.
  #drawSoon(): void {
    if (this.#isDrawnSoon) return;
    this.#isDrawnSoon = true;
    setImmediate(() => {
      this.#isDrawnSoon = false;
      this.#draw();
    });
  }

  #draw(): void {
    const { columns, rows } = this.#terminal;
    const screen = { columns, rows, colour: this.#colour, endpoint: this.#client.name, nowMs: Date.now() };
    this.#terminal.show(draw(this.#state, this.#data, screen));
  }
}

function answerText({ message, ended }: { message?: string; ended?: number }): string {
  return message ?? (ended === undefined ? "done" : `${ended} connections were ended`);
}

/** The error of a request to the admin endpoint, or null. */
async function failureOf(work: () => Promise<void>): Promise<AdminError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof AdminError) return error;
    throw error;
  }
}
