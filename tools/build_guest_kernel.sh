#!/usr/bin/env bash
# Builds the Linux that tests boot virtual machines with, from Debian's source, tests/machine/kernel/kernel.config and three
# small changes in kernel.patch, by which it also boots where KVM only emulates a guest's kernel. Five to ten minutes, once:
# it is kept under the hash of what it is made of. `--place` only says where that is.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
parts=("$here/tests/machine/kernel/kernel.config" "$here/tests/machine/kernel/kernel.patch")
place=/usr/local/lib/immure-test/kernel-$(cat "${parts[@]}" | sha256sum | cut -c1-16)
if [ "${1:-}" = --place ]; then
  echo "$place"
  exit 0
fi
[ ! -e "$place/vmlinux" ] || exit 0
archive=/usr/src/linux-source-6.12.tar.xz
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "no guest kernel, and the tests that need one will say so" >&2
  exit 0
fi
if [ ! -e "$archive" ]; then
  apt-get update -q >/dev/null
  apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends linux-source-6.12 build-essential flex bison bc libelf-dev libssl-dev \
    xz-utils >/dev/null
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xJf "$archive" -C "$work" --strip-components=1
patch -s -d "$work" -p1 <"${parts[1]}"
cp "${parts[0]}" "$work/.config"
make -C "$work" olddefconfig >/dev/null
make -C "$work" -j"$(nproc)" vmlinux >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }
# Whole or not at all, whoever else builds it meanwhile.
mkdir -p "$place"
install -m 644 "$work/vmlinux" "$place/vmlinux.$$"
mv "$place/vmlinux.$$" "$place/vmlinux"
