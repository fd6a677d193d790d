#!/usr/bin/env bash
# Fetches ONNX Runtime, builds the peers and runs them: one table per number of threads, in Markdown.
#
#   bench/peers/run.sh [--rounds N] [--only PART-OF-A-SHAPE'S-NAME]
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/../.."
bench/peers/build.sh
for threads in 1 2; do
  printf '\n'
  # libtorch and oneDNN take their threads from OpenMP.
  OMP_NUM_THREADS=$threads build/release/bin/peers_bench --threads "$threads" "$@"
done
