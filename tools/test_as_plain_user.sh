#!/usr/bin/env bash
# As root: runs the tests marked `rootless` again as two plain users, one with a range of subordinate ids and one with
# none. As a plain user there is nothing more to do.
set -euo pipefail

[ "$(id -u)" = 0 ] || exit 0
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

for user in immure-single immure-ranges; do
  echo "== tests as $user"
  runuser -u "$user" -- env PYTHONPATH="$work/src:$work/packages" HOME="/home/$user" IMMURE_TEST_USER="$user" \
    IMMURE_CORPUS="${IMMURE_CORPUS:-}" "$usable" -m pytest -q -p no:cacheprovider -m rootless \
    -c "$work/pyproject.toml" --rootdir "$work" "$work/tests"
done
