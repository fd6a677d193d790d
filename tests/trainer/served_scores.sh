#!/usr/bin/env bash
# Each of the six models: trained, published, served by din-server, and the whole test set scored over gRPC; the scores
# must be libtorch's. Prints the largest difference and both AUCs.
#   served_scores.sh BIN                         on a small made shop
#   served_scores.sh BIN --data DIR [option...]  on real data, with options of din-train train
set -euo pipefail
bin=$1
shift
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
fail() { echo "served_scores: $*" >&2; exit 1; }

if [ $# = 0 ]; then
  awk -f "$(dirname "$0")/shop.awk" </dev/null >"$work/events.tsv"
  set -- --data "$work/events.tsv" --epochs 2 --batch 64 --dim 4 --tower 8,4 --attention 6 --threads 1
fi
models="lr base wide-deep pnn deepfm din"
for model in $models; do
  "$bin/din-train" train "$@" --model "$model" --out "$work/models/$model" --checkpoint "$work/$model.ckpt" \
    >"$work/log" 2>&1 || fail "train $model: $(cat "$work/log")"
done
"$bin/din-server" --model-root "$work/models" --listen 127.0.0.1:0 --port-file "$work/port" >"$work/server.log" 2>&1 &
server=$!
for _ in $(seq 600); do
  [ ! -s "$work/port" ] || break
  kill -0 "$server" 2>/dev/null || fail "din-server ended: $(cat "$work/server.log")"
  sleep 0.1
done
address=127.0.0.1:$(head -n 1 "$work/port")
for model in $models; do
  "$bin/served_scores" --checkpoint "$work/$model.ckpt" --server "$address" --model "$model" 2>"$work/log" ||
    fail "$model: $(cat "$work/log")"
done
