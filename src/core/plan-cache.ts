// Things that are made of a plan and kept as long as the plan stays the same word for word, such as TLS contexts with their
// sessions: a reload that does not concern them leaves them alone.

export class PlanCache<P, T> {
  readonly #make: new (plan: P) => T;
  readonly #before: ReadonlyMap<string, T>;
  readonly #now = new Map<string, T>();

  /** `before` is the cache of the plans until now. What is not asked for again is forgotten with it. */
  constructor(make: new (plan: P) => T, before: PlanCache<P, T> | null) {
    this.#make = make;
    this.#before = before === null ? new Map<string, T>() : before.#now;
  }

  /** Equal plans share one where `owner` is equal too. */
  get(plan: P, owner = 0): T {
    const key = `${owner} ${JSON.stringify(plan)}`;
    const made = this.#now.get(key) ?? this.#before.get(key) ?? new this.#make(plan);
    this.#now.set(key, made);
    return made;
  }
}
