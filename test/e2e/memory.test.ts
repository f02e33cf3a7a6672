// The memory cost of a config, by the resident set of the process.
import { expect, test } from "vitest";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { eventually } from "../support/eventually.ts";
import { residentBytes } from "../support/proc.ts";

const MB = 1024 * 1024;

async function reload(lb: Lb, toml: string): Promise<void> {
  await lb.write(toml);
  const answer = await lb.send("POST", "/api/reload");
  expect(answer.status).toBe(200);
  await answer.arrayBuffer();
}

test("20,000 backends add less than 150 MB, even when all of them go down, and reloads do not accumulate memory", async () => {
  const port = await freePort();
  // Nobody listens there, and the refusal comes at once.
  const backends = (count: number): string =>
    Array.from({ length: count }, (_, i) => `"127.1.${i >> 8}.${i & 255}:1"`).join(",\n");
  const config = (count: number): string => `
    workers = 2
    watch = false
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = [${backends(count)}]
    # The first round takes 6 s, and there is none after it in this test: the garbage of 10,000 checks per second is not the config's.
    health = { interval = "60s" }
  `;
  await using small = await startLb(config(1));
  const base = residentBytes(small.pid);
  await small.stop();
  await using large = await startLb(config(20_000));
  await large.waitLog(({ event, backends_up }) => event === "backend down" && backends_up === 0, 100_000);
  const cost = (): number => (residentBytes(large.pid) - base) / MB;
  await eventually("the process settles", () => cost() < 150, 60_000);
  for (let i = 0; i < 3; i++) await reload(large, config(20_000));
  await eventually("the process settles again", () => cost() < 150, 60_000);
});

test("after reloads with new names the process takes no more than a fifth above what it took at its start", async () => {
  const ports = await freePorts(4);
  const config = (round: number): string =>
    `
    workers = 2
    watch = false
    [pools.p${round}]
    backends = ["127.0.0.1:9"]
    health = { type = "off" }
    # Short, since what is gone is kept as long as these allow a connection to come to it.
    connect_timeout = "1s"
    retries = 0
    ` +
    ports
      .map(
        (port, i) =>
          `[listeners.l${round}x${i}]\nbind = "127.0.0.1:${port}"\npool = "p${round}"\ntimeouts = { handshake = "1s" }\n`,
      )
      .join("");
  await using lb = await startLb(config(0));
  const before = residentBytes(lb.pid);
  for (let round = 1; round <= 300; round++) await reload(lb, config(round));
  await eventually("the memory is given back", () => residentBytes(lb.pid) < 1.2 * before, 60_000);
  await reload(lb, config(301));
});
