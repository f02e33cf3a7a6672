// `allow` and `deny` of a listener: who may connect by address. `deny` wins.
import { cidrHasAt, type CidrTable } from "../core/cidr-set.ts";

interface AddressLists {
  /** null = the list is empty: everyone is allowed, nobody is denied. */
  readonly allow: CidrTable | null;
  readonly deny: CidrTable | null;
}

/** Whether `deny` has the address in the cells from `at`. Hot path. */
export function isDenied({ deny }: AddressLists, words: Int32Array, at: number): boolean {
  return deny !== null && cidrHasAt(deny, words, at);
}

/** Whether `allow` has it, or is empty. Hot path. */
export function isAllowed({ allow }: AddressLists, words: Int32Array, at: number): boolean {
  return allow === null || cidrHasAt(allow, words, at);
}
