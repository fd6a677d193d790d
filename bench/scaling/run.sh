#!/usr/bin/env bash
# How the cost of a request grows with pairs, table rows and models, and memory with rows: pictures and Markdown tables.
#
#   bench/scaling/run.sh [OUT [MOST-ROWS]]
#
#   OUT         where the pictures go (build/scaling)
#   MOST-ROWS   of the largest table, 128 bytes each (1e7; 1e8 take 12.8 GB)
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/../.."
out=${1:-build/scaling} most=${2:-1e7}
figures=build/scaling
mkdir -p "$out" "$figures"
cmake --preset release >/dev/null
cmake --build --preset release --target scaling_bench >/dev/null
export OMP_NUM_THREADS=1
for what in pairs "rows $most" models memory; do
  echo "scaling: $what" >&2
  # shellcheck disable=SC2086
  build/release/bin/scaling_bench $what >"$figures/${what%% *}.csv"
done
bench/scaling/plot.py scaling "$figures" "$out"
