#!/usr/bin/env bash
# The photo chain for a night: embed, cluster or extend, refine, dedup, export-swap.
#
#   SRC=/mnt/x/src OUT=/mnt/e/facesets nohup bash work/run_photo_pipeline.sh &
#   bash work/status.sh
#
# Safe to start again after any failure: every step goes on where it stopped, and a second chain
# over the same cache refuses to start. Environment (defaults in brackets; a settings
# file that SORT_FACES_CONFIG names counts more than those with a *):
#   SRC          a photo folder, or several separated by ':'     (required)
#   OUT          folder for the three trees                      (required)
#   CACHE        the cache                                       [work/cache/library.npz]
#   MODEL        model pack, folder of .onnx files, or dlib      [the cache's, else buffalo_l *]
#   WORKER       python.exe of the Windows worker                [none]
#   CLUSTER      address of a Dask scheduler                     [none]
#   PATH_MAP     LOCAL=REMOTE for the cluster's paths            [none]
#   THRESHOLD    cluster distance                                [the model's *]
#   MIN_FACES    unique images per face set                      [15 *]
#   TOP_N        faces in the small bundle                       [30 *]
#   LINK         copy, hard, sym or reflink                      [copy *]
#   EXTEND       yes: add to existing trees, renumber nothing    [yes when OUT has trees, else no]
#   EMBED_ARGS   further options of embed, quoted as in a shell  [none]
#   PYTHON       the interpreter                                 [.venv/bin/python, else python3]
set -euo pipefail
# shellcheck source=work/chain.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/chain.sh"

need SRC "the photo folders, separated by ':'"
need OUT "the folder for the results"
yes_or_no EXTEND
options_of EMBED_ARGS
MODEL=${MODEL:-}
CACHE=${CACHE:-$own/cache/library.npz}
case $CACHE in */*) ;; *) CACHE=./$CACHE ;; esac
if [ -z "${EXTEND:-}" ]; then
    EXTEND=no
    if [ -f "$OUT/raw_full/manifest.json" ] && [ -f "$OUT/facesets_full/refine_manifest.json" ]; then
        EXTEND=yes
    fi
fi
sources=()
if [ -d "$SRC" ]; then # a ':' in a folder's name separates nothing
    sources=("$SRC")
else
    while IFS= read -r -d : folder; do
        [ -z "$folder" ] || sources+=("$folder")
    done < <(printf '%s:' "$SRC")
fi
[ "${#sources[@]}" -gt 0 ] || fail "SRC=${SRC@Q} names no folder"

beside=${CACHE%/*}
mkdir -p -- "$logs" "${beside:-/}" || exit 2
alone "$CACHE.chain.lock" "$CACHE" status.sh
log_to "$logs/photo_pipeline-$(date +%Y-%m-%d).log"

engine=() who=() threshold=() first=() link=() least=() top=()
[ -n "$MODEL" ] && engine=("--model=$MODEL")
[ -n "${LINK:-}" ] && link=("--link=$LINK")
[ -n "${MIN_FACES:-}" ] && least=("--min-faces=$MIN_FACES")
[ -n "${TOP_N:-}" ] && top=("--top-n=$TOP_N")
[ -n "${THRESHOLD:-}" ] && threshold=("--threshold=$THRESHOLD") && first=("--initial-threshold=$THRESHOLD")
[ -n "${WORKER:-}" ] && who+=("--worker=$WORKER")
[ -n "${CLUSTER:-}" ] && who+=("--cluster=$CLUSTER")
[ -n "${PATH_MAP:-}" ] && who+=("--path-map=$PATH_MAP")
raw=$OUT/raw_full
refined=$OUT/facesets_full
ready=$OUT/facesets_swap_ready

begin() {
    say "$1: begin"
    step "$1" "$@"
}

say "chain: begin, process $$, SRC=${SRC@Q} OUT=${OUT@Q} CACHE=${CACHE@Q} MODEL=${MODEL@Q}"
begin embed --enrich "${engine[@]}" "${who[@]}" "${extra[@]}" -- "${sources[@]}" "$CACHE"
if [ "$EXTEND" = yes ]; then
    begin extend "--refine-out=$refined" "${link[@]}" "${threshold[@]}" -- "$CACHE" "$raw"
else
    begin cluster "${link[@]}" "${threshold[@]}" -- "$CACHE" "$raw"
    begin refine "${link[@]}" "${least[@]}" "${first[@]}" -- "$CACHE" "$refined"
fi
begin dedup -- "$CACHE"
begin export-swap "${engine[@]}" "${who[@]}" "--raw-manifest=$raw/manifest.json" --candidates \
    "${top[@]}" -- "$CACHE" "$refined/refine_manifest.json" "$ready"
