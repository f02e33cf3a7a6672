import { describe, expect, test } from "vitest";
import { HttpCheck, type HttpCheckSpec } from "../../src/wire/http-check.ts";

function check(given: Partial<HttpCheckSpec> = {}): HttpCheck {
  return new HttpCheck({ method: "GET", path: "/", host: "a.example", status: [[200, 399]], body: "", ...given });
}

/** The result of a check for an answer, read whole and byte by byte. */
function verdict(answer: string, given: Partial<HttpCheckSpec> = {}, cut: "closed" | "timeout" = "closed") {
  const [whole, slow] = [check(given), check(given)];
  whole.begin();
  slow.begin();
  const first = whole.push(Buffer.from(answer));
  let last = first;
  for (const byte of Buffer.from(answer)) {
    last = slow.push(Uint8Array.of(byte));
    if (last.is !== "more") break;
  }
  expect(last).toEqual(first);
  return first.is === "more" ? whole.end(cut) : first;
}

const answer = (status: number, body = "") => `HTTP/1.1 ${status} X\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

describe("a check by HTTP", () => {
  test("requests its path and host, and asks for the end of the connection", () => {
    const step = check({ method: "HEAD", path: "/a?b=c", host: "db.example:8008" }).begin();
    expect(step.is === "more" && Buffer.from(step.send!).toString()).toBe(
      "HEAD /a?b=c HTTP/1.1\r\nHost: db.example:8008\r\nUser-Agent: lb\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    );
  });

  test("requires one of its statuses", () => {
    expect(verdict(answer(200))).toEqual({ is: "ok", send: null });
    expect(verdict(answer(399)).is).toBe("ok");
    expect(verdict(answer(503))).toMatchObject({ is: "bad", why: "status 503, expected 200-399" });
    const some = {
      status: [
        [204, 204],
        [500, 599],
      ] as const,
    };
    expect(verdict(answer(204), some).is).toBe("ok");
    expect(verdict(answer(503), some).is).toBe("ok");
    expect(verdict(answer(200), some)).toMatchObject({ why: "status 200, expected 204, 500-599" });
  });

  test("requires its text in the body", () => {
    const body = "état: ready";
    expect(verdict("HTTP/1.1 200 OK\r\n\r\n... état: ready ...", { body }).is).toBe("ok");
    expect(verdict(answer(200, "starting"), { body })).toMatchObject({
      why: 'status 200, but the body does not contain "état: ready"',
    });
    const late = `HTTP/1.1 200 OK\r\n\r\n${"x".repeat(65_530)}ready`;
    expect(verdict(`${late} `, { body: "ready" }).is).toBe("ok");
    expect(verdict(late.replace("ready", "..ready"), { body: "ready" })).toMatchObject({
      why: 'status 200, but the first 64 KiB of the body do not contain "ready"',
    });
    expect(verdict(answer(500, "ready"), { body: "ready" }).is).toBe("bad");
  });

  test("accepts a response without an end at the timeout, but not one without a head", () => {
    const events = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:a\r\n";
    expect(verdict(events, {}, "timeout").is).toBe("ok");
    expect(verdict(events, { body: "data:" }, "timeout").is).toBe("ok");
    expect(verdict(events, { body: "data:b" }, "timeout").is).toBe("bad");
    expect(verdict(events.replace("200", "500"), {}, "timeout")).toMatchObject({ why: "status 500, expected 200-399" });
    expect(verdict(events)).toMatchObject({ why: "closed in the middle of the answer" });
    expect(verdict("HTTP/1.1 200 OK\r\n", {}, "timeout")).toMatchObject({ why: "no answer in time" });
    expect(verdict("")).toMatchObject({ why: "closed before the answer" });
  });
});
