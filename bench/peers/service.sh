#!/usr/bin/env bash
# The peers as services behind one and the same gRPC front: the highest rate that keeps each objective, in Markdown.
# Build with run.sh first.
#
#   bench/peers/service.sh [--shape paper|compact] [--candidates N] [--behaviours N] [--objectives 'p99<5ms p99<10ms']
#                          [--duration TIME] [--peers 'dinserve ort-split ...'] [--bin DIRECTORY]
set -euo pipefail
shape=paper candidates=50 behaviours=50 objectives='p99<5ms p99<10ms' duration=5s
peers='dinserve ort-split ort-per-candidate ort-tiled libtorch'
bin=$(dirname "$0")/../../build/peers/bin
while [ $# -gt 0 ]; do
  case $1 in
    --shape) shape=$2 ;;
    --candidates) candidates=$2 ;;
    --behaviours) behaviours=$2 ;;
    --objectives) objectives=$2 ;;
    --duration) duration=$2 ;;
    --peers) peers=$2 ;;
    --bin) bin=$2 ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "service: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift 2
done

work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export OMP_NUM_THREADS=1
"$bin/bench-snapshot" "$shape" "$work/model" 1 1000000 10000

echo "$shape, $candidates candidates x $behaviours behaviours, 10^6 items; requests/s (answers per core-second of the server)"
echo
printf '| |'; for objective in $objectives; do printf ' %s |' "$objective"; done
printf '\n|---|'; for _ in $objectives; do printf -- '---|'; done; echo
for peer in $peers; do
  "$bin/peers_server" "$peer" "$work/model/1" "unix:$work/socket" >"$work/log" 2>&1 &
  server=$!
  printf '| %s |' "$peer"
  for objective in $objectives; do
    # A search needs no report, so its exit code tells enough.
    "$bin/din-load" --server "unix:$work/socket" --connect-timeout 60s --find-max "$objective" --rate 100 \
      --duration "$duration" --warm-up 1s --drain 2s --scheduling realtime --distinct 1024 --candidates "$candidates" --behaviours "$behaviours" \
      --server-pid "$server" --json "$work/report.json" >"$work/load.log" 2>&1 ||
      { cat "$work/log" "$work/load.log" >&2; exit 1; }
    python3 - "$work/report.json" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
rate = report["max"]["rate"]
runs = [r for r in report["runs"] if r["valid"] and abs(r["offered_rate"] - rate) < 1e-6 * max(1, rate)]
per_core = sum(r.get("goodput_per_core", 0) for r in runs) / max(1, len(runs))
print(f" {rate:.0f} ({per_core:.0f}) |" if rate else " none |", end="", flush=True)
PYTHON
  done
  echo
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
done
