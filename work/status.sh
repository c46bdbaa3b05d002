#!/usr/bin/env bash
# How far the photo chain is: bash work/status.sh [LOG]
set -euo pipefail
# shellcheck source=work/chain.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/chain.sh"

if [ $# -gt 0 ]; then log=$1; else newest photo_pipeline; fi
[ -f "$log" ] || fail "no log of a photo chain in $logs"
printf 'log      %s\n' "$log"
# From the last begin of a chain: its steps, and whether its process is still there.
chain=$(awk '/^=== .* chain: begin/ { text = "" } { text = text $0 "\n" } END { printf "%s", text }' <"$log")
process=$(sed -n 's/^=== [^ ]* [^ ]* chain: begin, process \([0-9]*\),.*/\1/p' <<<"$chain" | tail -n 1)
grep -E '^=== ' <<<"$chain" | sed 's/^=== /step     /' || true
if grep -qE '^=== .* chain: exit' <<<"$chain"; then
    echo "state    ended"
elif [ -n "$process" ] && kill -0 "$process" 2>/dev/null; then
    echo "state    running (process $process)"
else
    echo "state    dead without a word; start the chain again, it goes on where it stopped"
fi
grep -vE '^=== ' <<<"$chain" | tail -n 5 | sed 's/^/last     /' || true
