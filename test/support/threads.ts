// Real threads for tests of shared memory: each runs the same module with its own job, and all of them can meet at a barrier, so that their
// next step really happens at the same time.

/** Runs one thread of `module` for each job; the module answers with `serveJob`. An error in a thread is rethrown. */
export async function runThreads<Result>(module: URL, jobs: readonly unknown[]): Promise<Result[]> {
  const barrier = new Int32Array(new SharedArrayBuffer(8));
  const workers: Worker[] = [];
  try {
    return await Promise.all(
      jobs.map((job) => {
        const worker = new Worker(module.href);
        workers.push(worker);
        const { promise, resolve, reject } = Promise.withResolvers<Result>();
        worker.addEventListener("message", (event) => {
          const answer = event.data as { result: Result } | { error: string };
          if ("error" in answer) reject(new Error(answer.error));
          else resolve(answer.result);
        });
        worker.addEventListener("error", (event) => reject(new Error(event.message)));
        worker.postMessage({ job, barrier, threads: jobs.length });
        return promise;
      }),
    );
  } finally {
    for (const worker of workers) worker.terminate();
  }
}

/** The thread's side: takes the job, runs it and returns the result. */
export function serveJob<Job>(run: (job: Job, meet: () => void) => unknown): void {
  const port = globalThis as unknown as {
    onmessage: (event: MessageEvent<{ job: Job; barrier: Int32Array; threads: number }>) => Promise<void>;
    postMessage(answer: unknown): void;
  };
  port.onmessage = async ({ data: { job, barrier, threads } }) => {
    try {
      port.postMessage({ result: await run(job, () => meet(barrier, threads)) });
    } catch (error) {
      port.postMessage({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    }
  };
}

/** How long a thread polls for the others before it sleeps: sleepers do not start at the same time. */
const SPINS = 20_000;

// Cell 0 counts the arrived threads, cell 1 the completed meetings.
function meet(barrier: Int32Array, threads: number): void {
  const meeting = Atomics.load(barrier, 1);
  if (Atomics.add(barrier, 0, 1) === threads - 1) {
    Atomics.store(barrier, 0, 0);
    Atomics.add(barrier, 1, 1);
    Atomics.notify(barrier, 1);
    return;
  }
  for (let spin = 0; spin < SPINS; spin++) if (Atomics.load(barrier, 1) !== meeting) return;
  while (Atomics.load(barrier, 1) === meeting) Atomics.wait(barrier, 1, meeting);
}
