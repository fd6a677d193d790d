#!/usr/bin/env bash
# What the network costs and what is ours: din-server beside a server that answers the same requests at once without
# scoring (the RPC floor), in one run. One request at a time over UDS and TCP, then the highest rate, in Markdown.
#
#   bench/rpc_floor.sh [--shape paper|compact] [--candidates N] [--behaviours N] [--rate N] [--duration TIME]
#                      [--objective 'p99<20ms'] [--search TIME] [--precision SHARE]
#                      [--server-flags '--share-requests off'] [--bin DIRECTORY]
#
# --rate: requests/s of the one-at-a-time runs, low enough that they do not meet. --search and --precision: of the search
# for the highest rate, how long each try is and how near to the end. Needs the release build.
set -euo pipefail
shape=paper candidates=200 behaviours=100 rate=100 duration=5s objective='p99<20ms' search=3s precision=0.05
server_flags=
bin=$(dirname "$0")/../build/release/bin
while [ $# -gt 0 ]; do
  case $1 in
    --shape) shape=$2 ;;
    --candidates) candidates=$2 ;;
    --behaviours) behaviours=$2 ;;
    --rate) rate=$2 ;;
    --duration) duration=$2 ;;
    --objective) objective=$2 ;;
    --search) search=$2 ;;
    --precision) precision=$2 ;;
    --server-flags) server_flags=$2 ;;
    --bin) bin=$2 ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "rpc_floor: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift 2
done

work=$(mktemp -d)
servers=()
cleanup() {
  [ ${#servers[@]} = 0 ] || kill "${servers[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export OMP_NUM_THREADS=1
"$bin/bench-snapshot" "$shape" "$work/models/$shape" 1 1000000 10000

# $1: where its log goes; then the command. Sets `started`.
start() {
  local log=$1; shift
  "$@" >"$work/$log" 2>&1 &
  started=$!
  servers+=("$started")
}

# wait_for FILE PATTERN: until a line of it matches.
wait_for() {
  for _ in $(seq 600); do
    grep -qE "$2" "$work/$1" 2>/dev/null && return
    sleep 0.1
  done
  cat "$work/$1" >&2
  echo "rpc_floor: no server after a minute" >&2
  exit 1
}

# shellcheck disable=SC2086  # several flags
start dinserve.log "$bin/din-server" --model-root "$work/models" --listen 127.0.0.1:0 --listen "unix:$work/dinserve" \
  --port-file "$work/dinserve.port" $server_flags
dinserve_pid=$started
start floor.log "$bin/constant_time_server" --unix "$work/floor"
floor_pid=$started
wait_for dinserve.port '^[0-9]+$'
wait_for floor.log '^port '
dinserve_port=$(head -1 "$work/dinserve.port")
floor_port=$(sed -n 's/^port //p' "$work/floor.log")

load() {  # SERVER PID REPORT FLAG...
  local server=$1 pid=$2 report=$3; shift 3
  # 3: the generator was late, which the report says.
  "$bin/din-load" --server "$server" --server-pid "$pid" --warm-up 1s --scheduling realtime --json "$work/$report" "$@" \
    >"$work/load.log" 2>&1 || [ $? = 3 ] || { cat "$work/load.log" "$work"/*.log >&2; exit 1; }
}

# The same requests for both: those that are drawn for the model.
load "unix:$work/dinserve" "$dinserve_pid" unused.json --rate "$rate" --duration 1s --distinct 512 \
  --candidates "$candidates" --behaviours "$behaviours" --record "$work/requests.bin"

echo "$shape, $candidates candidates x $behaviours behaviours"
echo
echo "| | p50 | p99 one at a time, us | server's CPU, us a request |"
echo "|---|---|---|---|"
for network in unix tcp; do
  for server in floor dinserve; do
    pid=${server}_pid port=${server}_port
    address=$([ $network = unix ] && echo "unix:$work/$server" || echo "127.0.0.1:${!port}")
    load "$address" "${!pid}" run.json --requests "$work/requests.bin" --rate "$rate" --arrivals constant --duration "$duration"
    python3 - "$work/run.json" "$server, $network" <<'PYTHON'
import json, sys
run = json.load(open(sys.argv[1]))["runs"][0]
cpu = 1e6 / run["goodput_per_core"] if run.get("goodput_per_core") else float("nan")
late = "" if run["valid"] else " (invalid: the generator was late)"
print(f"| {sys.argv[2]} | {run['latency_us']['p50']:.0f} | {run['latency_us']['p99']:.0f} | {cpu:.0f}{late} |", flush=True)
PYTHON
  done
done
echo
echo "| highest rate with $objective, unix | requests/s | a core-second of the server |"
echo "|---|---|---|"
for server in floor dinserve; do
  pid=${server}_pid
  load "unix:$work/$server" "${!pid}" run.json --requests "$work/requests.bin" --rate "$rate" --duration "$search" --warm-up 300ms \
    --drain 2s --find-max "$objective" --precision "$precision"
  python3 - "$work/run.json" "$server" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
rate = report["max"]["rate"]
at_rate = [r for r in report["runs"] if r["valid"] and abs(r["offered_rate"] - rate) < 1e-6 * max(1, rate)]
per_core = [r["goodput_per_core"] for r in at_rate if r.get("goodput_per_core")]
shown = f"{sum(per_core) / len(per_core):.0f}" if per_core else "no valid run"
print(f"| {sys.argv[2]} | {rate:.0f} | {shown} |", flush=True)
PYTHON
done
