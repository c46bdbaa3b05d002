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
#   CORPUS         swap-ready folder whose face sets say what people are called  [none]
#   SIDECAR        yes: write a .json beside each clip                      [no]
#   CUT            copy, smart or encode                                    [smart *]
#   MODEL          model pack, folder of .onnx files, or dlib               [buffalo_l *]
#   WORKER         python.exe of the Windows worker                         [none]
#   CLUSTER        address of a Dask scheduler                              [none]
#   PATH_MAP       LOCAL=REMOTE for the cluster's paths                     [none]
#   VIDEO_ARGS     further options of `video run`, quoted as in a shell     [none]
#   PYTHON         the interpreter                                          [.venv/bin/python, else python3]
set -euo pipefail
# shellcheck source=work/chain.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/chain.sh"

need WORK "a folder for what the steps leave"
need INPUT_DIR "the folder of videos"
need OUTPUT_DIR "the folder for the clips"
yes_or_no SIDECAR
options_of VIDEO_ARGS

mkdir -p -- "$logs" "$WORK" || exit 2
alone "$WORK/chain.lock" "$WORK" status_video_pipeline.sh
name=${WORK%"${WORK##*[!/]}"} # without the slashes at its end
log=$logs/video_pipeline-$(date +%Y-%m-%d)-${name##*/}.log
printf 'run_video_pipeline: log %s\n' "$log"
log_to "$log"

options=()
[ -n "${MODEL:-}" ] && options+=("--model=$MODEL")
[ -n "${CUT:-}" ] && options+=("--cut=$CUT")
[ -n "${FILTER_FROM:-}" ] && options+=("--filter-from=$FILTER_FROM")
[ -n "${SKIP_PATTERN:-}" ] && options+=("--skip-pattern=$SKIP_PATTERN")
[ -n "${MAX_DUR:-}" ] && options+=("--max-dur=$MAX_DUR")
[ -n "${IDENTITY:-}" ] && options+=("--identity=$IDENTITY")
[ -n "${CORPUS:-}" ] && options+=("--corpus=$CORPUS")
[ "${SIDECAR:-no}" = yes ] && options+=(--write-sidecar)
[ -n "${WORKER:-}" ] && options+=("--worker=$WORKER")
[ -n "${CLUSTER:-}" ] && options+=("--cluster=$CLUSTER")
[ -n "${PATH_MAP:-}" ] && options+=("--path-map=$PATH_MAP")

say "chain: begin, process $$, WORK=${WORK@Q} INPUT_DIR=${INPUT_DIR@Q} OUTPUT_DIR=${OUTPUT_DIR@Q}"
step "video run" video run "${options[@]}" "${extra[@]}" -- "$INPUT_DIR" "$WORK" "$OUTPUT_DIR"
