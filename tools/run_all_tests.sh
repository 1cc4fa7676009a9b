#!/usr/bin/env bash
# Runs all tests by the interpreter that PYTHON names, in two lanes beside each other, since most tests wait more than
# they compute: those of pure code, those of Firecracker's boxes and, as root, those of plain users one after the other in
# the one; all others in the other. Both are shown line by line while they run. Each lane looks at its own processes and
# mounts alone, and can be interrupted as if it stood in the foreground. Tests that have not ended after
# IMMURE_TESTS_TIMEOUT_S seconds (75 min) are aborted, and tell where they were.
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
case "${1:-}" in
  --first-lane) first_lane; exit ;;
  --second-lane) exec "$here/run_tests.sh" "${apart[@]/#/--ignore=}" tests ;;
esac

run() { # NAME [COMMAND that runs the lane]
  "${@:2}" env --default-signal=INT,QUIT "$here/run_all_tests.sh" "--$1-lane" </dev/null \
    > >(exec sed --unbuffered "s/^/$1 | /") 2>&1
}
apart_from_here=()
[ "$(id -u)" != 0 ] || apart_from_here=(unshare --mount --propagation private)
export IMMURE_TESTS_END_S=$(($(date +%s) + ${IMMURE_TESTS_TIMEOUT_S:-4500}))
run first "${apart_from_here[@]}" &
beside=$!
status=0
run second || status=1
wait "$beside" || status=1
exit $status
