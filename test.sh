#!/usr/bin/env bash
# Every test of dinserve on a machine that may have nothing installed yet.
#
#   ./test.sh            all: fences, unit, golden, property and end-to-end tests; libFuzzer, 20 s a target; sanitizers
#   ./test.sh --quick    the release build's tests only
set -euo pipefail
cd "$(dirname "$0")"
quick=""
case ${1:-} in
  "") ;;
  --quick) quick=1 ;;
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "test: unknown option $1 (see ./test.sh --help)" >&2; exit 2 ;;
esac

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
jobs=$(nproc)
export OMP_NUM_THREADS=1

# build PRESET: configure quietly, build, show the log only when it fails.
build() {
  step "build $1"
  local log; log=$(mktemp)
  if ! { cmake --preset "$1" && cmake --build --preset "$1" -j "$jobs"; } >"$log" 2>&1; then
    tail -60 "$log" >&2
    exit 1
  fi
  rm -f "$log"
}
run() { step "test $1"; ctest --preset "$1" -j "$jobs"; }

step "packages"
if [ -n "$quick" ]; then ./setup.sh --clients --trainer; else ./setup.sh --clients --trainer --fuzz; fi
if [ -z "$quick" ]; then
  build asan
  run asan
  build tsan
  run tsan
  build fuzz
  run fuzz
fi
# Last, so that the closing summary is that of what is deployed.
build release
run release
