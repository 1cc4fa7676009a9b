#!/usr/bin/env bash
# Unpacks the kernel that Debian has for virtual machines, with its modules, as the second one that tests boot machines with.
# Once: it is kept under its package's name. `--place` only says where that is.
set -euo pipefail

meta=linux-image-cloud-amd64
base=/usr/local/lib/immure-test
named() { apt-cache depends "$meta" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1 || true; }
package=$(named)
if [ -z "$package" ] && [ "$(id -u)" = 0 ] && [ "${1:-}" != --place ] && command -v apt-get >/dev/null; then
  # A new machine knows of no packages yet.
  apt-get update -q >/dev/null
  package=$(named)
fi
place=$base/${package:-no-debian-kernel}
if [ "${1:-}" = --place ]; then
  echo "$place"
  exit 0
fi
[ ! -e "$place/boot" ] || exit 0
if [ "$(id -u)" != 0 ] || [ -z "$package" ]; then
  echo "no kernel of Debian's, and the tests that need one will say so" >&2
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get download -q "$package" >/dev/null)
dpkg -x "$work"/*.deb "$work/unpacked"
# Whole or not at all, whoever else unpacks it meanwhile.
mkdir -p "$base"
rm -rf "$place.$$"
cp -r "$work/unpacked" "$place.$$"
mv -T "$place.$$" "$place" 2>/dev/null || rm -rf "$place.$$"
