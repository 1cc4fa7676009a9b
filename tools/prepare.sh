#!/usr/bin/env bash
# Checks, and as root installs, what a build needs: Python with venv, a C linker, and cargo.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install first: ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -q
  apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${missing[@]}"
fi
if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust 1.91 or newer (rustup), and run this again" >&2
  exit 1
fi
