// Objects that are made from a plan and kept while the plan stays equal, such as TLS contexts with their sessions: a reload that does not
// change the plan does not replace them.

export class PlanCache<P, T> {
  readonly #make: new (plan: P) => T;
  readonly #before: ReadonlyMap<string, T>;
  readonly #now = new Map<string, T>();

  /** `before` is the cache of the former plans. Objects that are not requested again are dropped with it. */
  constructor(make: new (plan: P) => T, before: PlanCache<P, T> | null) {
    this.#make = make;
    this.#before = before === null ? new Map<string, T>() : before.#now;
  }

  /** Equal plans share one object if their `owner` is equal too. */
  get(plan: P, owner = 0): T {
    const key = `${owner} ${JSON.stringify(plan)}`;
    const made = this.#now.get(key) ?? this.#before.get(key) ?? new this.#make(plan);
    this.#now.set(key, made);
    return made;
  }
}
