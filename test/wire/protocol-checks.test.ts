// The exchanges that know a protocol: what they send, and their results for answers, however those are cut.
import { describe, expect, test } from "vitest";
import { AgentExchange, NOTHING_REPORTED } from "../../src/wire/agent.ts";
import type { Cut, Exchange, Step } from "../../src/wire/exchange.ts";
import { MYSQL_BYTES_MAX, MysqlCheck } from "../../src/wire/mysql-check.ts";
import { redisExchange, smtpExchange, sshExchange } from "../../src/wire/named-exchanges.ts";
import { POSTGRES_MESSAGE_BYTES_MAX, PostgresCheck } from "../../src/wire/postgres-check.ts";
import { forSeeds } from "../support/random.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");
const words = (step: Step): string => {
  if (step.is === "tls") return `tls, ${words(step.next)}`;
  const sent = step.send === null ? "" : `${JSON.stringify(Buffer.from(step.send).toString("latin1"))} `;
  return sent + (step.is === "bad" ? `bad: ${step.why}` : step.is);
};

/** What an exchange sends first and after each answer; the last step must not depend on how the last answer is cut. */
function talk(make: () => Exchange, answers: (string | Uint8Array)[], cut?: Cut): string[] {
  const exchange = make();
  const said = [words(exchange.begin())];
  const all = answers.map((answer) => (typeof answer === "string" ? bytes(answer) : answer));
  for (const answer of all) said.push(words(exchange.push(answer)));
  const last = all.at(-1) ?? bytes("");
  for (let at = 1; at < last.length; at++) {
    const again = make();
    again.begin();
    for (const answer of all.slice(0, -1)) again.push(answer);
    const first = again.push(last.slice(0, at));
    // An early result stays the same, whatever follows.
    const step = first.is === "more" && first.send === null ? again.push(last.slice(at)) : first;
    expect(step.is, `cut at ${at}`).toBe(
      said.at(-1)!.includes("bad:") ? "bad" : said.at(-1)!.split(" ").at(-1)!.split(",")[0],
    );
  }
  if (cut !== undefined) said.push(words(exchange.end(cut)));
  return said;
}

describe("Redis", () => {
  const info = (role: string) => `+PONG\r\n$60\r\n# Replication\r\nrole:${role}\r\nconnected_slaves:0\r\n\r\n`;

  test.each([
    ["+PONG\r\n", "ok"],
    ["-NOAUTH Authentication required.\r\n", "ok"],
    ["-NOPERM this user has no permissions to run the 'ping' command\r\n", "ok"],
    ["-NOREPLICAS Not enough\r\n", 'bad: expected +PONG, found "-NOREPLICAS Not enough"'],
    ["-LOADING Redis is loading\r\n", 'bad: expected +PONG, found "-LOADING Redis is loading"'],
    ["HTTP/1.1 400 Bad Request\r\n", 'bad: expected +PONG, found "HTTP/1.1 400 Bad Request"'],
    ["+PONGS\r\n", "more"],
  ])("PING: %j", (answer, step) => {
    expect(talk(() => redisExchange(""), [answer])).toEqual(['"PING\\r\\n" more', step]);
  });

  test.each([
    ["master", info("master"), "ok"],
    ["master", info("slave"), 'bad: expected role:master, found "role:slave"'],
    ["replica", info("slave"), "ok"],
    ["replica", info("master"), 'bad: expected role:slave, found "role:master"'],
    // A master that loads its data already has its role.
    ["master", info("master").replace("+PONG", "-LOADING x"), 'bad: expected role:master, found "-LOADING x"'],
    ["master", "+PONG\r\n-NOPERM this user\r\n", 'bad: expected role:master, found "-NOPERM this user"'],
  ] as const)("%s: %j", (role, answer, step) => {
    expect(talk(() => redisExchange(role), [answer])).toEqual(['"PING\\r\\nINFO replication\\r\\n" more', step]);
  });
});

test.each([
  [
    ["220 mail.example ESMTP\r\n", "250-mail.example\r\n250 OK\r\n"],
    ["more", '"EHLO localhost\\r\\n" more', '"QUIT\\r\\n" ok'],
  ],
  [["220-hello\r\n220 there\r\n"], ["more", '"EHLO localhost\\r\\n" more']],
  [["220\r\n"], ["more", '"EHLO localhost\\r\\n" more']],
  [["421 too busy\r\n"], ["more", '"QUIT\\r\\n" bad: expected 220, found "421 too busy"']],
  [
    ["220 x\r\n", "502 no\r\n"],
    ["more", '"EHLO localhost\\r\\n" more', '"QUIT\\r\\n" bad: expected 250, found "502 no"'],
  ],
  [["220-x\r\n554 no\r\n"], ["more", '"QUIT\\r\\n" bad: expected 220, found "554 no"']],
])("SMTP: %j", (answers, said) => {
  expect(talk(smtpExchange, answers)).toEqual(said);
});

test.each([
  ["SSH-2.0-OpenSSH_9.2p1\r\n", "ok"],
  ["Be careful\r\nSSH-1.99-x\n", "ok"],
  ["SSH-1.5-x\r\n", 'bad: expected SSH-2.0, found "SSH-1.5-x"'],
  ["220 mail\r\n", "more"],
])("SSH: %j", (answer, step) => {
  expect(talk(sshExchange, [answer])).toEqual(['"SSH-2.0-lb\\r\\n" more', step]);
});

describe("PostgreSQL", () => {
  const SSL = '"\\u0000\\u0000\\u0000\\b\\u0004Ò\\u0016/" more';
  const check =
    (user = "", isSecured = false) =>
    () =>
      new PostgresCheck({ user, isSecured });
  const message = (type: string, body: string): Uint8Array => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length + 4);
    return Buffer.concat([bytes(type), length, bytes(body)]);
  };
  const failure = message("E", "SFATAL\0C57P03\0Mthe database system is starting up\0\0");

  test("without a user ends with TLS, or with the answer that the server has none", () => {
    expect(talk(check(), ["S"])).toEqual([SSL, "tls, ok"]);
    expect(talk(check(), ["N"])).toEqual([SSL, "ok"]);
    expect(talk(check("", true), [])).toEqual(["ok"]);
    expect(talk(check(), ["HTTP"])[1]).toBe('bad: the answer is not PostgreSQL\'s: "HTTP"');
    expect(talk(check(), [failure])[1]).toBe('bad: error 57P03: "the database system is starting up"');
    expect(talk(check(), [], "closed")).toEqual([SSL, "bad: closed before the answer"]);
  });

  test("does not take plaintext bytes for encrypted ones", () => {
    const exchange = check()();
    exchange.begin();
    expect(words(exchange.push(bytes("SR")))).toContain("unexpected bytes after the answer to SSLRequest");
  });

  test("with a user accepts a request for a password as success, and terminates if it is logged in", () => {
    const packet =
      '"\\u0000\\u0000\\u00007\\u0000\\u0003\\u0000\\u0000user\\u0000lb\\u0000database\\u0000postgres\\u0000application_name\\u0000lb\\u0000\\u0000" more';
    expect(talk(check("lb"), ["S"])).toEqual([SSL, `tls, ${packet}`]);
    expect(talk(check("lb"), ["N", message("R", "\0\0\0\x0aSCRAM-SHA-256\0\0")])).toEqual([SSL, packet, "ok"]);
    const accepted = message("R", "\0\0\0\0");
    const login = Buffer.concat([accepted, message("S", "TimeZone\0UTC\0"), message("K", "\0\0\0\x01key!")]);
    expect(talk(check("lb", true), [login, message("Z", "I")])).toEqual([
      packet,
      "more",
      '"X\\u0000\\u0000\\u0000\\u0004" ok',
    ]);
    expect(talk(check("lb", true), [Buffer.concat([message("N", "Mhello\0\0"), failure])])[1]).toBe(
      'bad: error 57P03: "the database system is starting up"',
    );
    for (const early of [message("Z", "I"), message("S", "TimeZone\0UTC\0"), message("R", "")])
      expect(talk(check("lb", true), [early])[1]).toContain("the answer is not PostgreSQL's");
    expect(talk(check("lb", true), [], "timeout").at(-1)).toBe("bad: no answer in time");
  });

  test("with a user fails if the server has no connection left, which it says only after it has accepted the login", () => {
    const full = message("E", "SFATAL\0C53300\0Mremaining connection slots are reserved\0\0");
    expect(talk(check("lb", true), [message("R", "\0\0\0\0"), full])[2]).toBe(
      'bad: error 53300: "remaining connection slots are reserved"',
    );
  });

  test("reads no message larger than necessary", () => {
    const large = (length: number) => message("N", "x".repeat(length - 5));
    const exchange = check("lb", true)();
    exchange.begin();
    expect(exchange.push(large(POSTGRES_MESSAGE_BYTES_MAX)).is).toBe("more");
    const other = check("lb", true)();
    other.begin();
    expect(other.push(large(POSTGRES_MESSAGE_BYTES_MAX + 1)).is).toBe("bad");
  });
});

describe("MySQL", () => {
  const packet = (sequence: number, body: string): Uint8Array =>
    Buffer.concat([Uint8Array.of(body.length & 255, body.length >> 8, 0, sequence), bytes(body)]);
  const greeting = packet(
    0,
    `\x0a8.0.36\0\x01\0\0\0${"s".repeat(8)}\0\xff\xff\x21\x02\0\xff\xdf\x15${"\0".repeat(10)}${"t".repeat(12)}\0caching_sha2_password\0`,
  );
  const QUIT = '"\\u0001\\u0000\\u0000\\u0000\\u0001"';
  const check =
    (user = "") =>
    () =>
      new MysqlCheck(user);

  test("without a user quits after the greeting, with the packet number that follows it", () => {
    expect(talk(check(), [greeting])).toEqual(["more", `${QUIT.replace("0000\\u0001", "0001\\u0001")} ok`]);
    expect(talk(check(), [packet(0, "\xff\x69\x04Host is blocked")])[1]).toBe('bad: error 1129: "Host is blocked"');
    expect(talk(check(), ["SSH-2.0-OpenSSH\r\n"])[1]).toContain("the answer is not MySQL's");
    expect(talk(check(), [], "closed").at(-1)).toBe("bad: closed before the answer");
  });

  test("with a user logs in as the server asks, with an empty password", () => {
    const [, login] = talk(check("lb"), [greeting]);
    expect(login).toContain("lb\\u0000\\u0000caching_sha2_password\\u0000");
    const sent = check("lb")();
    sent.begin();
    const step = sent.push(greeting);
    const [low, middle, high, sequence] = step.is === "more" ? step.send! : [];
    expect([low! | (middle! << 8) | (high! << 16), sequence]).toEqual([step.is === "more" && step.send!.length - 4, 1]);

    expect(talk(check("lb"), [greeting, packet(2, "\0\0\0\x02\0\0\0")])[2]).toBe(`${QUIT} ok`);
    expect(talk(check("lb"), [greeting, packet(2, "\xff\x15\x04#28000Access denied")])[2]).toBe(
      'bad: error 1045: "Access denied"',
    );
    const other = packet(2, "\xfemysql_native_password\0salt\0");
    expect(talk(check("lb"), [greeting, other, packet(4, "\0\0\0\x02\0\0\0")]).slice(2)).toEqual([
      '"\\u0000\\u0000\\u0000\\u0003" more',
      `${QUIT} ok`,
    ]);
    expect(
      talk(check("lb"), [greeting, Buffer.concat([packet(2, "\x01\x03"), packet(3, "\0\0\0\x02\0\0\0")])])[2],
    ).toBe(`${QUIT} ok`);
    expect(talk(check("lb"), [greeting, packet(2, "\x01\x04")])[2]).toContain("the user has a password");
    expect(talk(check("lb"), [greeting, packet(2, "\x0b")])[2]).toContain("the answer is not MySQL's");
  });

  test("reads no more than necessary", () => {
    const exchange = check("lb")();
    exchange.begin();
    exchange.push(greeting);
    let step: Step = exchange.push(packet(2, "\x01\x03"));
    for (let i = 0; i < MYSQL_BYTES_MAX && step.is === "more"; i++) step = exchange.push(packet(2, "\x01\x03"));
    expect(step.is).toBe("bad");
  });
});

test("random bytes make no check throw", () => {
  const makes = [
    () => redisExchange(""),
    () => redisExchange("master"),
    smtpExchange,
    sshExchange,
    () => new PostgresCheck({ user: "lb", isSecured: false }),
    () => new PostgresCheck({ user: "lb", isSecured: true }),
    () => new MysqlCheck("lb"),
    () => new AgentExchange(NOTHING_REPORTED),
  ];
  const login = "R\0\0\0\x08\0\0\0\0S\0\0\0\x04";
  forSeeds(500, (random) => {
    const exchange = random.pick(makes)();
    let { is } = exchange.begin();
    for (let i = random.between(1, 20); i > 0 && is === "more"; i--) {
      const chunk = random.oneIn(2)
        ? random.bytes(random.below(40))
        : bytes(random.pick(["N", "R", login, "\x01\0\0\0\xfe", "220 ", "up,", "5% #", "\r\n"]));
      ({ is } = exchange.push(chunk));
    }
    if (is === "more") expect(["ok", "bad"]).toContain(exchange.end(random.pick(["closed", "timeout"] as const)).is);
  });
});
