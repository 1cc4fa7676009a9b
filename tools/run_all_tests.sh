#!/usr/bin/env bash
# Runs all tests by the interpreter that PYTHON names, in two lanes beside each other, since most tests wait more than
# they compute: those of pure code, those of Firecracker's boxes and, as root, those of plain users one after the other in
# the one; all others in the other, which is shown while it runs. Each lane looks at its own processes and mounts alone.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
apart=(tests/unit tests/firecracker_box)

first_lane() {
  local status=0
  for tests in "${apart[@]}"; do
    "$here/run_tests.sh" "$tests" || status=1
  done
  "$here/test_as_plain_user.sh" || status=1
  return $status
}
if [ "${1:-}" = --first-lane ]; then
  first_lane
  exit
fi

said=$(mktemp)
trap 'rm -f "$said"' EXIT
first=("$here/run_all_tests.sh" --first-lane)
[ "$(id -u)" != 0 ] || first=(unshare --mount --propagation private "${first[@]}")
"${first[@]}" >"$said" 2>&1 &
beside=$!
status=0
"$here/run_tests.sh" "${apart[@]/#/--ignore=}" tests || status=1
wait "$beside" || status=1
cat "$said"
exit $status
