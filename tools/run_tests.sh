#!/usr/bin/env bash
# Runs pytest with these arguments, by the interpreter that PYTHON names. Tests that fail are run once more by themselves,
# since thousands of them measure and race on machines that others use too: those that pass then are named as FLAKY, and
# are to be mended. Where more than a few fail nothing is run again. Where IMMURE_TESTS_END_S says when they must have
# ended (seconds since 1970), pytest is aborted then, and says in which line each of its threads was.
set -uo pipefail

most=3
python=${PYTHON:-python3}
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT

run_pytest() {
  local within=()
  if [ -n "${IMMURE_TESTS_END_S:-}" ]; then
    local left_s=$((IMMURE_TESTS_END_S - $(date +%s)))
    within=(timeout --foreground --signal=ABRT --kill-after=30 "$((left_s > 1 ? left_s : 1))")
  fi
  "${within[@]}" "$python" -m pytest -q --durations=15 --durations-min=5 -p cacheprovider -o cache_dir="$cache" "$@"
}

run_pytest "$@"
status=$?
[ "$status" = 1 ] || exit "$status"
failed=$("$python" - "$cache/v/cache/lastfailed" <<'END'
import json, pathlib, sys
found = pathlib.Path(sys.argv[1])
print("\n".join(json.loads(found.read_text()) if found.exists() else {}))
END
)
count=$(grep -c . <<<"$failed")
if [ "$count" = 0 ] || [ "$count" -gt "$most" ]; then
  exit 1
fi
echo "== once more, by themselves:" "$failed"
run_pytest --last-failed "$@" || exit 1
while read -r name; do echo "FLAKY $name"; done <<<"$failed"
