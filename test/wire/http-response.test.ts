import { describe, expect, test } from "vitest";
import {
  HTTP_BODY_BYTES_MAX,
  HTTP_CHUNK_LINE_BYTES_MAX,
  HTTP_HEAD_BYTES_MAX,
  HttpResponseReader,
} from "../../src/wire/http-response.ts";

/** The meaning of a response, read whole, and with `closed` up to the server's FIN. */
function read(text: string, { head = false, closed = false } = {}) {
  const reader = new HttpResponseReader(!head);
  let answer = reader.push(Buffer.from(text, "latin1"));
  if (closed) answer = reader.end();
  const body = Buffer.from(reader.body.bytes).toString("latin1");
  return { ...answer, status: reader.status, body };
}

const OK = "HTTP/1.1 200 OK\r\n";

describe("the body", () => {
  test.each([
    ["has the length that is said", `${OK}Content-Length: 5\r\n\r\nhello, and more`, "hello"],
    ["may be empty", `${OK}content-length: 0\r\n\r\n`, ""],
    ["has the length that is said twice", `${OK}Content-Length: 2, 2\r\nContent-Length:2\r\n\r\nhi`, "hi"],
    [
      "comes in chunks",
      `${OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x="y"\r\n, 10 bytes\r\n0\r\n\r\n`,
      "hello, 10 bytes",
    ],
    [
      "comes in chunks, with trailers",
      `${OK}Transfer-Encoding: gzip, Chunked\r\n\r\n1\r\na\r\n000\r\nX: y\r\n\r\n`,
      "a",
    ],
    [
      "has chunks where a length is said too",
      `${OK}Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n`,
      "a",
    ],
    ["is not there with 204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ""],
    ["is not there with 304", "HTTP/1.1 304\r\nContent-Length: 5\r\n\r\n", ""],
  ])("%s", (_, text, body) => {
    expect(read(text)).toMatchObject({ is: "response", body });
  });

  test("ends with the FIN, and not before, if there is neither a length nor chunks", () => {
    expect(read(`${OK}\r\nabc`)).toMatchObject({ is: "more", body: "abc" });
    expect(read(`${OK}\r\nabc`, { closed: true })).toMatchObject({ is: "response", status: 200, body: "abc" });
    expect(read(`${OK}Transfer-Encoding: gzip\r\n\r\nabc`, { closed: true })).toMatchObject({ is: "response" });
  });

  test("is not read beyond its first 64 KiB", () => {
    const large = "x".repeat(HTTP_BODY_BYTES_MAX);
    expect(read(`${OK}\r\n${large}`).is).toBe("response");
    expect(read(`${OK}\r\n${large.slice(1)}`).is).toBe("more");
    expect(read(`${OK}Content-Length: 999999999999\r\n\r\n${large}y`).body).toBe(large);
    expect(read(`${OK}Transfer-Encoding: chunked\r\n\r\n1ffff\r\n${large}y`).body).toBe(large);
  });

  test("is missing in the response to HEAD", () => {
    expect(read(`${OK}Content-Length: 5\r\n\r\n`, { head: true })).toMatchObject({ is: "response", status: 200 });
    expect(read(`${OK}Transfer-Encoding: chunked\r\n\r\n`, { head: true })).toMatchObject({ is: "response" });
  });
});

describe("the head", () => {
  test("may come after interim responses", () => {
    const text = `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 7\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n`;
    expect(read(text)).toMatchObject({ is: "response", status: 503 });
  });

  test("may be that of HTTP/1.0, have no reason, lines that end with LF only, and folded lines", () => {
    expect(read("HTTP/1.0 200\nX: a\n b\nContent-Length: 1\n\nx")).toMatchObject({
      is: "response",
      status: 200,
      body: "x",
    });
  });

  test("has a status only once it is complete", () => {
    expect(read(`${OK}Content-Length: 0\r\n`)).toMatchObject({ is: "more", status: 0 });
  });

  test.each([
    ["SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"],
    ["HTTP/2 200 OK\r\n", "bad status line"],
    ["HTTP/1.1 20 OK\r\n", "bad status line"],
    ["HTTP/1.1 2000 OK\r\n", "bad status line"],
    ["HTTP/1.1 000 OK\r\n", "bad status line"],
    [`${OK}no colon\r\n`, "bad header field"],
    [`${OK}space : x\r\n`, "bad header field"],
    [`${OK}Content-Length: -1\r\n\r\n`, "bad content-length"],
    [`${OK}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`, "bad content-length"],
    [`${OK}Content-Length:\r\n\r\n`, "bad content-length"],
    [`${OK}Transfer-Encoding: chunked\r\n\r\nx\r\n`, "bad size of a chunk"],
    [`${OK}Transfer-Encoding: chunked\r\n\r\n\r\n`, "bad size of a chunk"],
    [`${OK}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n`, "a chunk is longer than its size"],
  ])("%j is refused", (text, why) => {
    expect(read(text)).toMatchObject({ is: "bad", why: expect.stringContaining(why) });
  });

  test("has a maximum size, and so has the size line of a chunk", () => {
    const fields = (bytes: number) => `${OK}X: ${"a".repeat(bytes - OK.length - 7)}\r\n\r\n`;
    expect(fields(HTTP_HEAD_BYTES_MAX).length).toBe(HTTP_HEAD_BYTES_MAX);
    expect(read(fields(HTTP_HEAD_BYTES_MAX)).is).toBe("more");
    expect(read(fields(HTTP_HEAD_BYTES_MAX + 1))).toMatchObject({ is: "bad", why: "the head is larger than 16 KiB" });
    const size = (bytes: number) =>
      `${OK}Transfer-Encoding: chunked\r\n\r\n1;${"x".repeat(bytes - 4)}\r\na\r\n0\r\n\r\n`;
    expect(read(size(HTTP_CHUNK_LINE_BYTES_MAX)).is).toBe("response");
    expect(read(size(HTTP_CHUNK_LINE_BYTES_MAX + 1))).toMatchObject({
      is: "bad",
      why: "the size of a chunk is too long",
    });
  });
});

test.each([
  ["", "closed before the answer"],
  ["HTTP/1.1 20", 'closed in the middle of the answer: found "HTTP/1.1 20"'],
  [OK, "closed in the middle of the answer"],
  [`${OK}Content-Length: 5\r\n\r\nhell`, "closed in the middle of the answer"],
  [`${OK}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n`, "closed in the middle of the answer"],
])("a FIN after %j is refused", (text, why) => {
  expect(read(text, { closed: true })).toMatchObject({ is: "bad", why });
});
