#!/bin/sh
# packaging/rootfs.sh BINARY FOLDER: fills FOLDER with only what an image needs to run BINARY as /lb: the binary, the files of
# the C library that it is linked with, the configuration of name lookups, and the CA certificates of the build machine, which pools
# with TLS verify their backends against.
set -eu
binary=$1
root=$2

install -D -m 0755 "$binary" "$root/lb"

# ldd prints `name => path (address)` for a library and `path (address)` for the loader; the kernel's vdso has no path.
libraries=$(ldd "$binary")
case $libraries in *"not found"*) echo "$libraries" >&2 && exit 1 ;; esac
for file in $(echo "$libraries" | grep -o '/[^ ]*'); do
  install -D -m 0755 "$file" "$root$file"
done

# The engine mounts /etc/hosts and /etc/resolv.conf; without this file their order is a default that has
# changed between versions of the C library.
mkdir -p "$root/etc/lb"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"

for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem ""; do
  if [ -z "$bundle" ]; then
    echo "no CA certificates on this machine: install the package ca-certificates" >&2
    exit 1
  fi
  [ -e "$bundle" ] && break
done
install -D -m 0644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"

chmod 0755 "$root" "$root/etc" "$root/etc/lb" "$root/etc/ssl" "$root/etc/ssl/certs"
chmod 0644 "$root/etc/nsswitch.conf"
