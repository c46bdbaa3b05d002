#!/usr/bin/env bash
# How far the video chain is: bash work/status_video_pipeline.sh [LOG]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
logs=${SORT_FACES_LOGS:-$here/work/logs}
log=${1:-$({ find "$logs" -name 'video_pipeline-*.log' 2>/dev/null || true; } | sort | tail -n 1)}
if [ -z "$log" ] || [ ! -f "$log" ]; then
    echo "status_video_pipeline: no log of a video chain in $logs" >&2
    exit 2
fi
exec bash "$here/work/status.sh" "$log"
