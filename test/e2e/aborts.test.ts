// What both sides see when lb ends a relaying connection while the backend pauses in the middle of an answer. lb cannot know that more
// would follow, so only a reset keeps the part from looking complete.
import { describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { freePorts, startLb, type Lb } from "../support/lb.ts";
import { Python, type PythonEnd, type PythonPeer, type PythonServer } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";

/** Longer than any pause after which a connection could count as quiet. */
const PAUSE_MS = 1200;
const PART = "half an ans";

const LISTENERS = {
  idle_timeout: `timeouts.idle = "1500ms"`,
  half_close_timeout: `timeouts.half_close = "1500ms"`,
  lifetime: `timeouts.lifetime = "3s"`,
  backend_down: "",
  shutdown: "",
} as const;
type End = keyof typeof LISTENERS;
const ENDS = Object.keys(LISTENERS) as End[];

let python: Python;
let ca: Authority;
let leaf: Leaf;
let other: Leaf;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  ca = await keep(Authority.make());
  [leaf, other] = await Promise.all([ca.leaf("a.example"), ca.leaf("b.example")]);
});

const WAYS = {
  plain: { client: (): Leaf[] => [], backendTls: false },
  "TLS with the client, accepted as TLS": { client: (): Leaf[] => [leaf], backendTls: false },
  "TLS with the client, adopted": { client: (): Leaf[] => [leaf, other], backendTls: false },
  "TLS with the backend": { client: (): Leaf[] => [], backendTls: true },
} as const;
type Way = keyof typeof WAYS;

function config(way: Way, ports: Record<End, number>, server: PythonServer, checked: Backend, onAbort: string): string {
  const leaves = WAYS[way].client();
  const text = [`workers = 1\nshutdown_timeout = "2s"`];
  for (const end of ENDS) {
    text.push(
      `[listeners.${end}]\nbind = "127.0.0.1:${ports[end]}"\npool = "${end === "backend_down" ? "down" : "app"}"`,
      `${onAbort}\n${LISTENERS[end]}`,
      leaves.length === 0 ? "" : `tls.${certificates(...leaves)}`,
    );
  }
  const tls = WAYS[way].backendTls ? "tls.verify = false" : "";
  text.push(
    `[pools.app]\nbackends = ["${server.address}"]\nhealth.type = "off"\n${tls}`,
    `[pools.down]\nbackends = ["${server.address}"]\non_down = "reset"\n${tls}`,
    `health = { interval = "100ms", timeout = "5s", fall = 1, port = ${checked.port} }`,
  );
  return text.join("\n");
}

/** One connection for each end, each with part of an answer and nothing after it. */
class Scene {
  readonly pairs = new Map<End, { client: PythonPeer; backend: PythonPeer }>();
  readonly lb: Lb;
  readonly checked: Backend;

  constructor(lb: Lb, checked: Backend) {
    this.lb = lb;
    this.checked = checked;
  }

  /** How this end looks to the client and to the backend, and its log line. */
  async ended(end: End): Promise<{ client: PythonEnd | null; backend: PythonEnd | null; line: object }> {
    const { client, backend } = this.pairs.get(end)!;
    const [seen, there] = await Promise.all([client.read(), backend.read()]);
    expect(seen.data).toBe("");
    const line = await this.lb.lineOf(client);
    return { client: seen.end, backend: there.end, line };
  }
}

async function play(way: Way, onAbort: string, check: (scene: Scene) => Promise<void>): Promise<void> {
  using checked = await echo();
  const tls = WAYS[way].backendTls ? { cert: leaf.cert, key: leaf.key } : undefined;
  const server = await python.serve({ mode: "manual", ...(tls === undefined ? {} : { tls }) });
  const given = await freePorts(ENDS.length);
  const ports = Object.fromEntries(ENDS.map((end, i) => [end, given[i]!])) as Record<End, number>;
  await using lb = await startLb(config(way, ports, server, checked, onAbort));
  const scene = new Scene(lb, checked);
  const secure = WAYS[way].client().length > 0 ? { tls: { name: "a.example" } } : {};
  for (const [i, end] of ENDS.entries()) {
    const client = await python.connect(ports[end], secure);
    const backend = await server.nth(i);
    await backend.send(PART);
    expect(await client.read(PART)).toMatchObject({ data: PART });
    if (end === "half_close_timeout") await client.finish();
    scene.pairs.set(end, { client, backend });
  }
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  checked.stop();
  await check(scene);
  await server.stop();
}

describe.each(Object.keys(WAYS) as Way[])("%s", (way) => {
  test("when lb ends a connection, both sides are reset, without close_notify", async () => {
    await play(way, "", async (scene) => {
      for (const end of ENDS) {
        if (end === "shutdown") scene.lb.signal("SIGTERM");
        const { client, backend, line } = await scene.ended(end);
        expect([end, client]).toEqual([end, "reset"]);
        // It has already received the client's own FIN.
        if (end !== "half_close_timeout") expect([end, backend]).toEqual([end, "reset"]);
        expect(line).toMatchObject({ listener: end, end, end_by: "lb", bytes_out: PART.length });
      }
    });
  });

  test('with on_abort = "close" it is an orderly end, except for backend_down', async () => {
    const orderly = (tls: boolean): PythonEnd => (tls ? "close_notify" : "fin");
    await play(way, `on_abort = "close"`, async (scene) => {
      for (const end of ENDS) {
        if (end === "shutdown") scene.lb.signal("SIGTERM");
        const { client, backend, line } = await scene.ended(end);
        const down = end === "backend_down";
        expect([end, client]).toEqual([end, down ? "reset" : orderly(WAYS[way].client().length > 0)]);
        expect([end, backend]).toEqual([end, down ? "reset" : orderly(WAYS[way].backendTls)]);
        expect(line).toMatchObject({ listener: end, end, end_by: "lb", bytes_out: PART.length });
      }
    });
  });
});

test('before a backend is reached, over_limit applies to every end: a bad PROXY header ends with FIN if it is "close"', async () => {
  using backend = await echo();
  const [soft, hard] = await freePorts(2);
  const listener = (name: string, port: number, more: string): string =>
    `[listeners.${name}]\nbind = "127.0.0.1:${port}"\npool = "app"\nproxy_protocol = "required"
     trusted_proxies = ["127.0.0.1"]\ntimeouts.handshake = "500ms"\n${more}`;
  await using lb = await startLb(
    `${listener("soft", soft, `over_limit = "close"`)}\n${listener("hard", hard, `on_abort = "close"`)}
     [pools.app]\nbackends = ["${backend.address}"]`,
  );
  for (const [port, end] of [
    [soft, "fin"],
    [hard, "reset"],
  ] as const) {
    const liar = await python.connect(port, { preface: "GET / HTTP/1.1\r\n\r\n" });
    expect(await liar.read()).toEqual({ data: "", end });
    expect(await lb.lineOf(liar)).toMatchObject({ end: "proxy_header_bad", end_by: "client" });
    const slow = await python.connect(port, { preface: "PROXY TCP4 " });
    expect(await slow.read()).toEqual({ data: "", end });
    expect(await lb.lineOf(slow)).toMatchObject({ end: "handshake_timeout", end_by: "lb" });
  }
});
