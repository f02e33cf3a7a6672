// `lb health [FILE|URL] [--ready [LISTENER]]`: asks a running lb whether it is alive or ready, for containers without curl. Speaks HTTP by itself,
// because fetch would go through the proxy that the environment names.
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { dirname, resolve } from "node:path";
import { parse } from "smol-toml";
import { expand } from "../config/env.ts";
import { absoluteEndpoint } from "../config/paths.ts";
import { formatAddress, formatEndpoint, parseEndpoint, type Endpoint } from "../core/address.ts";

const TIMEOUT_MS = 2000;
const DEFAULT_FILES = ["/etc/lb/lb.toml", "lb.toml"];
const DEFAULT_BIND = "127.0.0.1:9900";
/** More than the head of any answer has. */
const ANSWER_CHARACTERS_MAX = 16 * 1024;
/** Of the reasons why lb is not ready. */
const REASONS_CHARACTERS_MAX = 1000;

/**
 * Prints one line. Answers the exit code: 0 alive, 1 not. Containers reserve any other for themselves. With `ready` the
 * question is whether lb accepts connections (true), or whether a listener of that name has a backend that is up.
 */
export async function health(argument: string | undefined, ready?: string | true): Promise<number> {
  const target = targetOf(argument ?? DEFAULT_FILES.find((file) => existsSync(file)));
  if ("error" in target) {
    console.error(`lb health: ${target.error}`);
    return 1;
  }
  if (ready === true) target.path = "/ready";
  else if (ready !== undefined) target.path = `/ready/${encodeURIComponent(ready)}`;
  const where = formatEndpoint(target.endpoint);
  const answer = await ask(target);
  if (answer.status === 200) {
    console.log(`lb health: ${ready === undefined ? "alive" : "ready"} (${where})`);
    return 0;
  }
  const reasons =
    ready === undefined ? "" : answer.text.split("\n").filter(Boolean).join("; ").slice(0, REASONS_CHARACTERS_MAX);
  const what = answer.status === null ? answer.text : `answered with status ${answer.status}`;
  console.error(`lb health: ${where} ${what}${answer.status === null || reasons === "" ? "" : `: ${reasons}`}`);
  return 1;
}

interface Target {
  endpoint: Endpoint;
  path: string;
}

/** Where to ask: by a URL, by an address as in the config, or by a config file. */
function targetOf(argument: string | undefined): Target | { error: string } {
  if (argument === undefined) return at(DEFAULT_BIND);
  if (argument.startsWith("http://")) {
    const url = URL.parse(argument);
    if (url === null) return { error: `${argument} is no URL` };
    const target = at(`${url.hostname}:${url.port || "80"}`);
    return "error" in target || url.pathname === "/" ? target : { ...target, path: url.pathname };
  }
  if (argument.includes("://")) return { error: `${argument}: only http:// can be asked` };
  if (!existsSync(argument) && parseEndpoint(argument).kind !== "bad") return at(argument);
  return fromFile(argument);
}

function at(text: string): Target | { error: string } {
  const endpoint = parseEndpoint(text);
  return endpoint.kind === "bad"
    ? { error: `${text}: ${endpoint.why}` }
    : { endpoint: reachable(endpoint), path: "/live" };
}

/**
 * Reads no more of the file than it must: a process that runs well is not to be killed because somebody is editing its
 * config and has got some other part of it wrong.
 */
function fromFile(file: string): Target | { error: string } {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    return {
      error: `${file} cannot be read${error instanceof Error && "code" in error ? ` (${String(error.code)})` : ""}`,
    };
  }
  let admin: Record<string, unknown> = {};
  try {
    const { admin: table } = parse(text);
    if (typeof table === "object" && table !== null) admin = table as Record<string, unknown>;
  } catch {
    return at(DEFAULT_BIND);
  }
  if (admin["enabled"] === false)
    return { error: `${file} has the admin endpoint switched off: there is nothing to ask` };
  const said = { bind: typeof admin["bind"] === "string" ? admin["bind"] : DEFAULT_BIND };
  const { problems } = expand(said, process.env);
  const target = at(said.bind);
  if (problems[0] !== undefined || "error" in target) {
    return { error: `${file}: admin.bind: ${problems[0]?.message ?? ("error" in target ? target.error : "")}` };
  }
  return { ...target, endpoint: absoluteEndpoint(dirname(resolve(file)), target.endpoint) };
}

/** An address that everything is bound to is asked on the loopback interface. */
function reachable(endpoint: Endpoint): Endpoint {
  if (endpoint.kind === "any") return { kind: "ip", address: LOOPBACK, port: endpoint.port };
  if (endpoint.kind !== "ip") return endpoint;
  const text = formatAddress(...endpoint.address);
  if (text === "0.0.0.0") return { ...endpoint, address: LOOPBACK };
  return text === "::" ? { ...endpoint, address: [0, 0, 0, 1] } : endpoint;
}

const LOOPBACK = [0, 0, 0xffff, 0x7f000001] as const;

/** The status and the text of the answer; or null, and why there is none. */
interface Answer {
  status: number | null;
  text: string;
}

function ask({ endpoint, path }: Target): Promise<Answer> {
  return new Promise((answered) => {
    const socket = connect(connectOptions(endpoint));
    let received = "";
    const finish = (answer: Answer): void => {
      clearTimeout(timer);
      socket.destroy();
      answered(answer);
    };
    const fail = (text: string): void => finish({ status: null, text });
    const timer = setTimeout(() => fail(`did not answer within ${TIMEOUT_MS / 1000} s`), TIMEOUT_MS);
    socket.setEncoding("utf8");
    socket.on("connect", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`));
    socket.on("data", (text) => {
      received += String(text);
      const line = /^([^\r\n]*)\r?\n/.exec(received)?.[1];
      if (line === undefined && received.length < ANSWER_CHARACTERS_MAX) return;
      const status = /^HTTP\/1\.[01] (\d{3})\b/.exec(line ?? "")?.[1];
      if (status === undefined) fail("does not speak HTTP");
      // Nothing but a refusal has a text worth waiting for.
      else if (status === "200" || received.length >= ANSWER_CHARACTERS_MAX) finish(answerIn(received, status));
    });
    socket.on("error", (error) => fail(`cannot be reached (${"code" in error ? String(error.code) : error.message})`));
    socket.on("close", () => {
      const status = /^HTTP\/1\.[01] (\d{3})\b/.exec(received)?.[1];
      if (status === undefined) fail("closed the connection without an answer");
      else finish(answerIn(received, status));
    });
  });
}

function answerIn(received: string, status: string): Answer {
  const body = received.indexOf("\r\n\r\n");
  return { status: Number(status), text: body < 0 ? "" : received.slice(body + 4) };
}

function connectOptions(endpoint: Endpoint): { path: string } | { host: string; port: number } {
  switch (endpoint.kind) {
    case "unix":
      return { path: endpoint.path };
    case "abstract":
      return { path: `\0${endpoint.name}` };
    case "name":
      return { host: endpoint.host, port: endpoint.port };
    case "ip":
      return { host: formatAddress(...endpoint.address), port: endpoint.port };
    case "any":
      return { host: "127.0.0.1", port: endpoint.port };
  }
}
