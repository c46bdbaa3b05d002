#!/usr/bin/env bash
# How far the video chain is: bash work/status_video_pipeline.sh [LOG]
set -euo pipefail
# shellcheck source=work/chain.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/chain.sh"

if [ $# -gt 0 ]; then log=$1; else newest video_pipeline; fi
[ -f "$log" ] || fail "no log of a video chain in $logs"
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/status.sh" "$log"
