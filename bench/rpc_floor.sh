#!/usr/bin/env bash
# What the network costs and what is ours: din-server, in fp32 and in bf16, beside a server that answers the same requests
# at once without scoring (the RPC floor), in one run. One request at a time over UDS and TCP, over UDS with pinned scoring
# threads, too; then the highest rate over UDS, and what TCP costs at that rate. In Markdown.
#
#   bench/rpc_floor.sh [--shape paper|compact] [--candidates N] [--behaviours N] [--rate N] [--duration TIME] [--rounds N]
#                      [--scheduling ordinary|realtime] [--objective 'p99<20ms'] [--search TIME] [--precision SHARE]
#                      [--server-flags '--share-requests off'] [--bin DIRECTORY]
#
# --rate and --scheduling: requests/s, so few that they do not meet (fewer where one takes over 9 ms), and the generator's
# priority in the one-at-a-time runs. In each of the rounds every server has its turn of --duration, so that a bad spell of the
# machine hits all. --search and --precision: of the search for the highest rate, how long each try is and how near to the end.
# Needs the release build.
set -euo pipefail
shape=paper candidates=200 behaviours=100 rate=100 duration=2s rounds=3 objective='p99<20ms' search=1s precision=0.1
scheduling=ordinary server_flags=
bin=$(dirname "$0")/../build/release/bin
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --shape | --candidates | --behaviours | --rate | --duration | --rounds | --scheduling | --objective | \
      --search | --precision | --server-flags | --bin)
      [ $# -ge 2 ] || { echo "rpc_floor: $1 needs a value (see --help)" >&2; exit 2; }
      name=${1#--}
      declare "${name//-/_}=$2"
      shift 2 ;;
    *) echo "rpc_floor: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

work=$(mktemp -d)
declare -A pids ports
cleanup() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
[[ $rate =~ ^[1-9][0-9]*$ ]] || { echo "rpc_floor: --rate $rate: must be a whole number" >&2; exit 2; }
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "rpc_floor: --rounds $rounds: must be a whole number" >&2; exit 2; }
export OMP_NUM_THREADS=1
"$bin/bench-snapshot" "$shape" "$work/models/$shape" 1 1000000 10000

# start SERVER COMMAND...: what it prints is in SERVER.log.
start() {
  local server=$1; shift
  "$@" >"$work/$server.log" 2>&1 &
  pids[$server]=$!
}

# wait_for FILE PATTERN: until a line of it matches.
wait_for() {
  for _ in $(seq 600); do
    grep -qE "$2" "$work/$1" 2>/dev/null && return
    sleep 0.1
  done
  cat "$work"/*.log >&2
  echo "rpc_floor: no server after a minute" >&2
  exit 1
}

# dinserve NAME FLAG...
dinserve() {
  local server=$1; shift
  # shellcheck disable=SC2086  # several flags
  start "$server" "$bin/din-server" --model-root "$work/models" --listen 127.0.0.1:0 --listen "unix:$work/$server" \
    --port-file "$work/$server.port" "$@" $server_flags --log-format text --log-level info
  wait_for "$server.port" '^[0-9]+$'
  ports[$server]=$(head -1 "$work/$server.port")
}

start floor "$bin/constant_time_server" --unix "$work/floor"
wait_for floor.log '^port '
ports[floor]=$(sed -n 's/^port //p' "$work/floor.log")
dinserve fp32 --precision fp32
dinserve bf16 --precision bf16
dinserve fp32-pinned --precision fp32 --pin-threads on
dinserve bf16-pinned --precision bf16 --pin-threads on
# Where there are no instructions for bf16, the server falls back to fp32.
contestants='floor fp32'
if grep -q 'event="model live".* precision=bf16' "$work/bf16.log"; then
  contestants+=' bf16'
else
  echo 'rpc_floor: this CPU has no instructions for bf16, which is left out' >&2
fi

# load NETWORK SERVER FLAG...: the report is in run.json.
load() {
  local address=unix:$work/$2 server=$2
  [ "$1" = UDS ] || address=127.0.0.1:${ports[$server]}
  shift 2
  # 3: the generator was late, which the report says.
  "$bin/din-load" --server "$address" --server-pid "${pids[$server]}" --json "$work/run.json" "$@" >"$work/load" 2>&1 ||
    [ $? = 3 ] || { cat "$work/load" "$work"/*.log >&2; exit 1; }
}

# The same requests for all: those that are drawn for the model.
load UDS fp32 --rate "$rate" --duration 1s --warm-up 1s --distinct 512 --candidates "$candidates" --behaviours "$behaviours" \
  --record "$work/requests.bin"

# note STEP NETWORK SERVER: what the report says becomes a line of the results.
note() {
  /usr/bin/python3 - "$work/run.json" "$@" >>"$work/results" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
runs, rate, bound = report["runs"], None, None
if "max" in report:
    rate, bound = report["max"]["rate"], report["max"]["bounded_by"]
if rate is not None:
    runs = [run for run in runs if run["valid"] and abs(run["offered_rate"] - rate) < 1e-6 * max(1, rate)]
print(json.dumps([*sys.argv[2:], rate, bound, [[run["valid"], run["latency_us"]["p50"], run["latency_us"]["p99"],
                                         run.get("goodput_per_core") or 0] for run in runs]]))
PYTHON
}

# A sender that spins before it sends is on time whatever woke up late, and what it takes is taken while nothing is asked.
for _ in $(seq "$rounds"); do
  for where in UDS TCP pinned; do
    for server in $contestants; do
      network=${where/pinned/UDS}
      [ $where != pinned ] || server+=-pinned
      [ "$server" != floor-pinned ] || continue
      load "$network" "$server" --requests "$work/requests.bin" --rate "$rate" --arrivals constant --duration "$duration" \
        --warm-up 300ms --spin 1ms --scheduling "$scheduling"
      note alone "$network" "$server"
    done
  done
done
start=10000
for server in $contestants; do
  load UDS "$server" --requests "$work/requests.bin" --rate "$start" --duration "$search" --warm-up 300ms --drain 2s \
    --scheduling realtime --find-max "$objective" --precision "$precision"
  note max UDS "$server"
  start=$((4 * rate))
  most=$(/usr/bin/python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["max"]["rate"] or "")' "$work/run.json")
  [ -n "$most" ] || continue
  load TCP "$server" --requests "$work/requests.bin" --rate "$most" --duration "$duration" --warm-up 300ms --drain 2s \
    --scheduling realtime
  note max TCP "$server"
done

/usr/bin/python3 - "$work/results" "$shape, $candidates candidates x $behaviours behaviours" "$rounds" "$objective" <<'PYTHON'
import collections, json, statistics, sys
file, what, rounds, objective = sys.argv[1:]
alone, most = collections.defaultdict(list), {}
for step, network, server, rate, bound, runs in map(json.loads, open(file)):
    if step == "alone":
        alone[network, server] += runs
    else:
        rates_per_core = [run[3] for run in runs if run[0]]
        most[network, server] = rate, statistics.median(rates_per_core) if rates_per_core else 0, bound
name = lambda server: server if server == "floor" else "dinserve " + server.replace("-", ", ")
print(f"{what}. One at a time; median of {rounds} rounds, least and most:\n")
print("| one at a time | p50, us | p99, us | server's CPU, us a request |\n|---|---|---|---|")
for (network, server), runs in alone.items():
    valid = [run[1:] for run in runs if run[0]]
    if not valid:
        print(f"| {network}, {name(server)} | the generator was late | | |")
        continue
    late = f", {len(runs) - len(valid)} left out: the generator was late" if len(valid) < len(runs) else ""
    p50, p99, per_core = map(sorted, zip(*valid))
    spread = lambda values: f"{statistics.median(values):,.0f} ({values[0]:,.0f} to {values[-1]:,.0f})"
    cpu = sorted(1e6 / rate for rate in per_core if rate)
    print(f"| {network}, {name(server)}{late} | {spread(p50)} | {spread(p99)} | {spread(cpu) if cpu else ''} |")
print(f"\n| highest rate over UDS with {objective} | requests/s | requests/s/core | over TCP at this rate: requests/s/core |\n"
      "|---|---|---|---|")
per_core = lambda found: f"{found[1]:,.0f}" if found[1] else "no valid run"
for (network, server), found in most.items():
    if network == "UDS":
        rate = f"{found[0]:,.0f}" + ("" if found[2] == "the objective" else f", bounded by {found[2]}")
        print(f"| {name(server)} | {rate} | {per_core(found)} | {per_core(most.get(('TCP', server), (0, 0)))} |")
PYTHON
