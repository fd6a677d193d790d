#!/usr/bin/env bash
# The peers as services behind one and the same gRPC front: the highest rate that keeps each objective, in Markdown.
#
#   bench/peers/service.sh [--shape paper|compact] [--candidates N] [--behaviours N] [--objectives 'p99<5ms p99<10ms']
#                          [--rounds N] [--duration TIME] [--precision SHARE] [--peers 'dinserve ort-split ...']
#                          [--bin DIRECTORY] [--results FILE]
#
# Each peer's answers are held against dinserve's in fp32 before it is loaded (1e-5; bf16: 0.01). In every round each
# peer has its turn, so that a bad spell of the machine hits all. A cell is the median over the rounds of requests per
# second and core of the server, with the least and the most of them, and behind it the median of requests per second.
# --duration and --precision are those of the search (din-load --find-max). --results keeps what was measured: rounds of
# an earlier call that are in FILE count too. Builds what it needs unless --bin says where it is.
set -euo pipefail
shape=paper candidates=50 behaviours=50 objectives='p99<5ms p99<10ms' rounds=3 duration=3s precision=0.05
peers='' results='' bin=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --shape | --candidates | --behaviours | --objectives | --rounds | --duration | --precision | --peers | --bin | --results)
      [ $# -ge 2 ] || { echo "service: $1 needs a value (see --help)" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2 ;;
    *) echo "service: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

if [ -z "$bin" ]; then
  "$(dirname "$0")/build.sh"
  bin=$(dirname "$0")/../../build/release/bin
fi
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
peers=${peers:-$("$bin/peers_server" contestants "$work/model/1" | xargs)}
"$bin/peers_server" expect "$work/model/1" "$candidates" "$behaviours" >"$work/expected.jsonl"

# load FLAG...: its report is in report.json. 3: the generator was late once, which the report says.
load() {
  "$bin/din-load" --server "unix:$work/socket" --connect-timeout 60s --scheduling realtime --server-pid "$server" \
    --json "$work/report.json" "$@" >"$work/load.log" 2>&1 || [ $? = 3 ] || {
    cat "$work/log" "$work/load.log" >&2
    exit 1
  }
}

# report STEP ARGUMENT...: what report.json says.
#   alone                        least milliseconds of a request by itself; an error if one had no right answer
#   max PEER OBJECTIVE           the highest rate, which goes into the results
#   none PEER OBJECTIVE          the same of a peer whose requests take longer than the objective when alone
report() {
  /usr/bin/python3 - "$work/report.json" "$results" "$shape $candidates x $behaviours" "$@" <<'PYTHON'
import json, sys
report_file, results, of, step, *key = sys.argv[1:]
report = json.load(open(report_file))
if step == "alone":
    run = report["runs"][0]
    if run["ok"] != run["sent"] or run["ok"] == 0:
        sys.exit(f"service: {run['ok']} of {run['sent']} answers were right: {run['errors']}")
    print(f'{run["percentiles_us"][0][1] / 1000:.3f}')
    sys.exit()
rate, bound, per_core = 0, "the objective", [0]
if step == "max":
    rate, bound = report["max"]["rate"], report["max"]["bounded_by"]
    per_core = sorted(run["goodput_per_core"] for run in report["runs"]
                      if run["valid"] and abs(run["offered_rate"] - rate) < 1e-6 * rate) or [0]
with open(results, "a") as file:
    print(json.dumps([of, *key, rate, per_core[len(per_core) // 2], bound]), file=file)
print(rate)
PYTHON
}

# measure ROUND PEER: one line for each objective in the results.
measure() {
  "$bin/peers_server" "$2" "$work/model/1" "unix:$work/socket" >"$work/log" 2>&1 &
  server=$!
  local objective alone start tolerance=1e-5 limit
  case $2 in *-bf16) tolerance=0.01 ;; esac
  load --expect "$work/expected.jsonl" --tolerance "$tolerance" --rate 20 --arrivals constant --duration 1s --warm-up 1s
  alone=$(report alone)
  # Half of what the cores would do without a network.
  start=$(awk -v ms="$alone" -v cores="$(getconf _NPROCESSORS_ONLN)" 'BEGIN { print 500 * cores / ms }')
  for objective in $objectives; do
    echo "service: $shape $candidates x $behaviours, round $1 of $rounds, $2 ($alone ms alone), $objective," \
      "at $SECONDS s" >&2
    limit=$(awk -v text="${objective#*<}" 'BEGIN { print text * (text ~ /us$/ ? 0.001 : text ~ /ms$/ ? 1 : 1000) }')
    if awk -v ms="$alone" -v limit="$limit" 'BEGIN { exit !(ms >= limit) }'; then
      report none "$2" "$objective" >/dev/null
      continue
    fi
    load --find-max "$objective" --rate "$start" --duration "$duration" --warm-up 300ms --drain 1s --distinct 1024 \
      --seed "$1" --precision "$precision" --candidates "$candidates" --behaviours "$behaviours"
    # The next, laxer objective allows at least as much.
    start=$(report max "$2" "$objective" | awk '{ print ($1 > 10 ? $1 : 10) }')
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
print(f"{shape}, 10⁶ items; requests/s/core, " + ("median of {0} rounds (least to most)".format(rounds) if rounds > 1
                                                   else "one round") + "; requests/s\n")
print("| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
for peer in names:
    cells = []
    for objective in columns:
        values = found[peer, objective]
        rate = statistics.median(r for r, _, _ in values)
        cores = sorted(c for _, c, _ in values)
        spread = f" ({cores[0]:.0f} to {cores[-1]:.0f})" if rounds > 1 else ""
        note = "".join(sorted({f" (bounded by {b})" for _, _, b in values if b != "the objective"}))
        cells.append(f"{statistics.median(cores):.0f}{spread}; {rate:.0f}{note}" if rate else "none")
    print(f"| {peer} | " + " | ".join(cells) + " |")
PYTHON
