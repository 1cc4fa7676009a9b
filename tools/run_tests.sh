#!/usr/bin/env bash
# Runs pytest with these arguments, by the interpreter that PYTHON names. Tests that fail are run once more by themselves,
# since thousands of them measure and race on machines that others use too: those that pass then are named as FLAKY, and
# are to be mended. Where more than a few fail nothing is run again.
set -uo pipefail

most=3
python=${PYTHON:-python3}
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT

"$python" -m pytest -q -p cacheprovider -o cache_dir="$cache" "$@"
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
"$python" -m pytest -q -p cacheprovider -o cache_dir="$cache" --last-failed "$@" || exit 1
while read -r name; do echo "FLAKY $name"; done <<<"$failed"
