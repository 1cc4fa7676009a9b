#!/usr/bin/env bash
# As root: runs the tests marked `rootless` again as two plain users: `immure-single`, who has no subordinate ids, and
# `immure-ranges`, who has a range of them. One after the other: what forks without end for the one would take the other's
# time. What needs ids is run for both, and the rest is divided: conformance by IMMURE_TEST_USER
# (tests/conformance/faces.py), where `immure-single` takes the boxes behind a channel and those in a Sentry, and whole
# files below. Arguments say which tests, `tests/conformance` for one. As a plain user there is nothing more to do.
set -euo pipefail

[ "$(id -u)" = 0 ] || exit 0
tests=("${@:-tests}")
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

prepare_user() { # NAME RANGE
  id "$1" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$1"
  for file in /etc/subuid /etc/subgid; do
    touch "$file"
    sed -i "/^$1:/d" "$file"
    [ -z "$2" ] || echo "$1:$2" >>"$file"
  done
}
prepare_user immure-single ""
prepare_user immure-ranges "300000:65536"

# The checkout and its interpreter may lie where other users can't go, so they get copies, and packages of their own.
usable=
for candidate in /usr/bin/python3 /usr/local/bin/python3 "$("$here/.venv/bin/python" -c 'import sys; print(sys._base_executable)')"; do
  if runuser -u immure-single -- "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    usable=$candidate
    break
  fi
done
[ -n "$usable" ] || { echo "no Python 3.11+ that a plain user can run" >&2; exit 1; }
"$here/.venv/bin/pip" --python "$usable" install --quiet --root-user-action=ignore --target "$work/packages" \
  'msgspec[yaml,toml]' rich pytest pytest-timeout hypothesis
cp -r "$here/src" "$here/tests" "$here/bench" "$here/tools" "$here/pyproject.toml" "$work/"
chmod -R a+rX "$work"

# Many machines have /dev/kvm for root alone: in mounts of their own these users find a node of the same device there.
with_kvm=()
if [ -c /dev/kvm ]; then
  mknod -m 666 "$work/kvm" c 10 232
  with_kvm=(unshare --mount --propagation private sh -c 'mount --bind "$0" /dev/kvm && exec "$@"' "$work/kvm")
fi

# Of no interest with other ids again: endurance, hostile neighbours and all of /usr in a machine for the one, what a Sentry
# saw and machines of Firecracker's for the other.
declare -A elsewhere=(
  [immure-single]="integration/test_chaos.py integration/test_endurance.py integration/test_hostile_streams.py
    machine/test_host_image.py"
  [immure-ranges]="firecracker_box integration/test_box_trace.py integration/test_trace_command.py sentry/test_sabotage.py
    sentry/test_faults.py security/test_attempts_in_a_sentry.py security/test_sentry.py"
)
status=0
for user in immure-single immure-ranges; do
  echo "== tests as $user"
  left=()
  for name in ${elsewhere[$user]}; do left+=("--ignore=$work/tests/$name"); done
  "${with_kvm[@]}" runuser -u "$user" -- env PYTHONPATH="$work/src:$work/packages" HOME="/home/$user" IMMURE_TEST_USER="$user" \
    IMMURE_CORPUS="${IMMURE_CORPUS:-}" PYTHON="$usable" "$work/tools/run_tests.sh" -m rootless \
    -c "$work/pyproject.toml" --rootdir "$work" "${left[@]}" "${tests[@]/#/$work/}" || status=1
done
exit $status
