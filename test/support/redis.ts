// Redis servers for tests, each in a folder of its own.
import { eventually } from "./eventually.ts";
import { run, Server } from "./server.ts";

/** Starts a Redis server without files on this port of 127.0.0.1, and waits until it serves. */
export async function redisServer(port: number, ...options: string[]): Promise<Server> {
  const server = await Server.make("redis");
  startRedis(server, port, ...options);
  await eventually("Redis serves", () => server.log().includes("Ready to accept connections"));
  return server;
}

/**
 * Starts the program in the server's folder; the end of the former one, if any, must have been awaited. With its default of 10,000 clients it
 * logs an error where the open-files limit is lower.
 */
export function startRedis(server: Server, port: number, ...options: string[]): void {
  const all = `--port ${port} --bind 127.0.0.1 --dir ${server.dir} --repl-diskless-sync-delay 0 --maxclients 100`.split(
    " ",
  );
  server.start(["redis-server", [...all, "--save", "", ...options]]);
}

export const redisCli = async (port: number, ...command: string[]): Promise<string> =>
  (await run("redis-cli", ["-p", String(port), ...command])).stdout;
