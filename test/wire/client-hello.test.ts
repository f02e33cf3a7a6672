import { describe, expect, test } from "vitest";
import type { ClientHello, HelloAnswer } from "../../src/wire/client-hello.ts";
import { ALERTS } from "../../src/wire/tls-records.ts";
import {
  HELLO_HANDSHAKE_BYTES_MAX,
  HelloReader,
  parseClientHello,
  RECORD_BYTES_MAX,
} from "../../src/wire/client-hello.ts";
import type { HelloParts, Part } from "./hello-bytes.ts";
import {
  FIXTURE_NAMES,
  alpn,
  ech,
  extension,
  fixture,
  hello,
  joined,
  message,
  record,
  serverName,
  supportedVersions,
  u16,
  unwrap,
  vector,
  wrap,
} from "./hello-bytes.ts";

const bytesOf = (...parts: Part[]) => Uint8Array.from(joined(...parts).bytes);

/** The content of a hello with these parts; the test fails if it is not a hello. */
function read(parts: HelloParts): ClientHello {
  const answer = parseClientHello(hello(parts));
  expect(answer).toHaveProperty("hello");
  return (answer as Extract<HelloAnswer, { is: "hello" }>).hello;
}

const nameOf = (name: string) => read({ extensions: [serverName(name)] }).serverName;

/** Why a hello with these parts is invalid; the test fails if it is valid. */
function fault(parts: HelloParts): string {
  const answer = parseClientHello(hello(parts));
  expect(answer).toHaveProperty("why");
  return (answer as Extract<HelloAnswer, { is: "bad" }>).why;
}

function inPieces(bytes: Uint8Array, size: number): HelloAnswer {
  const reader = new HelloReader();
  let answer: HelloAnswer = { is: "more" };
  for (let at = 0; at < bytes.length && answer.is === "more"; at += size)
    answer = reader.push(bytes.slice(at, at + size));
  return answer;
}

const TLS13_12 = { min: 0x0303, max: 0x0304 };
const FROM_TLS10 = { min: 0x0301, max: 0x0304 };

const CAPTURED: Record<string, ClientHello> = {
  "openssl-tls13": {
    serverName: "api.example.com",
    alpn: ["h2", "http/1.1"],
    versions: FROM_TLS10,
    ech: false,
  },
  "openssl-tls12": { serverName: "api.example.com", alpn: [], versions: { max: 0x0303 }, ech: false },
  "openssl-tls12-no-sni": { serverName: null, alpn: [], versions: { max: 0x0303 }, ech: false },
  "openssl-tls10": { serverName: "old.example.com", alpn: [], versions: { max: 0x0301 }, ech: false },
  "openssl-split": {
    serverName: "split.example.com",
    alpn: ["h2", ...Array.from({ length: 30 }, (_, i) => `protocol-${String(i).padStart(2, "0")}`)],
    versions: FROM_TLS10,
    ech: false,
  },
  curl: { serverName: "www.example.com", alpn: ["h2", "http/1.1"], versions: FROM_TLS10, ech: false },
  "curl-ip": { serverName: null, alpn: ["h2", "http/1.1"], versions: FROM_TLS10, ech: false },
  python: { serverName: "mail.example.com", alpn: ["imap"], versions: TLS13_12, ech: false },
  node: { serverName: "node.example.com", alpn: [], versions: TLS13_12, ech: false },
  bun: { serverName: "bun.example.com", alpn: ["h2"], versions: TLS13_12, ech: false },
  "bun-fetch": { serverName: "localhost", alpn: ["http/1.1"], versions: TLS13_12, ech: false },
  "go-post-quantum": { serverName: "pq.example.com", alpn: ["h2", "http/1.1"], versions: TLS13_12, ech: false },
  "go-ech": { serverName: "public.example.com", alpn: ["h2"], versions: { min: 0x0304, max: 0x0304 }, ech: true },
};

describe("a captured hello", () => {
  test("exists for each expectation", () => {
    expect(FIXTURE_NAMES).toEqual(Object.keys(CAPTURED).toSorted());
    expect(fixture("go-post-quantum").length).toBeGreaterThan(1500);
    // OpenSSL itself split this one into two records.
    expect(unwrap(fixture("openssl-split")).length).toBe(fixture("openssl-split").length - 10);
  });

  test.each(FIXTURE_NAMES)("of %s is parsed to the values that its client sent", (name) => {
    expect(parseClientHello(fixture(name))).toEqual({ is: "hello", hello: CAPTURED[name] });
  });

  test.each(FIXTURE_NAMES)("of %s is parsed alike in two pieces, wherever it is split", (name) => {
    const bytes = fixture(name);
    for (let split = 0; split < bytes.length; split++) {
      const reader = new HelloReader();
      expect(reader.push(bytes.slice(0, split)), `${split}`).toEqual({ is: "more" });
      expect(reader.push(bytes.slice(split)), `${split}`).toEqual({ is: "hello", hello: CAPTURED[name] });
      expect(Buffer.from(reader.bytes).equals(bytes)).toBe(true);
    }
  });

  test.each(FIXTURE_NAMES)("of %s is parsed alike in records of every size and chunks of one byte", (name) => {
    const handshake = unwrap(fixture(name));
    for (const size of [1, 2, 3, 4, 5, 100, handshake.length - 1, handshake.length]) {
      const bytes = wrap(handshake, () => size);
      expect(inPieces(bytes, 1), `${size}`).toEqual({ is: "hello", hello: CAPTURED[name] });
      expect(parseClientHello(bytes), `${size}`).toEqual({ is: "hello", hello: CAPTURED[name] });
    }
  });
});

describe("the reader", () => {
  test("keeps every byte, including those after the hello", () => {
    const bytes = bytesOf(hello(), [20, 3, 3, 0, 1, 1], "early data");
    const whole = new HelloReader();
    expect(whole.push(bytes).is).toBe("hello");
    expect([...whole.bytes]).toEqual([...bytes]);
    const reader = new HelloReader();
    for (let at = 0; at < bytes.length; at += 7) reader.push(bytes.slice(at, at + 7));
    expect(reader.push(new Uint8Array(0)).is).toBe("hello");
    expect([...reader.bytes]).toEqual([...bytes]);
  });

  test("does not write to a pushed chunk, nor behind it", () => {
    const bytes = hello({ extensions: [serverName("a.example")] });
    const memory = new Uint8Array(4096);
    memory.set(bytes);
    const reader = new HelloReader();
    reader.push(memory.subarray(0, 50));
    memory.fill(0x77, 50);
    expect(reader.push(bytes.slice(50))).toMatchObject({ hello: { serverName: "a.example" } });
    expect(memory.subarray(50).every((byte) => byte === 0x77)).toBe(true);
  });

  test("copies a byte a few times at most, with records and chunks of one byte", () => {
    const bytes = wrap(unwrap(fixture("go-post-quantum")), () => 1);
    const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array;
    let copied = 0;
    const { set } = typedArray;
    typedArray.set = function (this: Uint8Array, source: ArrayLike<number>, offset?: number) {
      copied += source.length;
      set.call(this, source, offset);
    };
    try {
      expect(inPieces(bytes, 1).is).toBe("hello");
    } finally {
      typedArray.set = set;
    }
    expect(copied).toBeGreaterThan(bytes.length);
    expect(copied).toBeLessThan(4 * bytes.length);
  });
});

describe("bytes that are not TLS", () => {
  test.each([
    ["HTTP", "G"],
    ["a PROXY header", "P"],
    ["SSL 2", [0x80]],
    ["a TLS alert", [21]],
    ["application data", [23]],
    ["a change of cipher", [20]],
    ["a handshake of another protocol", [22, 2]],
  ])("is detected at the first byte that differs: %s", (_what, part) => {
    const bytes = bytesOf(part);
    expect(parseClientHello(bytes.subarray(0, -1))).toEqual({ is: "more" });
    expect(parseClientHello(bytes)).toEqual({ is: "not_tls" });
  });
});

describe("an invalid beginning", () => {
  test.each([
    ["a record longer than the standard's", [22, 3, 1, 0x40, 0x01]],
    ["a record much longer", [22, 3, 1, 0x41]],
    ["an empty record", [22, 3, 1, 0, 0]],
    ["an empty record after a good one", [22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0]],
    ["an alert amid the hello", [22, 3, 1, 0, 1, 1, 21]],
    ["a record of another version amid the hello", [22, 3, 1, 0, 1, 1, 22, 2]],
    ["another message", [22, 3, 1, 0, 100, 2]],
    ["a message of 16 MB", [22, 3, 1, 0, 100, 1, 0xff]],
    ["a message of 64 KB", [22, 3, 1, 0, 100, 1, 1]],
    ["a message of 16 KB and more", [22, 3, 1, 0, 100, 1, 0, 0x40]],
    ["a message of 16 KB and a byte", [22, 3, 1, 0, 100, 1, 0, 0x3f, 0xfd]],
    ["a message too short for a ClientHello", [22, 3, 1, 0, 44, 1, 0, 0, 40]],
    ["more in the record than the message", [22, 3, 1, 0, 100, 1, 0, 0, 95]],
    ["more in a later record than the message", [22, 3, 1, 0, 4, 1, 0, 0, 41, 22, 3, 1, 0, 42]],
  ])("is refused at once: %s", (_what, numbers) => {
    const bytes = Uint8Array.from(numbers);
    expect(parseClientHello(bytes).is).toBe("bad");
    expect(inPieces(bytes, 1)).toEqual(parseClientHello(bytes));
    expect(parseClientHello(bytes.subarray(0, -1)).is).toBe("more");
  });

  test("is not a beginning just within the limits", () => {
    const empty = message({ extensions: [extension(21)] }).bytes.length;
    const longest = message({
      extensions: [extension(21, new Uint8Array(HELLO_HANDSHAKE_BYTES_MAX - empty))],
    }).bytes;
    expect(longest.length).toBe(HELLO_HANDSHAKE_BYTES_MAX);
    expect(longest.length).toBe(RECORD_BYTES_MAX);
    expect(parseClientHello(bytesOf(record(longest))).is).toBe("hello");
    const shortest = message({ sessionId: [], extensions: null }).bytes;
    expect(shortest.length).toBe(4 + 41);
    expect(parseClientHello(bytesOf(record(shortest))).is).toBe("hello");
    expect(parseClientHello(Uint8Array.from([22, 3, 1, 0x40, 0x00])).is).toBe("more");
  });
});

describe("a wrong length", () => {
  const whole = record(
    message({
      extensions: [
        extension(10, vector(2, "not read", u16(29))),
        serverName("a.example"),
        alpn("h2", "http/1.1"),
        supportedVersions(0x0304, 0x0303),
        ech(),
        extension(65281, [0]),
      ],
    }),
  );
  const fields = whole.lengths.filter(({ of }) => of !== "not read");

  test("is tested in every field", () => {
    expect(parseClientHello(Uint8Array.from(whole.bytes)).is).toBe("hello");
    expect(fields.map(({ of }) => of).join()).toBe(
      "record,message,session id,cipher suites,compression methods,extensions,extension 10," +
        "extension 0,server names,server name,extension 16,ALPN list,ALPN name,ALPN name," +
        "extension 43,versions,extension 65037,ECH key,ECH payload,extension 65281",
    );
  });

  test.each(fields)("is refused, or waits for the announced bytes: $of at $at", ({ at, size, of }) => {
    for (const by of [-1, 1, 255]) {
      const bytes = Uint8Array.from(whole.bytes);
      const last = at + size - 1;
      if (by === 255) bytes[size > 1 ? last - 1 : last]! += by;
      else bytes[last]! += by;
      const answer = parseClientHello(bytes);
      // A longer message might come in a further record. The message that ends in it shows the longer record.
      if (of === "message" && by > 0) expect(["more", "bad"]).toContain(answer.is);
      else expect(answer.is, `${of} ${by}`).toBe("bad");
      expect(inPieces(bytes, 1), `${of} ${by}`).toEqual(answer);
    }
  });
});

describe("the server name", () => {
  test.each([
    ["a.example", "a.example"],
    ["API.Example.COM", "api.example.com"],
    ["a.example.", "a.example"],
    ["xn--bcher-kva.example", "xn--bcher-kva.example"],
    ["_srv.a_b.example", "_srv.a_b.example"],
    ["localhost", "localhost"],
    [`${"a".repeat(63)}.b`, `${"a".repeat(63)}.b`],
    [`${"a.".repeat(127)}b`, `${"a.".repeat(127)}b`],
  ])("of %j is %j", (given, name) => {
    expect(nameOf(given)).toBe(name);
  });

  test.each(["192.0.2.1", "192.0.2.1.", "2001:db8::1", "[::1]", "::1"])("is none for the IP address %j", (given) => {
    expect(nameOf(given)).toBeNull();
  });

  test.each([
    ".",
    "..",
    "a..b",
    ".a",
    "a.b..",
    "a b",
    "a/b",
    "*.a",
    "b\xfccher.example",
    "a\r\nb",
    `${"a".repeat(64)}.b`,
  ])("is none for %j, which is not a host name", (given) => {
    expect(nameOf(given)).toBeNull();
  });

  test("makes the hello invalid when it is empty, too long, has a NUL or occurs twice", () => {
    expect(fault({ extensions: [serverName("")] })).toBe("a host name of 0 bytes");
    expect(read({ extensions: [serverName("a.".repeat(127))] }).serverName).toHaveLength(253);
    expect(fault({ extensions: [serverName("a.".repeat(128))] })).toBe("a host name of 256 bytes");
    expect(fault({ extensions: [serverName("a.example\0.evil")] })).toBe("a NUL in the host name");
    expect(fault({ extensions: [serverName("a", "b")] })).toBe("two host names");
    expect(fault({ extensions: [extension(0)] })).toBe("wrong length of server_name");
    expect(fault({ extensions: [extension(0, u16(0))] })).toBe("wrong length of server_name");
  });

  test("is found after a name of another type", () => {
    const names = vector(2, "server names", [9], vector(2, "other", "x\0y"), [0], vector(2, "host", "a.example"));
    expect(read({ extensions: [extension(0, names)] }).serverName).toBe("a.example");
  });
});

describe("ALPN", () => {
  test("keeps the client's order and every byte", () => {
    expect(read({ extensions: [alpn("http/1.1", "h2", "\xff\0", "h2")] }).alpn).toEqual([
      "http/1.1",
      "h2",
      "\xff\0",
      "h2",
    ]);
  });

  test("leaves out GREASE values, and nothing that only resembles them", () => {
    const names = ["\x0a\x0a", "h2", "\xfa\xfa", "\x0a\x1a", "\x0b\x0b", "zz", "\x3a"];
    expect(read({ extensions: [alpn(...names)] }).alpn).toEqual(["h2", "\x0a\x1a", "\x0b\x0b", "\x3a"]);
  });

  test("makes the hello invalid when it is empty or has an empty name", () => {
    expect(fault({ extensions: [alpn()] })).toBe("wrong length of the ALPN extension");
    expect(fault({ extensions: [alpn("h2", "")] })).toBe("wrong length of an ALPN name");
  });
});

describe("the versions", () => {
  test("are those of supported_versions, whatever legacy_version is", () => {
    const versions = (...list: number[]) =>
      read({ legacyVersion: 0x0301, extensions: [supportedVersions(...list)] }).versions;
    expect(versions(0x0304)).toEqual({ min: 0x0304, max: 0x0304 });
    expect(versions(0x0303, 0x0304, 0x0302)).toEqual({ min: 0x0302, max: 0x0304 });
    expect(versions(0xfafa, 0x7f1c, 0x0303)).toEqual({ min: 0x0303, max: 0x0303 });
  });

  test("without that extension are legacy_version, and at most TLS 1.2", () => {
    expect(read({ legacyVersion: 0x0301 }).versions).toEqual({ max: 0x0301 });
    expect(read({ legacyVersion: 0x0304 }).versions).toEqual({ max: 0x0303 });
    expect(read({ extensions: null }).versions).toEqual({ max: 0x0303 });
  });

  test("make the hello invalid when there is none, or an incomplete one", () => {
    expect(fault({ extensions: [supportedVersions(0x5a5a, 0x7f1c)] })).toBe("no version of TLS in supported_versions");
    expect(fault({ extensions: [extension(43, vector(1, "versions"))] })).toBe("wrong length of supported_versions");
    expect(fault({ extensions: [extension(43, vector(1, "versions", [3, 4, 3]))] })).toBe(
      "wrong length of supported_versions",
    );
    expect(fault({ legacyVersion: 0x0200 })).toBe("legacy_version is not of TLS");
    expect(fault({ legacyVersion: 0xfefd })).toBe("legacy_version is not of TLS");
  });
});

describe("ECH", () => {
  test("is recognised in the outer form of a client, not in the inner form of a server", () => {
    expect(read({ extensions: [ech()] }).ech).toBe(true);
    expect(read({ extensions: [extension(0xfe0d, [1])] }).ech).toBe(false);
  });

  test.each([[[]], [[2]], [[1, 0]], [[0]], [[0, 0, 1, 0, 1, 7, 0, 0]], [[0, 0, 1, 0, 1, 7, 0, 0, 0, 0]]])(
    "makes the hello invalid when it is %j",
    (data) => {
      expect(fault({ extensions: [extension(0xfe0d, data)] })).toBe("malformed encrypted_client_hello");
    },
  );
});

describe("the fields of the message", () => {
  test("have the lengths of the standard", () => {
    expect(fault({ sessionId: new Uint8Array(33) })).toBe("wrong length of the session id");
    expect(fault({ sessionId: [], suites: [], compressions: [0, 1, 2] })).toBe("wrong length of the cipher suites");
    expect(fault({ suites: [1, 2, 3] })).toBe("wrong length of the cipher suites");
    expect(fault({ compressions: [] })).toBe("wrong length of the compression methods");
  });

  test("end where their lengths say, without further bytes", () => {
    const list = vector(2, "list", [0], vector(2, "name", "a.example"));
    expect(fault({ extensions: [extension(0, list, [0])] })).toBe("wrong length of server_name");
    const protocols = vector(2, "list", vector(1, "name", "h2"));
    expect(fault({ extensions: [extension(16, protocols, [0])] })).toBe("wrong length of the ALPN extension");
    const versions = vector(1, "versions", u16(0x0304));
    expect(fault({ extensions: [extension(43, versions, [0])] })).toBe("wrong length of supported_versions");
    const message = vector(3, "message", u16(0x0303), new Uint8Array(32), [0], [0, 2, 1, 1], [1, 0], [0, 0], [0]);
    expect(parseClientHello(bytesOf(record([1], message)))).toEqual({
      is: "bad",
      why: "wrong length of the extensions",
      alert: ALERTS.decodeError,
    });
  });

  test("may not contain an extension twice, known or not", () => {
    expect(fault({ extensions: [extension(99), extension(98), extension(99)] })).toBe("extension 99 twice");
    expect(fault({ extensions: [serverName("a"), alpn("h2"), serverName("b")] })).toBe("extension 0 twice");
  });
});

describe("the alert for an invalid hello", () => {
  const alertOf = (bytes: Uint8Array): number => (parseClientHello(bytes) as Extract<HelloAnswer, { is: "bad" }>).alert;

  test("is decode_error if a length is wrong", () => {
    expect(alertOf(hello({ compressions: [] }))).toBe(50);
    expect(alertOf(hello({ extensions: [extension(16, [9])] }))).toBe(50);
  });

  test("is illegal_parameter if the syntax is valid and the content is not", () => {
    expect(alertOf(hello({ extensions: [extension(99), extension(99)] }))).toBe(47);
    expect(alertOf(hello({ extensions: [serverName("a", "b")] }))).toBe(47);
  });

  test("is protocol_version if no version is a TLS version", () => {
    expect(alertOf(hello({ extensions: [supportedVersions(0x7f1c)] }))).toBe(70);
    expect(alertOf(hello({ legacyVersion: 0x0200 }))).toBe(70);
  });

  test("is unexpected_message for another message, record_overflow for a record that is too long", () => {
    expect(alertOf(hello({}).with(5, 2))).toBe(10);
    expect(alertOf(hello({}).with(3, 0xff))).toBe(22);
  });
});
