// The sections of the page below the charts, each one table.
import { Fragment } from "preact";
import { useState } from "preact/hooks";
import {
  formatBlocked,
  formatByteRate,
  formatBytes,
  formatCount,
  formatDuration,
  formatLatency,
  formatRate,
} from "../core/format.ts";
import { matcherOf } from "../core/rows.ts";
import {
  backendState,
  destination,
  listenerState,
  openText,
  rateOf,
  refusals,
  troubleOf,
  type Pair,
} from "../observe/figures.ts";
import type { ClientStatus, ConnectionStatus } from "../observe/live.ts";
import type { ListenerStatus, WorkerStatus } from "../observe/snapshot.ts";
import { LOOP_BUCKETS_MS } from "../shared/counters.ts";
import { DataTable, type DataColumn } from "./data-table.tsx";
import { backendFigures, endsOf, quantile, type BackendFigures } from "./rates.ts";
import { update, type PageState } from "./store.ts";

function Badge({ word, tone }: { word: string; tone: string }) {
  return <span class={`badge ${tone}`}>{word}</span>;
}

/** A section with a search field above its table. */
function useSearch(label: string): [(text: string) => boolean, preact.JSX.Element] {
  const [words, setWords] = useState("");
  const field = (
    <label class="search">
      <span class="unseen">{label}</span>
      <input type="search" placeholder={label} value={words} onInput={(event) => setWords(event.currentTarget.value)} />
    </label>
  );
  return [matcherOf(words), field];
}

// ---------------------------------------------------------------------- backends

export function Backends({ pair }: { pair: Pair }) {
  const [matches, field] = useSearch("Search backends");
  const all = backendFigures(pair);
  const rows = all.filter(({ pool, backend }) =>
    matches(`${pool.name} ${backend.name} ${backend.address} ${backendState(backend).word}`),
  );
  const up = all.filter(({ backend }) => backend.up).length;
  return (
    <section class="panel span">
      <h2>
        Backends <Badge word={`${up} of ${all.length} up`} tone={up === all.length ? "good" : "bad"} />
        {pair.now.pools.map(({ name, panic, queue }) => (
          <Fragment key={name}>
            {panic && <Badge word={`${name}: panic, health is ignored`} tone="bad" />}
            {queue !== null && queue.waiting > 0 && (
              <Badge word={`${name}: ${queue.waiting} of ${queue.size} waiting`} tone="warn" />
            )}
          </Fragment>
        ))}
        {field}
      </h2>
      <DataTable caption="Backends" columns={BACKENDS} rows={rows} keyOf={({ key }) => key} empty="no backends" />
    </section>
  );
}

const BACKENDS: readonly DataColumn<BackendFigures>[] = [
  { title: "Pool", value: ({ pool }) => pool.name, cell: ({ pool }) => pool.name },
  {
    title: "Backend",
    value: ({ backend }) => backend.name,
    cell: ({ backend }) => <span title={backend.address}>{backend.name}</span>,
  },
  {
    title: "State",
    value: ({ backend }) => backendState(backend).word,
    cell: ({ backend }) => (
      <>
        <Badge {...backendState(backend)} />
        {backend.backup && " backup"}
      </>
    ),
  },
  {
    title: "For",
    isFigure: true,
    value: ({ backend }) => -Date.parse(backend.health.since),
    cell: ({ backend }) => formatDuration(Date.now() - Date.parse(backend.health.since)),
  },
  { title: "Weight", isFigure: true, value: ({ backend }) => backend.weight, cell: ({ backend }) => backend.weight },
  {
    title: "Open",
    isFigure: true,
    value: ({ backend }) => backend.open,
    cell: ({ backend }) => openText(backend),
  },
  {
    title: "Share",
    isFigure: true,
    value: ({ share }) => share,
    cell: ({ share }) => (
      <meter
        min={0}
        max={1}
        value={share}
        title={`${Math.round(share * 100)} %`}
        aria-label="share of the pool's open connections"
      />
    ),
  },
  { title: "Conn/s", isFigure: true, value: ({ connects }) => connects, cell: ({ connects }) => formatRate(connects) },
  {
    title: "Fail/s",
    isFigure: true,
    value: ({ failures }) => failures,
    cell: ({ failures }) => <span class={failures > 0 ? "is-bad" : ""}>{formatRate(failures)}</span>,
  },
  {
    title: "Connect",
    isFigure: true,
    value: ({ connectMs }) => connectMs,
    cell: ({ connectMs }) => formatLatency(connectMs),
  },
  { title: "In", isFigure: true, value: ({ bytesIn }) => bytesIn, cell: ({ bytesIn }) => formatByteRate(bytesIn) },
  { title: "Out", isFigure: true, value: ({ bytesOut }) => bytesOut, cell: ({ bytesOut }) => formatByteRate(bytesOut) },
  {
    title: "Reason",
    wide: true,
    cell: ({ backend }) => (
      <>
        <span class="is-bad">{troubleOf(backend)}</span> {backend.changes.join("; ")}
      </>
    ),
  },
  { title: "Change", cell: (figures) => <ChangeButton {...figures} /> },
];

function ChangeButton({ pool, backend }: BackendFigures) {
  const { name, state, weight } = backend;
  return (
    <button
      type="button"
      aria-label={`Change ${pool.name}/${name}`}
      onClick={() => update({ dialog: { is: "backend", pool: pool.name, backend: name, state, weight } })}
    >
      Change
    </button>
  );
}

// ---------------------------------------------------------------------- listeners

export function Listeners({ pair }: { pair: Pair }) {
  const [matches, field] = useSearch("Search listeners");
  const old = new Map(pair.before?.listeners.map((listener) => [listener.name, listener]));
  const rows = pair.now.listeners
    .filter(({ name, bind, pool }) => matches(`${name} ${bind.join(" ")} ${pool ?? ""}`))
    .map((listener) => ({ listener, was: old.get(listener.name) }));
  const columns: readonly DataColumn<{ listener: ListenerStatus; was: ListenerStatus | undefined }>[] = [
    { title: "Listener", value: ({ listener }) => listener.name, cell: ({ listener }) => listener.name },
    { title: "Bind", cell: ({ listener }) => listener.bind.join(" ") },
    { title: "Pool", value: ({ listener }) => listener.pool ?? "", cell: ({ listener }) => listener.pool ?? "-" },
    {
      title: "State",
      value: ({ listener }) => Number(listener.ready),
      cell: ({ listener }) => (
        <span title={listener.not_ready.join("; ")}>
          <Badge {...listenerState(listener)} />
        </span>
      ),
    },
    { title: "Open", isFigure: true, value: ({ listener }) => listener.open, cell: ({ listener }) => listener.open },
    figure("New/s", ({ listener, was }) => rateOf(pair, listener.accepted, was?.accepted), formatRate),
    figure("Refused/s", ({ listener, was }) => rateOf(pair, refusals(listener), was && refusals(was)), formatRate),
    figure("In", ({ listener, was }) => rateOf(pair, listener.bytes_in, was?.bytes_in), formatByteRate),
    figure("Out", ({ listener, was }) => rateOf(pair, listener.bytes_out, was?.bytes_out), formatByteRate),
  ];
  return (
    <section class="panel span">
      <h2>Listeners {field}</h2>
      <DataTable
        caption="Listeners"
        columns={columns}
        rows={rows}
        keyOf={({ listener }) => listener.name}
        empty="no listeners"
        rowsInSight={10}
      />
    </section>
  );
}

function figure<T>(title: string, value: (row: T) => number, format: (value: number) => string): DataColumn<T> {
  return { title, isFigure: true, value, cell: (row) => format(value(row)) };
}

// ---------------------------------------------------------------------- ends

export function Ends({ pair }: { pair: Pair }) {
  const rows = endsOf(pair);
  const total = Math.max(1, ...rows.map(({ count }) => count));
  const columns: readonly DataColumn<(typeof rows)[number]>[] = [
    { title: "End", value: ({ end }) => end, cell: ({ end }) => <code>{end}</code> },
    { title: "By", value: ({ by }) => by, cell: ({ by }) => by },
    figure("Count", ({ count }) => count, formatCount),
    figure("Now/s", ({ recent }) => (pair.seconds > 0 ? recent / pair.seconds : 0), formatRate),
    {
      title: "Part",
      wide: true,
      cell: ({ count }) => <meter min={0} max={total} value={count} aria-label="part of all ends" />,
    },
  ];
  return (
    <section class="panel">
      <h2>Why connections ended</h2>
      <DataTable
        caption="Ends of connections by reason"
        columns={columns}
        rows={rows}
        keyOf={({ end, by }) => `${end} ${by}`}
        empty="no connection has ended yet"
        rowsInSight={10}
      />
    </section>
  );
}

// ---------------------------------------------------------------------- clients and connections

export function Clients({ clients }: { clients: readonly ClientStatus[] }) {
  return (
    <section class="panel">
      <h2>Top clients</h2>
      <DataTable
        caption="Top clients"
        columns={CLIENTS}
        rows={clients}
        keyOf={({ client }) => client}
        empty="no clients"
        rowsInSight={10}
      />
    </section>
  );
}

const CLIENTS: readonly DataColumn<ClientStatus>[] = [
  { title: "Client", wide: true, value: ({ client }) => client, cell: ({ client }) => client },
  figure("Open", ({ open }) => open, formatCount),
  figure("New/min", ({ new_connections }) => new_connections, formatCount),
  figure("Refused/min", (row) => row.refusals, formatCount),
  figure("In/min", ({ bytes_in }) => bytes_in, formatBytes),
  figure("Out/min", ({ bytes_out }) => bytes_out, formatBytes),
  {
    title: "Kill",
    cell: ({ client, open }) => (
      <KillButton
        path={`/api/connections?client=${encodeURIComponent(client)}`}
        what={`all ${open} connections of ${client}`}
      />
    ),
  },
];

export function Connections({ list }: { list: PageState["connections"] }) {
  const [matches, field] = useSearch("Search connections");
  const rows = (list?.connections ?? []).filter(({ id, client, listener, pool, backend, sni, phase }) =>
    matches(`${id} ${client} ${listener} ${pool ?? ""}/${backend ?? ""} ${sni ?? ""} ${phase}`),
  );
  const shown = list === null || list.total === list.connections.length ? "" : `busiest ${list.connections.length} of `;
  return (
    <section class="panel span">
      <h2>
        Live connections <Badge word={`${shown}${list?.total ?? 0}`} tone="none" />
        {field}
      </h2>
      <DataTable
        caption="Live connections"
        columns={CONNECTIONS}
        rows={rows}
        keyOf={({ id }) => String(id)}
        empty="no open connections"
      />
    </section>
  );
}

const CONNECTIONS: readonly DataColumn<ConnectionStatus>[] = [
  { title: "Id", isFigure: true, value: ({ id }) => id, cell: ({ id }) => id },
  { title: "Client", value: ({ client }) => client, cell: ({ client }) => client },
  { title: "Listener", value: ({ listener }) => listener, cell: ({ listener }) => listener },
  {
    title: "Backend",
    value: destination,
    cell: destination,
  },
  { title: "SNI", value: ({ sni }) => sni ?? "", cell: ({ sni }) => sni ?? "" },
  { title: "Phase", value: ({ phase }) => phase, cell: ({ phase }) => phase },
  figure("Age", ({ age_ms }) => age_ms, formatDuration),
  figure("In", ({ bytes_in }) => bytes_in, formatBytes),
  figure("Out", ({ bytes_out }) => bytes_out, formatBytes),
  figure("Rate in", ({ rate_in }) => rate_in, formatByteRate),
  figure("Rate out", ({ rate_out }) => rate_out, formatByteRate),
  { title: "Worker", isFigure: true, value: ({ worker }) => worker, cell: ({ worker }) => worker },
  {
    title: "Kill",
    cell: ({ id, client }) => <KillButton path={`/api/connections/${id}`} what={`connection ${id} of ${client}`} />,
  },
];

function KillButton({ path, what }: { path: string; what: string }) {
  return (
    <button type="button" aria-label={`Kill ${what}`} onClick={() => update({ dialog: { is: "kill", path, what } })}>
      Kill
    </button>
  );
}

// ---------------------------------------------------------------------- workers and certificates

export function Workers({ pair }: { pair: Pair }) {
  const old = new Map(pair.before?.workers.map((worker) => [worker.index, worker]));
  const rows = pair.now.workers.map((worker) => ({ worker, was: old.get(worker.index) }));
  const columns: readonly DataColumn<(typeof rows)[number]>[] = [
    { title: "Worker", value: ({ worker }) => worker.index, cell: ({ worker }) => worker.index },
    {
      title: "State",
      value: ({ worker }) => worker.state,
      cell: ({ worker }) => <Badge word={worker.state} tone={worker.state === "running" ? "good" : "warn"} />,
    },
    figure("Open", ({ worker }) => worker.open, formatCount),
    figure("New/s", ({ worker, was }) => rateOf(pair, worker.accepted, was?.accepted), formatRate),
    figure("Loop delay p99", ({ worker, was }) => loopDelayMs(worker, was), boundText),
    figure("Blocked", ({ worker }) => worker.loop_blocked_ms, formatBlocked),
    figure("Restarts", ({ worker }) => worker.restarts, formatCount),
  ];
  return (
    <section class="panel span">
      <h2>Workers</h2>
      <DataTable
        caption="Workers"
        columns={columns}
        rows={rows}
        keyOf={({ worker }) => String(worker.index)}
        empty="no workers"
        rowsInSight={10}
      />
    </section>
  );
}

function loopDelayMs(now: WorkerStatus, was: WorkerStatus | undefined): number {
  const before = was?.loop_delay_ms.buckets ?? [];
  const grown = now.loop_delay_ms.buckets.map((count, i) => Math.max(0, count - (before[i] ?? 0)));
  return quantile(grown, LOOP_BUCKETS_MS, 0.99);
}

function boundText(ms: number): string {
  if (ms === 0) return "-";
  return ms === Infinity ? `> ${LOOP_BUCKETS_MS.at(-1)}ms` : `< ${formatLatency(ms)}`;
}

interface CertificateRow {
  listener: string;
  cert: string;
  names: string;
  days: number;
}

export function Certificates({ pair }: { pair: Pair }) {
  const { admin, listeners } = pair.now;
  const all = listeners.flatMap(({ name, tls }) =>
    (tls?.certificates ?? []).map((one) => ({ listener: name, ...one })),
  );
  if (admin.certificate !== null) all.push({ listener: "(admin endpoint)", ...admin.certificate });
  const rows = all
    .map(({ listener, cert, names, days_left: days }): CertificateRow => ({
      listener,
      cert,
      names: names.join(" "),
      days,
    }))
    .sort((a, b) => a.days - b.days);
  if (rows.length === 0) return null;
  return (
    <section class="panel span">
      <h2>Certificates by expiry</h2>
      <DataTable
        caption="Certificates by expiry"
        columns={CERTIFICATES}
        rows={rows}
        keyOf={({ listener, cert }) => `${listener} ${cert}`}
        empty=""
        rowsInSight={10}
      />
    </section>
  );
}

/** Days before expiry at which a certificate is shown as a warning, and as an error. */
const SOON_DAYS = 30;
const NOW_DAYS = 7;

const CERTIFICATES: readonly DataColumn<CertificateRow>[] = [
  {
    title: "Expires in",
    isFigure: true,
    value: ({ days }) => days,
    cell: ({ days }) => (
      <Badge
        word={days < 0 ? "expired" : `${Math.floor(days)} days`}
        tone={days < NOW_DAYS ? "bad" : days < SOON_DAYS ? "warn" : "good"}
      />
    ),
  },
  { title: "Names", wide: true, value: ({ names }) => names, cell: ({ names }) => names },
  { title: "Listener", value: ({ listener }) => listener, cell: ({ listener }) => listener },
  { title: "File", cell: ({ cert }) => <code>{cert}</code> },
];
