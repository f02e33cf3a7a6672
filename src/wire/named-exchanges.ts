// The exchanges that have a name in the config: servers that say in one or two lines whether they serve. In patterns (?:^|\n) is the
// beginning of a line, because ^ with the flag m would also match between CR and LF.
import type { Exchange } from "./exchange.ts";
import { StepExchange, type Expectation } from "./step-exchange.ts";

const text = (given: string): Uint8Array => new TextEncoder().encode(given);

const replyOf = (words: string, wanted: RegExp, refused: RegExp): Expectation => {
  return { is: "reply", words, wanted, refused };
};

/**
 * Redis. A server that asks for a password, or whose default user may do nothing, is alive, and everything else it could answer requires
 * a user. The role is requested together with PING, because a master that is still loading its data already says "role:master".
 */
export function redisExchange(role: "" | "master" | "replica"): Exchange {
  if (role === "") {
    const pong = replyOf("+PONG", /^(?:\+PONG\r|-NO(?:AUTH|PERM)[^\n]*)\n/, /^(?!\+PONG|-NO(?:AUTH|PERM))[^\n]*\n/);
    return new StepExchange([{ send: text("PING\r\n"), expect: pong }]);
  }
  const word = role === "master" ? "master" : "slave";
  const wanted = new RegExp(`\\nrole:${word}\\r\\n`);
  const refused = new RegExp(`^(?!\\+PONG)[^\\n]*\\n|\\n-[^\\n]*\\n|\\nrole:(?!${word}\\r)[^\\n]*\\n`);
  return new StepExchange([
    { send: text("PING\r\nINFO replication\r\n"), expect: replyOf(`role:${word}`, wanted, refused) },
  ]);
}

/** SMTP (RFC 5321): greeting, EHLO, QUIT. */
export function smtpExchange(): Exchange {
  const reply = (code: string): Expectation =>
    replyOf(code, new RegExp(`(?:^|\\n)${code}(?: [^\\n]*|\\r)?\\n`), new RegExp(`(?:^|\\n)(?!${code})[^\\n]*\\n`));
  return new StepExchange(
    [
      { send: null, expect: reply("220") },
      { send: text("EHLO localhost\r\n"), expect: reply("250") },
    ],
    text("QUIT\r\n"),
  );
}

/** SSH: both sides send their version (RFC 4253 section 4.2); the server may send other lines first. */
export function sshExchange(): Exchange {
  const wanted = /(?:^|\n)SSH-(?:2\.0|1\.99)-[^\n]*\n/;
  const refused = /(?:^|\n)SSH-(?!2\.0-|1\.99-)[^\n]*\n/;
  return new StepExchange([{ send: text("SSH-2.0-lb\r\n"), expect: replyOf("SSH-2.0", wanted, refused) }]);
}
