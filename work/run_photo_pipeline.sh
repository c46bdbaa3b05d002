#!/usr/bin/env bash
# The photo chain for a night: embed, cluster or extend, refine, dedup, export-swap.
#
#   SRC=/mnt/x/src OUT=/mnt/e/facesets nohup bash work/run_photo_pipeline.sh &
#   bash work/status.sh
#
# Safe to start again after any failure: every step goes on where it stopped, and a second chain
# over the same cache refuses to start. Environment (defaults in brackets; a settings
# file that SORT_FACES_CONFIG names counts more than those with a *):
#   SRC          photo folders, several separated by ':'        (required)
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
#   EMBED_ARGS   further options of embed, such as --tiles       [none]
#   PYTHON       the interpreter                                 [.venv/bin/python, else python3]
set -euo pipefail

: "${SRC:?set SRC to the photo folders, separated by ':'}"
: "${OUT:?set OUT to the folder for the results}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${CACHE:-$here/work/cache/library.npz}
logs=${SORT_FACES_LOGS:-$here/work/logs}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$here/.venv/bin/python" ] && PYTHON=$here/.venv/bin/python
fi
if [ -z "${EXTEND:-}" ]; then
    EXTEND=no
    if [ -f "$OUT/raw_full/manifest.json" ] && [ -f "$OUT/facesets_full/refine_manifest.json" ]; then
        EXTEND=yes
    fi
fi

mkdir -p "$logs" "$(dirname "$CACHE")"
exec 9>>"$CACHE.chain.lock"
if ! flock --nonblock 9; then
    echo "run_photo_pipeline: a chain over $CACHE is running already; see work/status.sh" >&2
    exit 2
fi
log=$logs/photo_pipeline-$(date +%Y-%m-%d).log
exec >>"$log" 2>&1

step() {
    local name=$1
    shift
    echo "=== $(date '+%F %T') $name: begin"
    local started=$SECONDS code=0
    "$PYTHON" "$here/sort_faces.py" "$name" "$@" 9>&- || code=$? # 9: the lock is the chain's alone
    echo "=== $(date '+%F %T') $name: exit $code after $((SECONDS - started)) s"
    return "$code"
}
trap 'code=$?; echo "=== $(date "+%F %T") chain: exit $code"' EXIT

IFS=: read -r -a sources <<<"$SRC"
engine=() who=() threshold=() first=() link=() least=() top=()
[ -n "${MODEL:-}" ] && engine=(--model "$MODEL")
[ -n "${LINK:-}" ] && link=(--link "$LINK")
[ -n "${MIN_FACES:-}" ] && least=(--min-faces "$MIN_FACES")
[ -n "${TOP_N:-}" ] && top=(--top-n "$TOP_N")
[ -n "${THRESHOLD:-}" ] && threshold=(--threshold "$THRESHOLD") && first=(--initial-threshold "$THRESHOLD")
[ -n "${WORKER:-}" ] && who+=(--worker "$WORKER")
[ -n "${CLUSTER:-}" ] && who+=(--cluster "$CLUSTER")
[ -n "${PATH_MAP:-}" ] && who+=(--path-map "$PATH_MAP")
read -r -a extra <<<"${EMBED_ARGS:-}"
raw=$OUT/raw_full
refined=$OUT/facesets_full
ready=$OUT/facesets_swap_ready

echo "=== $(date '+%F %T') chain: begin, process $$, SRC=$SRC OUT=$OUT CACHE=$CACHE MODEL=${MODEL:-}"
step embed "${sources[@]}" "$CACHE" --enrich "${engine[@]}" "${who[@]}" "${extra[@]}"
if [ "$EXTEND" = yes ]; then
    step extend "$CACHE" "$raw" --refine-out "$refined" "${link[@]}" "${threshold[@]}"
else
    step cluster "$CACHE" "$raw" "${link[@]}" "${threshold[@]}"
    step refine "$CACHE" "$refined" "${link[@]}" "${least[@]}" "${first[@]}"
fi
step dedup "$CACHE"
step export-swap "$CACHE" "$refined/refine_manifest.json" "$ready" "${engine[@]}" "${who[@]}" \
    --raw-manifest "$raw/manifest.json" --candidates "${top[@]}"
