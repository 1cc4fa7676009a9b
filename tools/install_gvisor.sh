#!/usr/bin/env bash
# Puts two versions of gVisor's runsc where tests and benchmarks find them: `newest` is built with Go, `debian` comes from
# the package of Debian 13, which runs on others too. What is there already is left alone. As another user than root they
# go to ~/.cache/immure-test.
set -euo pipefail

version=v0.0.0-20260905035102-160fafc42237
date=20260905
place=/usr/local/lib/immure-test
[ "$(id -u)" = 0 ] || place=$HOME/.cache/immure-test
mkdir -p "$place/newest" "$place/debian"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! "$place/newest/runsc" --version 2>/dev/null | grep -q "go-$date"; then
  if command -v go >/dev/null; then
    # Linked dynamically it could not start a sandbox, whose root has no libraries.
    CGO_ENABLED=0 GOBIN="$work" go install -trimpath \
      -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=go-$date" "gvisor.dev/gvisor/runsc@$version"
    install -m 755 "$work/runsc" "$place/newest/runsc"
  else
    echo "no Go to build runsc with, and the tests that need it will say so" >&2
  fi
fi

if ! "$place/debian/runsc" --version >/dev/null 2>&1; then
  source=/etc/apt/sources.list.d/debian.sources
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -r "$source" ]; then
    # Of this machine's own sources the first one, for another release.
    sed -n '1,/^$/p' "$source" | sed -E 's/^Suites:.*/Suites: trixie/' >"$work/trixie.sources"
    mkdir -p "$work/lists/partial"
    apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/trixie.sources" -o Dir::Etc::sourceparts=-
      -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
    "${apt[@]}" update >/dev/null
    (cd "$work" && "${apt[@]}" download runsc >/dev/null && dpkg-deb -x runsc_*.deb unpacked)
    install -m 755 "$work/unpacked/usr/bin/runsc" "$place/debian/runsc"
  else
    echo "no Debian package of runsc, and the tests that need it will say so" >&2
  fi
fi
