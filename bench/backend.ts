// The backend of all contenders: nginx with one worker, a 16-byte answer from memory and a large file.
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { nginxCommand, nginxPreamble } from "./contenders.ts";

export const smallPath = "/small";
export const largePath = "/large";
export const largeBytes = 256 * 2 ** 20;

/** The loopback addresses on which it listens; each can be a backend. */
export const backendHosts = Array.from({ length: 10 }, (_, i) => `127.0.0.${i + 1}`);

/** A unix socket of the backend, in its folder. */
export const socketName = "backend.sock";

/** The backend's files and command, in the form of a contender. */
export function setUpBackend({ folder, port }: { folder: string; port: number }) {
  // A sparse file: it takes no disk space, and the page cache serves it like any file.
  writeFileSync(join(folder, "large"), "");
  truncateSync(join(folder, "large"), largeBytes);
  const config = `
${nginxPreamble(folder)}
http {
  access_log off;
  sendfile on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  server {
    ${backendHosts.map((host) => `listen ${host}:${port} backlog=4096;`).join("\n    ")}
    listen unix:${join(folder, socketName)} backlog=4096;
    location = ${smallPath} { return 200 "sixteen bytes...\\n"; }
    location = ${largePath} { root ${folder}; }
  }
}
`;
  return { files: { "nginx.conf": config }, command: nginxCommand(folder) };
}
