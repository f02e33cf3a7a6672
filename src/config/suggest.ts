// "Did you mean": the candidate nearest to a misspelt word, or the one with the meaning that the word has in other load balancers.

/** Words of HAProxy, nginx, Envoy, Traefik and Caddy that do not resemble ours; without separators, as `plain` writes them. */
const SYNONYMS: ReadonlyMap<string, readonly string[]> = new Map(
  Object.entries({
    address: ["bind"],
    algorithm: ["balance"],
    baseejectiontime: ["eject_for"],
    endpoints: ["backends"],
    entrypoints: ["listeners"],
    failtimeout: ["eject_for"],
    frontends: ["listeners"],
    hosts: ["backends"],
    iphash: ["source_hash"],
    lbpolicy: ["balance"],
    leastrequest: ["least_connections"],
    leasttime: ["least_latency"],
    listen: ["bind"],
    maglev: ["source_hash"],
    maxfails: ["failures"],
    outlierdetection: ["passive"],
    p2c: ["random_two"],
    peakewma: ["least_latency"],
    policy: ["balance"],
    primary: ["master"],
    ringhash: ["source_hash"],
    server: ["backends"],
    servers: ["backends", "pools"],
    slave: ["replica"],
    targets: ["backends"],
    test: ["check"],
    upstream: ["backends", "pools"],
    upstreams: ["backends", "pools"],
    uri: ["path"],
  }),
);

/** The candidate that was most likely meant, or null if none is near. Bounded in time: long words get no answer. */
export function closest(word: string, candidates: readonly string[]): string | null {
  if (word.length > 64) return null;
  const wanted = plain(word);
  const synonym = SYNONYMS.get(wanted)?.find((one) => candidates.includes(one));
  if (synonym !== undefined) return synonym;
  let best: string | null = null;
  let bestDistance = word.length <= 3 ? 2 : 1 + Math.floor(word.length / 3) + 1;
  for (const candidate of candidates.slice(0, 1000)) {
    const have = plain(candidate);
    if (Math.abs(have.length - wanted.length) >= bestDistance) continue;
    const distance = editDistance(wanted, have);
    if (distance < bestDistance && distance < have.length) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best ?? candidates.slice(0, 1000).find((candidate) => isPart(plain(candidate), wanted)) ?? null;
}

/** "idle_timeout" for "idle", "token" for "token_file". */
function isPart(a: string, b: string): boolean {
  const [short, long] = a.length < b.length ? [a, b] : [b, a];
  return short.length >= 4 && (long.startsWith(short) || long.endsWith(short));
}

/** "maxConnections", "max-connections" and "max_connections" are the same word. */
function plain(word: string): string {
  return word.toLowerCase().replace(/[-_. ]/g, "");
}

/** The number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let older: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const line = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min((above[j] ?? 0) + 1, (line[j - 1] ?? 0) + 1, (above[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, (older[j - 2] ?? 0) + 1);
      line.push(least);
    }
    older = above;
    above = line;
  }
  return above[b.length] ?? 0;
}
