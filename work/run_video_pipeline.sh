#!/usr/bin/env bash
# The video chain for a night: scan, scenes, stage, detect, merge, track, score, cut, report.
#
#   WORK=work/video_holiday INPUT_DIR=/mnt/x/videos OUTPUT_DIR=/mnt/e/clips \
#       nohup bash work/run_video_pipeline.sh &
#   bash work/status_video_pipeline.sh
#
# Safe to start again after any failure: every step goes on where it stopped, and a second chain
# over the same work folder refuses to start. Environment (defaults in brackets; a
# settings file that SORT_FACES_CONFIG names counts more than those with a *):
#   WORK           folder for what the steps leave; one per input folder   (required)
#   INPUT_DIR      folder of videos                                         (required)
#   OUTPUT_DIR     folder for the clips                                     (required)
#   FILTER_FROM    only files whose name is this or later                   [all]
#   SKIP_PATTERN   no files whose name this regular expression finds        [none]
#   MAX_DUR        longest clip in seconds                                  [120 *]
#   IDENTITY       .fsz bundle or folder: only clips with this person       [everybody]
#   SIDECAR        yes: write a .json beside each clip                      [no]
#   CUT            copy, smart or encode                                    [smart *]
#   MODEL          model pack, folder of .onnx files, or dlib               [buffalo_l *]
#   WORKER         python.exe of the Windows worker                         [none]
#   CLUSTER        address of a Dask scheduler                              [none]
#   PATH_MAP       LOCAL=REMOTE for the cluster's paths                     [none]
#   VIDEO_ARGS     further options of `video run`, such as --max-yaw 25     [none]
#   PYTHON         the interpreter                                          [.venv/bin/python, else python3]
set -euo pipefail

: "${WORK:?set WORK to a folder for what the steps leave}"
: "${INPUT_DIR:?set INPUT_DIR to the folder of videos}"
: "${OUTPUT_DIR:?set OUTPUT_DIR to the folder for the clips}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
logs=${SORT_FACES_LOGS:-$here/work/logs}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$here/.venv/bin/python" ] && PYTHON=$here/.venv/bin/python
fi

mkdir -p "$logs" "$WORK"
exec 9>>"$WORK/chain.lock"
if ! flock --nonblock 9; then
    echo "run_video_pipeline: a chain over $WORK is running already; see work/status_video_pipeline.sh" >&2
    exit 2
fi
case ${SIDECAR:-no} in
yes | no) ;;
*)
    echo "run_video_pipeline: SIDECAR=$SIDECAR is neither yes nor no" >&2
    exit 2
    ;;
esac
log=$logs/video_pipeline-$(date +%Y-%m-%d)-$(basename "$WORK").log
echo "run_video_pipeline: log $log"
exec 4>&2 >>"$log" 2>&1
trap 'code=$?; echo "=== $(date "+%F %T") chain: exit $code"' EXIT

options=()
[ -n "${MODEL:-}" ] && options+=(--model "$MODEL")
[ -n "${CUT:-}" ] && options+=(--cut "$CUT")
[ -n "${FILTER_FROM:-}" ] && options+=("--filter-from=$FILTER_FROM")
[ -n "${SKIP_PATTERN:-}" ] && options+=("--skip-pattern=$SKIP_PATTERN")
[ -n "${MAX_DUR:-}" ] && options+=(--max-dur "$MAX_DUR")
[ -n "${IDENTITY:-}" ] && options+=(--identity "$IDENTITY")
[ "${SIDECAR:-no}" = yes ] && options+=(--write-sidecar)
[ -n "${WORKER:-}" ] && options+=(--worker "$WORKER")
[ -n "${CLUSTER:-}" ] && options+=(--cluster "$CLUSTER")
[ -n "${PATH_MAP:-}" ] && options+=(--path-map "$PATH_MAP")
read -r -a extra <<<"${VIDEO_ARGS:-}"

echo "=== $(date '+%F %T') chain: begin, process $$, WORK=$WORK INPUT_DIR=$INPUT_DIR OUTPUT_DIR=$OUTPUT_DIR"
started=$SECONDS
code=0
"$PYTHON" "$here/sort_faces.py" video run "${options[@]}" "${extra[@]}" -- \
    "$INPUT_DIR" "$WORK" "$OUTPUT_DIR" 9>&- || code=$? # 9: the lock is the chain's alone
echo "=== $(date '+%F %T') video run: exit $code after $((SECONDS - started)) s"
[ "$code" -eq 0 ] || tail -n 2 "$log" | head -n 1 >&4 # the line that explains it
exit "$code"
