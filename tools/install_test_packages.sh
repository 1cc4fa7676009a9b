#!/usr/bin/env bash
# Installs, as root on Debian, the programs that tests and benchmarks run: bubblewrap as a peer, newuidmap, compilers and
# git as workloads, curl, CPython's own tests, systemd to read the units that profiles become, a static busybox to make
# images of, QEMU, a packer of images and two guest kernels for machines, two versions of gVisor, Firecracker and its
# jailer; with `bench`, more peers. What is there already is left alone.
set -euo pipefail

"$(dirname "$0")/install_gvisor.sh"
"$(dirname "$0")/build_guest_kernel.sh"
"$(dirname "$0")/install_debian_kernel.sh"
"$(dirname "$0")/install_firecracker.sh"
packages=(bubblewrap uidmap gcc libc6-dev git python3 libpython3.11-testsuite curl strace libcap2-bin iproute2 libseccomp2 systemd)
packages+=(busybox-static qemu-system-x86 erofs-utils zstd)
[ "${1:-}" = bench ] && packages+=(crun firejail runc)
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
    missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, and the tests that need them will say so: ${missing[*]}" >&2
  exit 0
fi
apt-get update -q >/dev/null
apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${missing[@]}" >/dev/null
