import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import type { ProxyAnswer, ProxyEnd, ProxyHeader, Tlvs } from "../../src/wire/proxy-protocol.ts";
import {
  describeTlvs,
  parseProxyHeader,
  proxyHeaderV1,
  proxyHeaderV2,
  PROXY_V1_BYTES_MAX,
  PROXY_V2_BYTES_MAX,
  SENT_TEXT_BYTES_MAX,
  UNIQUE_ID_BYTES_MAX,
} from "../../src/wire/proxy-protocol.ts";

const ascii = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));
const hex = (text: string) => new Uint8Array(Buffer.from(text.replace(/\s/g, ""), "hex"));
const concat = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const end = (address: string, port: number): ProxyEnd => ({ address: parseAddress(address)!, port });

const CLIENT4 = end("192.168.0.1", 56324);
const SERVER4 = end("192.168.0.11", 443);
const CLIENT6 = end("2001:db8::1", 56324);
const SERVER6 = end("2001:db8::ffff:b", 443);

/** A header of version 2 from its parts; the length is that of the block, or `length`. */
function v2(versionAndCommand: number, family: number, block: Uint8Array, length = block.length): Uint8Array {
  return concat(ascii("\r\n\r\n\0\r\nQUIT\n"), Uint8Array.of(versionAndCommand, family, length >> 8, length), block);
}

const tlv = (type: number, value: Uint8Array, length = value.length) =>
  concat(Uint8Array.of(type, length >> 8, length), value);

const INET_BLOCK = hex("c0a80001 c0a8000b dc04 01bb");

const withTlvs = (...tlvs: Uint8Array[]) => v2(0x21, 0x11, concat(INET_BLOCK, ...tlvs));

/** The answer, which must be the same from the first byte on that decides it, and "more" before. */
function parse(bytes: Uint8Array): ProxyAnswer {
  const whole = parseProxyHeader(bytes);
  let length = 0;
  while (length < bytes.length && parseProxyHeader(bytes.slice(0, length)).is === "more") length++;
  if (whole.is === "proxy") expect(length).toBe(whole.length);
  for (; length <= bytes.length; length++) expect(parseProxyHeader(bytes.slice(0, length))).toEqual(whole);
  for (const behind of ["G", "\n", "\0".repeat(5000)]) {
    if (whole.is !== "more") expect(parseProxyHeader(concat(bytes, ascii(behind)))).toEqual(whole);
  }
  return whole;
}

function headerOf(bytes: Uint8Array): ProxyHeader {
  const answer = parse(bytes);
  expect(answer).toHaveProperty("header");
  const { header, length } = answer as Extract<ProxyAnswer, { is: "proxy" }>;
  expect(length).toBe(bytes.length);
  return header;
}

const tlvsOf = (bytes: Uint8Array) => headerOf(bytes).tlvs as Tlvs;

/** Expects that it is refused at its last byte, neither earlier nor later. */
function expectBadAtLast(bytes: Uint8Array, why?: string): void {
  expect(parseProxyHeader(bytes.slice(0, -1)), "one byte earlier").toEqual({ is: "more" });
  expect(parse(bytes)).toEqual({ is: "bad", why: why ?? expect.any(String) });
}

describe("bytes that are not a header", () => {
  test.each(["G", "\x16", "\0", "p", "PR0", "PROXI", "\r\nG", "\r\n\r\n\0\r\nQUIT\r", "PROX\r"])(
    "are detected at the first byte that differs: %j",
    (text) => {
      expect(parseProxyHeader(ascii(text.slice(0, -1)))).toEqual({ is: "more" });
      expect(parse(ascii(text))).toEqual({ is: "none" });
    },
  );

  test("are not the empty input", () => {
    expect(parseProxyHeader(new Uint8Array(0))).toEqual({ is: "more" });
  });
});

describe("version 1", () => {
  const line = (text: string) => ascii(`${text}\r\n`);
  const v1 = (source: ProxyEnd | null, destination: ProxyEnd | null): ProxyHeader => ({
    version: 1,
    command: "proxy",
    source,
    destination,
    tlvs: null,
  });

  test.each([
    ["PROXY TCP4 192.168.0.1 192.168.0.11 56324 443", v1(CLIENT4, SERVER4)],
    ["PROXY TCP4 255.255.255.255 0.0.0.0 65535 0", v1(end("255.255.255.255", 65535), end("0.0.0.0", 0))],
    ["PROXY TCP6 2001:db8::1 2001:DB8::FFFF:B 56324 443", v1(CLIENT6, SERVER6)],
    ["PROXY TCP6 :: ::1 1 2", v1(end("::", 1), end("::1", 2))],
    ["PROXY TCP6 ::ffff:192.168.0.1 ::ffff:c0a8:b 56324 443", v1(CLIENT4, SERVER4)],
    ["PROXY TCP6 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: 1 2", v1(end("1:2:3:4:5:6:7:8", 1), end("1:2:3:4:5:6:7:0", 2))],
    ["PROXY UNKNOWN", v1(null, null)],
    ["PROXY UNKNOWN ", v1(null, null)],
    ["PROXY UNKNOWN whatever  there\0is, \xff", v1(null, null)],
  ])("reads %j", (text, header) => {
    expect(headerOf(line(text))).toEqual(header);
  });

  test("parses lines of the maximum length, and none that is longer", () => {
    const group = "ffff:".repeat(8).slice(0, -1);
    expect(headerOf(line(`PROXY TCP6 ${group} ${group} 65535 65535`)).source?.port).toBe(65535);
    const longest = line(`PROXY UNKNOWN ${group} ${group} 65535 65535`);
    expect(longest.length).toBe(PROXY_V1_BYTES_MAX);
    expect(headerOf(longest)).toEqual(v1(null, null));
    // The line is lost when its CR LF no longer fits.
    expectBadAtLast(ascii(`PROXY UNKNOWN ${"x".repeat(PROXY_V1_BYTES_MAX - 14 - 1)}`));
    const mapped = "0000:0000:0000:0000:0000:ffff:255.255.255.255";
    expectBadAtLast(ascii(`PROXY TCP6 ${mapped} ${mapped}`.slice(0, PROXY_V1_BYTES_MAX - 6 + 1)));
  });

  test.each([
    "PROXYX",
    "PROXY\r",
    "PROXY  ",
    "PROXY TCP4 1.2.3.4  ",
    "PROXY X",
    "PROXY T\r",
    "PROXY TCP5",
    "PROXY t",
    "PROXY TCP4\r",
    "PROXY TCP44",
    "PROXY UNKNOWNS",
    "PROXY UNKNOW ",
    "PROXY TCP4 256",
    "PROXY TCP4 01",
    "PROXY TCP4 1..",
    "PROXY TCP4 1.2.3 ",
    "PROXY TCP4 1.2.3.4.",
    "PROXY TCP4 :",
    "PROXY TCP4 1.2.3.4\r",
    "PROXY TCP4 1.2.3.4 5.6.7.8\r",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1\r",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
    "PROXY TCP4 1.2.3.4 5.6.7.8 65536",
    "PROXY TCP4 1.2.3.4 5.6.7.8 00",
    "PROXY TCP4 1.2.3.4 5.6.7.8 -",
    "PROXY TCP4 1.2.3.4 5.6.7.8 +",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\t",
    "PROXY TCP6 1.",
    "PROXY TCP6 12345",
    "PROXY TCP6 :::",
    "PROXY TCP6 ::1::",
    "PROXY TCP6 1:2:3:4:5:6:7:8:",
    "PROXY TCP6 1:2:3:4:5:6:7:8.",
    "PROXY TCP6 ::%",
    "PROXY TCP6 [",
    "PROXY TCP6 ::1.2.3.4 ::1.256",
    "PROXY UNKNOWN\n",
    "PROXY UNKNOWN a\n",
    "PROXY UNKNOWN\r\r",
  ])("refuses %j at its last byte", (text) => {
    expectBadAtLast(ascii(text));
  });
});

describe("version 2", () => {
  const header = (command: "proxy" | "local", source: ProxyEnd | null, destination: ProxyEnd | null): ProxyHeader => ({
    version: 2,
    command,
    source,
    destination,
    tlvs: null,
  });

  test("parses both endpoints over IPv4 and IPv6, streams and datagrams", () => {
    const block6 = hex("20010db8000000000000000000000001 20010db800000000000000 00ffff000b dc04 01bb");
    for (const protocol of [1, 2]) {
      expect(headerOf(v2(0x21, 0x10 | protocol, INET_BLOCK))).toEqual(header("proxy", CLIENT4, SERVER4));
      expect(headerOf(v2(0x21, 0x20 | protocol, block6))).toEqual(header("proxy", CLIENT6, SERVER6));
    }
  });

  test("parses words with the highest bit set as unsigned", () => {
    const { source } = headerOf(v2(0x21, 0x11, hex("ffffffff fffffffe ffff fffe")));
    expect(source).toEqual(end("255.255.255.255", 65535));
  });

  test("parses LOCAL of any length and family, and ignores its content", () => {
    for (const block of [new Uint8Array(0), Uint8Array.of(1), INET_BLOCK, new Uint8Array(PROXY_V2_BYTES_MAX - 16)]) {
      for (const family of [0x00, 0x11, 0x21, 0x31, 0xff]) {
        const answer = parseProxyHeader(v2(0x20, family, block));
        expect(answer).toEqual({ is: "proxy", header: header("local", null, null), length: 16 + block.length });
      }
    }
    expect(headerOf(v2(0x20, 0x00, new Uint8Array(0)))).toEqual(header("local", null, null));
    const wrong = concat(INET_BLOCK, tlv(3, hex("12345678")));
    expect(headerOf(v2(0x20, 0x11, wrong))).toEqual(header("local", null, null));
  });

  test("parses UNIX and UNSPEC as a header without addresses", () => {
    for (const family of [0x31, 0x32]) {
      const unix = v2(0x21, family, concat(new Uint8Array(216).fill(0x2f), tlv(1, ascii("h2"))));
      expect(headerOf(unix)).toMatchObject({ source: null, destination: null, tlvs: { alpn: "h2" } });
    }
    for (const family of [0x00, 0x01, 0x02]) {
      expect(headerOf(v2(0x21, family, tlv(1, ascii("h2"))))).toMatchObject({ source: null, tlvs: { alpn: "h2" } });
      expect(headerOf(v2(0x21, family, new Uint8Array(0)))).toEqual(header("proxy", null, null));
      // Addresses that only the sender understands.
      expect(headerOf(v2(0x21, family, INET_BLOCK))).toEqual(header("proxy", null, null));
    }
    for (const family of [0x10, 0x20, 0x30]) {
      expect(headerOf(v2(0x21, family, new Uint8Array(5)))).toEqual(header("proxy", null, null));
    }
  });

  test.each([
    ["another version", v2(0x31, 0, new Uint8Array(0)).slice(0, 13)],
    ["version 1 in the binary form", v2(0x11, 0, new Uint8Array(0)).slice(0, 13)],
    ["a command that is not assigned", v2(0x22, 0, new Uint8Array(0)).slice(0, 13)],
    ["a family that is not assigned", v2(0x21, 0x41, new Uint8Array(0)).slice(0, 14)],
    ["a protocol that is not assigned", v2(0x21, 0x13, new Uint8Array(0)).slice(0, 14)],
    ["64 KB", v2(0x21, 0x11, new Uint8Array(0), 0xffff).slice(0, 15)],
    ["one byte too many", v2(0x21, 0x11, new Uint8Array(0), PROXY_V2_BYTES_MAX - 15)],
    ["one byte too many in LOCAL", v2(0x20, 0, new Uint8Array(0), PROXY_V2_BYTES_MAX - 15)],
    ["IPv4 addresses cut short", v2(0x21, 0x11, new Uint8Array(0), 11)],
    ["IPv6 addresses cut short", v2(0x21, 0x21, new Uint8Array(0), 35)],
    ["paths cut short", v2(0x21, 0x31, new Uint8Array(0), 215)],
    ["one byte behind the addresses", v2(0x21, 0x11, new Uint8Array(0), 13)],
    ["two bytes behind the addresses", v2(0x21, 0x21, new Uint8Array(0), 38)],
  ])("refuses %s as soon as it is seen", (_what, bytes) => {
    expectBadAtLast(bytes);
  });

  test("parses a header of exactly the maximum length", () => {
    const filler = tlv(4, new Uint8Array(PROXY_V2_BYTES_MAX - 16 - 12 - 3));
    const bytes = withTlvs(filler);
    expect(bytes.length).toBe(PROXY_V2_BYTES_MAX);
    expect(parseProxyHeader(bytes)).toMatchObject({ is: "proxy", length: PROXY_V2_BYTES_MAX });
    expect(parseProxyHeader(bytes.slice(0, -1))).toEqual({ is: "more" });
  });
});

describe("TLVs", () => {
  const NOTHING: Tlvs = {
    alpn: null,
    authority: null,
    uniqueId: null,
    ssl: null,
    netns: null,
    awsVpcEndpointId: null,
    azureLinkId: null,
    checksum: false,
  };

  // The header from the guide to AWS's Network Load Balancer, including checksum and padding.
  const AWS = hex(`
    0d0a0d0a000d0a515549540a 21 11 0054 ac1f0771 ac1f0a1f c8f2 0050
    03 0004 e8d6892d
    ea 0017 01 767063652d3038643262663135666163353030316339
    04 0024 ${"00".repeat(36)}`);

  test("of an AWS load balancer are parsed and the checksum is correct", () => {
    expect(headerOf(AWS)).toEqual({
      version: 2,
      command: "proxy",
      source: end("172.31.7.113", 51442),
      destination: end("172.31.10.31", 80),
      tlvs: { ...NOTHING, checksum: true, awsVpcEndpointId: "vpce-08d2bf15fac5001c9" },
    });
  });

  test("with a wrong checksum, or a correct one over other bytes, are refused", () => {
    for (const at of [16, 31, 34, 40, AWS.length - 1]) {
      const bytes = AWS.slice();
      bytes[at]! ^= 1;
      expectBadAtLast(bytes, "wrong checksum");
    }
  });

  test("of every registered type are parsed", () => {
    const sub = concat(
      tlv(0x21, ascii("TLSv1.3")),
      tlv(0x22, new TextEncoder().encode("Zoë")),
      tlv(0x23, ascii("TLS_AES_128_GCM_SHA256")),
      tlv(0x24, ascii("SHA256")),
      tlv(0x25, ascii("RSA2048")),
      tlv(0x03, ascii("a type that is not known here")),
    );
    const bytes = withTlvs(
      tlv(0x01, ascii("h2")),
      tlv(0x02, new TextEncoder().encode("bücher.example")),
      tlv(0x04, new Uint8Array(5)),
      tlv(0x05, hex("00ff80")),
      tlv(0x20, concat(hex("07 80000001"), sub)),
      tlv(0x30, ascii("blue")),
      tlv(0xea, ascii("\x01vpce-1")),
      tlv(0xee, hex("01 c14500f9")),
      tlv(0x77, ascii("unknown")),
    );
    expect(tlvsOf(bytes)).toEqual({
      alpn: "h2",
      authority: "bücher.example",
      uniqueId: hex("00ff80"),
      ssl: {
        client: 7,
        verify: 0x80000001,
        version: "TLSv1.3",
        cn: "Zoë",
        cipher: "TLS_AES_128_GCM_SHA256",
        sigAlg: "SHA256",
        keyAlg: "RSA2048",
      },
      netns: "blue",
      awsVpcEndpointId: "vpce-1",
      azureLinkId: 0xf90045c1,
      checksum: false,
    });
  });

  test("of types for applications are skipped if they are not one of the known clouds'", () => {
    const others = [tlv(0xea, ascii("\x02vpce-1")), tlv(0xea, ascii("")), tlv(0xee, hex("01 c14500"))];
    expect(tlvsOf(withTlvs(...others, tlv(0xee, hex("02 c1450009")), tlv(0xee, hex(""))))).toEqual(NOTHING);
  });

  test("count at their first occurrence", () => {
    expect(tlvsOf(withTlvs(tlv(1, ascii("h2")), tlv(1, ascii("h3")))).alpn).toBe("h2");
  });

  test("keep no reference to the bytes that they were parsed from", () => {
    const bytes = withTlvs(tlv(5, hex("0102")));
    const { uniqueId } = tlvsOf(bytes);
    bytes.fill(0);
    expect(uniqueId).toEqual(hex("0102"));
  });

  test("are refused for a wrong length as soon as possible", () => {
    // The header ends after 12 + 3 + 4 bytes of block.
    const cut = (type: number, length: number) => v2(0x21, 0x11, concat(INET_BLOCK, tlv(type, hex(""), length)), 19);
    expectBadAtLast(cut(0x04, 5));
    expectBadAtLast(cut(0x04, 0x100).slice(0, -1));
    // The rest has no room for another TLV.
    expectBadAtLast(cut(0x04, 3));
    expectBadAtLast(cut(0x04, 2));
    expect(parse(cut(0x04, 4)).is).toBe("more");
    expect(parse(cut(0x04, 1)).is).toBe("more");
  });

  test("have the lengths that their types allow", () => {
    const cut = (type: number, length: number) => v2(0x21, 0x11, concat(INET_BLOCK, tlv(type, hex(""), length)), 600);
    for (const length of [0, 3, 5, 8]) expectBadAtLast(cut(0x03, length));
    expect(parse(cut(0x03, 4)).is).toBe("more");
    expectBadAtLast(cut(0x03, 0x100).slice(0, -1));
    expect(parse(cut(0x05, UNIQUE_ID_BYTES_MAX)).is).toBe("more");
    expectBadAtLast(cut(0x05, UNIQUE_ID_BYTES_MAX + 1));
    for (const length of [0, 4, 6, 7]) expectBadAtLast(cut(0x20, length));
    for (const length of [5, 8]) expect(parse(cut(0x20, length)).is).toBe("more");
    // If no valid length for the type is left, the type alone is enough.
    for (const [type, room] of [
      [0x03, 3],
      [0x03, 6],
      [0x20, 4],
      [0x20, 6],
      [0x20, 7],
    ] as const) {
      const block = concat(INET_BLOCK, Uint8Array.of(type));
      expectBadAtLast(v2(0x21, 0x11, block, 12 + 3 + room));
    }
  });

  test("have one checksum", () => {
    const bytes = withTlvs(tlv(3, hex("00000000")), tlv(3, hex("00000000")));
    expectBadAtLast(bytes.slice(0, -6), "two checksums");
  });

  test("inside SSL stay inside it", () => {
    const ssl = (parts: Uint8Array) => withTlvs(tlv(0x20, concat(hex("01 00000000"), parts)), tlv(4, hex("0000")));
    expect(tlvsOf(ssl(tlv(0x21, ascii("x")))).ssl?.version).toBe("x");
    expect(parse(ssl(tlv(0x21, ascii("x"), 2))).is).toBe("bad");
    expect(parse(ssl(concat(tlv(0x21, ascii("x")), hex("22"))))).toMatchObject({ is: "bad" });
    expect(parse(ssl(concat(tlv(0x21, ascii("x")), hex("2200"))))).toMatchObject({ is: "bad" });
  });

  test("with any length wrong by one are never accepted unchanged", () => {
    const bytes = withTlvs(tlv(1, ascii("h2")), tlv(0x20, concat(hex("01 00000000"), tlv(0x21, ascii("x")))));
    const lengths = [15, 30, 35, 43];
    expect(lengths.map((at) => bytes[at])).toEqual([29, 2, 9, 1]);
    for (const at of lengths) {
      for (const by of [-1, 1]) {
        const wrong = bytes.slice();
        wrong[at]! += by;
        expect(parse(wrong).is, `${at} ${by}`).toBe("bad");
      }
    }
  });

  test("are described in printable ASCII", () => {
    const bytes = withTlvs(
      tlv(0x02, new TextEncoder().encode('a"\\\n\u{1f600}é')),
      tlv(0x05, hex("41 00 ff")),
      tlv(0x20, concat(hex("03 00000000"), tlv(0x22, ascii("me\x1b[31m")))),
      tlv(0xee, hex("01 01000000")),
    );
    expect(describeTlvs(tlvsOf(bytes))).toEqual({
      authority: 'a\\"\\\\\\x0a\\u{1f600}\\xe9',
      unique_id: "A\\x00\\xff",
      ssl_client: "ssl cert_conn",
      ssl_verify: "0",
      ssl_cn: "me\\x1b[31m",
      azure_link_id: "1",
    });
    expect(describeTlvs(tlvsOf(AWS))).toEqual({ aws_vpc_endpoint_id: "vpce-08d2bf15fac5001c9", checksum: "right" });
    expect(describeTlvs(NOTHING)).toEqual({});
  });
});

describe("sending version 1", () => {
  const sent = (source: ProxyEnd | null, destination: ProxyEnd | null) =>
    Buffer.from(proxyHeaderV1(source, destination)).toString("latin1");

  test.each([
    [CLIENT4, SERVER4, "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"],
    [CLIENT6, SERVER6, "PROXY TCP6 2001:db8::1 2001:db8::ffff:b 56324 443\r\n"],
    [CLIENT4, SERVER6, "PROXY TCP6 ::ffff:c0a8:1 2001:db8::ffff:b 56324 443\r\n"],
    [CLIENT6, SERVER4, "PROXY TCP6 2001:db8::1 ::ffff:c0a8:b 56324 443\r\n"],
    [null, SERVER4, "PROXY UNKNOWN\r\n"],
    [CLIENT4, null, "PROXY UNKNOWN\r\n"],
  ])("%# writes the line of the standard", (source, destination, line) => {
    expect(sent(source, destination)).toBe(line);
    const known = source !== null && destination !== null;
    expect(headerOf(ascii(line))).toMatchObject(known ? { source, destination } : { source: null, destination: null });
  });
});

describe("sending version 2", () => {
  const ends = { command: "proxy", source: CLIENT4, destination: SERVER4 } as const;

  test("writes the bytes of the standard", () => {
    expect(proxyHeaderV2(ends)).toEqual(v2(0x21, 0x11, INET_BLOCK));
    expect(proxyHeaderV2({ ...ends, command: "local", authority: "a", crc: true })).toEqual(v2(0x20, 0x00, hex("")));
    expect(proxyHeaderV2({ ...ends, source: null })).toEqual(v2(0x21, 0x00, hex("")));
    expect(proxyHeaderV2({ ...ends, destination: null, alpn: "h2" })).toEqual(v2(0x21, 0x00, tlv(1, ascii("h2"))));
  });

  test("is parsed again with one endpoint of each family", () => {
    expect(headerOf(proxyHeaderV2({ ...ends, source: CLIENT6 }))).toMatchObject({
      source: CLIENT6,
      destination: SERVER4,
    });
    expect(headerOf(proxyHeaderV2({ ...ends, destination: SERVER6 }))).toMatchObject({
      source: CLIENT4,
      destination: SERVER6,
    });
    expect(proxyHeaderV2({ ...ends, source: CLIENT6 })).toHaveLength(16 + 36);
  });

  test("is parsed again with all its fields", () => {
    const uniqueId = new Uint8Array(UNIQUE_ID_BYTES_MAX).fill(7);
    const tls = {
      version: "TLSv1.3",
      cipher: "TLS_AES_128_GCM_SHA256",
      clientCertificate: { name: "Zoë", resumed: false },
    };
    const bytes = proxyHeaderV2({ ...ends, authority: "bücher.example", alpn: "\xff2", tls, uniqueId, crc: true });
    expect(tlvsOf(bytes)).toEqual({
      alpn: "\xff2",
      authority: "bücher.example",
      uniqueId,
      ssl: { client: 7, verify: 0, version: tls.version, cn: "Zoë", cipher: tls.cipher, sigAlg: null, keyAlg: null },
      netns: null,
      awsVpcEndpointId: null,
      azureLinkId: null,
      checksum: true,
    });
    expect(tlvsOf(proxyHeaderV2({ ...ends, tls: { version: "TLSv1.2" } })).ssl).toMatchObject({ client: 1, verify: 1 });
    // A resumed session's certificate did not come over this connection.
    const resumed = { version: "TLSv1.3", clientCertificate: { name: "", resumed: true } };
    expect(tlvsOf(proxyHeaderV2({ ...ends, tls: resumed })).ssl).toMatchObject({ client: 5, verify: 0, cn: null });
    bytes[20]! ^= 1;
    expectBadAtLast(bytes, "wrong checksum");
  });

  test("leaves out empty and too long values, and fits with all values at their maximum", () => {
    const long = "x".repeat(SENT_TEXT_BYTES_MAX);
    const uniqueId = new Uint8Array(UNIQUE_ID_BYTES_MAX);
    const every = (text: string) => ({
      authority: text,
      alpn: text,
      tls: { version: text, cipher: text, clientCertificate: { name: text, resumed: false } },
    });
    expect(tlvsOf(proxyHeaderV2({ ...ends, ...every(long), source: CLIENT6, uniqueId, crc: true }))).toMatchObject({
      alpn: long,
      authority: long,
      ssl: { version: long, cn: long, cipher: long },
    });
    const longer = proxyHeaderV2({ ...ends, ...every(`${long}x`) });
    expect(tlvsOf(longer)).toMatchObject({
      alpn: null,
      authority: null,
      ssl: { version: null, cn: null, cipher: null },
    });
    expect(proxyHeaderV2({ ...ends, authority: "", alpn: null, tls: null, uniqueId: null })).toHaveLength(28);
    expect(() => proxyHeaderV2({ ...ends, uniqueId: new Uint8Array(UNIQUE_ID_BYTES_MAX + 1) })).toThrow(RangeError);
  });
});
