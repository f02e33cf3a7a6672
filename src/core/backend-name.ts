// The names of backends that are addresses of one host name: "name@address", in all output and in the admin API.

/** The name of one address of a host name that has several. */
export function nameOfOne(name: string, address: string): string {
  return `${name}@${address}`;
}

/** Whether `text` is "name@address" of the backend; the port may be left out, because all addresses of a name have the same one. */
export function isNameOfOne(text: string, name: string, address: string): boolean {
  if (text === nameOfOne(name, address)) return true;
  const [, host] = /^\[?(.*?)\]?:\d+$/.exec(address) ?? [];
  return host !== undefined && text === nameOfOne(name, host);
}

/** The name in the config of a backend that is shown as `name`. */
export function nameInConfig({ name, address }: { name: string; address: string }): string {
  const end = nameOfOne("", address);
  return name.endsWith(end) ? name.slice(0, -end.length) : name;
}
