#!/usr/bin/env bash
# Runs all tests as this user, by the interpreter that PYTHON names: those of pure code beside those of Firecracker's boxes,
# neither of which measures anything, and then the others one after the other, which do.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
apart=(tests/unit tests/firecracker_box)

"$here/run_tests.sh" "${apart[0]}" >"$said" 2>&1 &
beside=$!
status=0
"$here/run_tests.sh" "${apart[1]}" || status=1
wait "$beside" || status=1
cat "$said"
"$here/run_tests.sh" "${apart[@]/#/--ignore=}" tests || status=1
exit $status
