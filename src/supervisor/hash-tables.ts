// The Maglev tables of a pool that hashes, in shared memory. A table covers all backends of its tier, whether they are up or not, so
// it is rebuilt only when names or weights change, and in the supervisor, so that the workers' event loops are not delayed.
import type { HashTable } from "../policy/candidate.ts";
import { maglevFingerprint, maglevTable } from "../policy/maglev.ts";

export interface HashMember {
  readonly id: number;
  readonly name: string;
  /** Greater than 0. */
  readonly weight: number;
}

export interface MadeTable {
  readonly table: HashTable;
  /** Equal on all machines that have the same table. */
  readonly fingerprint: number;
}

export class HashTables {
  /** By the priority of the tier, with the members that each table was made from. */
  readonly #made = new Map<number, MadeTable & { readonly members: readonly HashMember[] }>();

  /** The table of a tier, which is rebuilt if the members have changed. */
  of(priority: number, members: readonly HashMember[]): MadeTable {
    const before = this.#made.get(priority);
    if (before !== undefined && isSame(before.members, members)) return before;
    const slots = maglevTable(members);
    const shared = new Uint32Array(new SharedArrayBuffer(slots.byteLength));
    shared.set(slots);
    const table = { ids: members.map(({ id }) => id), slots: shared };
    const made = { members, table, fingerprint: maglevFingerprint(members, slots) };
    this.#made.set(priority, made);
    return made;
  }
}

function isSame(a: readonly HashMember[], b: readonly HashMember[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ id, name, weight }, i) => id === b[i]!.id && name === b[i]!.name && weight === b[i]!.weight)
  );
}
