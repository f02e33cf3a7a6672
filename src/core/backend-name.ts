// The names of backends that are addresses of one host name: "name@address", in all output and in the admin API.

/** The name of one address of a host name that has several. */
export function nameOfOne(name: string, address: string): string {
  return `${name}@${address}`;
}

/** The name in the config of a backend that is shown as `name`. */
export function nameInConfig({ name, address }: { name: string; address: string }): string {
  const end = nameOfOne("", address);
  return name.endsWith(end) ? name.slice(0, -end.length) : name;
}
