#!/usr/bin/env bash
# The peers as services behind one and the same gRPC front: the highest rate that keeps each objective, in Markdown.
# Build with run.sh first.
#
#   bench/peers/service.sh [--shape paper|compact] [--candidates N] [--behaviours N] [--objectives 'p99<5ms p99<10ms']
#                          [--rounds N] [--duration TIME] [--peers 'dinserve ort-split ...'] [--bin DIRECTORY]
#                          [--results FILE]
#
# In every round each peer has its turn, so that a bad spell of the machine hits all. A cell is the median over the rounds of
# requests per second and core of the server, with the least and the most of them, and behind it the median of requests
# per second. --results keeps what was measured: rounds of an earlier call that are in FILE count too.
set -euo pipefail
shape=paper candidates=50 behaviours=50 objectives='p99<5ms p99<10ms' rounds=3 duration=5s results=
peers='dinserve ort-split ort-per-candidate ort-tiled libtorch'
bin=$(dirname "$0")/../../build/peers/bin
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --shape | --candidates | --behaviours | --objectives | --rounds | --duration | --peers | --bin | --results)
      [ $# -ge 2 ] || { echo "service: $1 needs a value (see --help)" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2 ;;
    *) echo "service: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export OMP_NUM_THREADS=1
results=${results:-$work/results}
"$bin/bench-snapshot" "$shape" "$work/model" 1 1000000 10000

# measure ROUND PEER: one line for each objective in the results.
measure() {
  "$bin/peers_server" "$2" "$work/model/1" "unix:$work/socket" >"$work/log" 2>&1 &
  server=$!
  local objective start=100
  for objective in $objectives; do
    echo "service: round $1 of $rounds, $2, $objective" >&2
    # A search needs no report, so its exit code tells enough.
    "$bin/din-load" --server "unix:$work/socket" --connect-timeout 60s --find-max "$objective" --rate "$start" \
      --duration "$duration" --warm-up 500ms --drain 2s --scheduling realtime --distinct 1024 --seed "$1" \
      --candidates "$candidates" --behaviours "$behaviours" --server-pid "$server" --json "$work/report.json" \
      >"$work/load.log" 2>&1 || { cat "$work/log" "$work/load.log" >&2; exit 1; }
    # The next, laxer objective allows at least as much.
    start=$(/usr/bin/python3 - "$work/report.json" "$results" "$shape $candidates x $behaviours" "$2" "$objective" <<'PYTHON'
import json, sys
report_file, results, *key = sys.argv[1:]
report = json.load(open(report_file))
rate = report["max"]["rate"]
runs = [r for r in report["runs"] if r["valid"] and abs(r["offered_rate"] - rate) < 1e-6 * max(1, rate)]
per_core = sorted(r.get("goodput_per_core", 0) for r in runs)
with open(results, "a") as file:
    print(json.dumps(key + [rate, per_core[len(per_core) // 2] if per_core else 0, report["max"]["bounded_by"]]), file=file)
print(max(10, rate))
PYTHON
)
  done
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
}

for round in $(seq "$rounds"); do
  for peer in $peers; do measure "$round" "$peer"; done
done

/usr/bin/python3 - "$results" "$shape $candidates x $behaviours" "$peers" "$objectives" <<'PYTHON'
import collections, json, statistics, sys
results, shape, peers, objectives = sys.argv[1:]
found = collections.defaultdict(list)
for line in open(results):
    of, peer, objective, rate, per_core, bound = json.loads(line)
    if of == shape:
        found[peer, objective].append((rate, per_core, bound))
names, columns = peers.split(), objectives.split()
rounds = len(found[names[0], columns[0]])
print(f"{shape}, 10^6 items, {rounds} rounds: requests/s/core, median (least to most); requests/s\n")
print("| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
for peer in names:
    cells = []
    for objective in columns:
        values = found[peer, objective]
        rate = statistics.median(r for r, _, _ in values)
        cores = sorted(c for _, c, _ in values)
        note = "" if all(b == "the objective" for _, _, b in values) else " (bounded by " + values[0][2] + ")"
        cells.append(f"{statistics.median(cores):.0f} ({cores[0]:.0f} to {cores[-1]:.0f}); {rate:.0f}{note}" if rate else "none")
    print(f"| {peer} | " + " | ".join(cells) + " |")
PYTHON
