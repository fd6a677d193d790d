#!/usr/bin/env bash
# The figures of docs/benchmarks.md and README.md, but those of swaps. Nothing else should run on the machine meanwhile.
#
#   bench/measure.sh [--quick] [--out DIRECTORY] [--bin DIRECTORY] [--rows N] [STEP...]
#   bench/measure.sh --publish [--out DIRECTORY] [STEP...]
#
#   STEP       of (minutes, about): stages (3) small (1) peers (3) service (13) curve (2) find-max (4) rpc-floor (3)
#              sharing (1) scaling (2); all of them
#   --quick    all in a few minutes, to see that nothing is broken: its figures mean nothing and cannot be published
#   --out      where the tables (STEP.md), pictures (*.svg), reports (*.html) and raw figures go (build/measure)
#   --bin      what to measure (default: builds it, with the peers); without the peers if they are not there
#   --rows     of the largest table in scaling, 128 bytes each (1e8, as far as memory reaches)
#   --publish  measure nothing: put what DIRECTORY has into docs/benchmarks.md and README.md, in place of older figures
#
# Every table begins with the command, the machine and the date. A step that fails does not keep the others from running.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
all='stages small peers service curve find-max rpc-floor sharing scaling'
quick='' publish='' out='' bin='' rows=1e8 steps=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --quick) quick=1 ;;
    --publish) publish=1 ;;
    --out | --bin | --rows)
      [ $# -ge 2 ] || { echo "measure: $1 needs a value (see --help)" >&2; exit 2; }
      declare "${1#--}=$2"
      shift ;;
    -*) echo "measure: unknown option $1 (see --help)" >&2; exit 2 ;;
    *)
      [[ " $all " == *" $1 "* ]] || { echo "measure: no step \"$1\": there are $all" >&2; exit 2; }
      steps+=("$1") ;;
  esac
  shift
done
[ ${#steps[@]} -gt 0 ] || read -ra steps <<<"$all"
[ -n "$out" ] || out=$root/build/measure${quick:+-quick}
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ -n "$publish" ]; then exec "$root/bench/publish.py" "$out" "$root" "${steps[@]}"; fi

log() { echo "measure: $*" >&2; }
if [ -z "$bin" ]; then
  log "build"
  "$root/bench/peers/build.sh"
  cmake --build "$root/build/release" --target kernel_bench model_bench sharing_bench scaling_bench din-server \
    constant_time_server >&2
  bin=$root/build/release/bin
fi
bin=$(cd "$bin" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
server=
export OMP_NUM_THREADS=1

# pick USUAL QUICK: what this run takes.
pick() { echo "${quick:+$2}" | grep . || echo "$1"; }

# heading COMMAND: how a table begins.
heading() {
  local features='' flag
  for flag in avx2 avx512f avx512_bf16 amx_bf16; do grep -qw "$flag" /proc/cpuinfo && features+=" $flag"; done
  printf '    %s\n\n' "$1"
  printf '%s (%s), %s cores, %s GB, Linux %s, %s; commit %s, %s.%s\n\n' \
    "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed q)" "${features# }" "$(getconf _NPROCESSORS_ONLN)" \
    "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1e6 }' /proc/meminfo)" "$(uname -r | cut -d. -f1,2)" \
    "$(c++ --version | sed -n '1s/ (.*) / /p')" "$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)" \
    "$(date -u +%F)" "${quick:+ **Quick: no measurement.**}"
}

stages() {
  local isa time filter=score reports=()
  time=$(pick 0.2 0.001)
  for isa in avx512 avx2 baseline; do
    grep -qw "${isa/avx512/avx512f}" /proc/cpuinfo || [ $isa = baseline ] || continue
    "$bin/model_bench" --isa $isa --benchmark_filter="$(pick "$filter" score/paper/50x50)" --benchmark_min_time="$time" \
      --benchmark_out="$work/model-$isa.json" >&2
    reports+=("$work/model-$isa.json")
    filter='score/' # with look-up: on the fastest one
  done
  "$bin/kernel_bench" --benchmark_filter="$(pick '/200x100/|activation' 'attention/paper/50x50|activation')" \
    --benchmark_min_time="$time" --benchmark_out="$work/kernel.json" >&2
  "$bin/model_bench" --benchmark_filter="$(pick '(parse|decode|rank|encode)/.*/200x100/' 'decode/paper/50x50')" \
    --benchmark_min_time="$time" --benchmark_out="$work/wire.json" >&2
  cp "${reports[@]}" "$work/kernel.json" "$work/wire.json" "$out"
  heading 'bench/measure.sh stages    # model_bench, kernel_bench'
  "$root/bench/scaling/plot.py" stages "${reports[@]}" "$work/kernel.json" "$work/wire.json"
}

small() {
  "$bin/model_bench" --benchmark_filter='^(score|kernels|parse|decode|rank|encode)/[a-z]*/(1x50|8x20)/' \
    --benchmark_repetitions="$(pick 15 2)" --benchmark_enable_random_interleaving=true \
    --benchmark_min_time="$(pick 0.02 0.001)" --benchmark_out="$out/small.json" >&2
  heading "bench/measure.sh small    # model_bench, 15 repetitions interleaved"
  "$root/bench/scaling/plot.py" small "$out/small.json"
}

peers() {
  local threads
  heading 'bench/measure.sh peers    # peers_bench; OMP_NUM_THREADS as many as its threads'
  for threads in 1 2; do
    # libtorch takes its threads from OpenMP.
    OMP_NUM_THREADS=$threads "$bin/peers_bench" --threads $threads --rounds "$(pick 9 1)" \
      --only "$(pick '' 'paper 50 x 50')"
    echo
  done
}

service() {
  rm -f "$out/service.json"
  heading 'bench/measure.sh service    # bench/peers/service.sh'
  local round=("$root/bench/peers/service.sh" --bin "$bin" --rounds 1 --duration "$(pick 2s 200ms)"
    --precision "$(pick 0.05 0.4)" --results "$out/service.json")
  if [ -n "$quick" ]; then
    "${round[@]}" --candidates 10 --behaviours 10 --objectives 'p99<100ms' --peers 'dinserve ort-split'
  else
    "${round[@]}" --candidates 50 --behaviours 50
    echo
    "${round[@]}" --candidates 200 --behaviours 100 --objectives 'p99<10ms'
  fi
}

serve() {
  rm -rf "$work/models"
  "$bin/bench-snapshot" paper "$work/models/paper" 1 "$(pick 1000000 1000)" "$(pick 10000 100)"
  "$bin/din-server" --model-root "$work/models" --listen "unix:$work/socket" >"$work/server.log" 2>&1 &
  server=$!
}
stop() {
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
}
# 3: a run was invalid, which its report says.
load() {
  "$bin/din-load" --server "unix:$work/socket" --connect-timeout 60s --candidates 200 --behaviours 50 \
    --scheduling realtime --server-pid "$server" "$@" >&2 || [ $? = 3 ]
}

curve() {
  serve
  load --sweep "$(pick 100..1300/10 50,100)" --duration "$(pick 8s 200ms)" --warm-up "$(pick 1s 0s)" \
    --json "$out/curve.json" --html "$out/curve.html"
  stop
  heading 'bench/measure.sh curve    # din-load --sweep 100..1300/10 --duration 8s'
  # 3: no run was valid. A quick one cannot tell why: the machine may be busy.
  "$root/bench/scaling/plot.py" sweep "$out/curve.json" "$out/latency-throughput.svg" || [ "$?$quick" = 31 ]
  echo '![latency against throughput](latency-throughput.svg)'
}

find-max() {
  local n reports=()
  serve
  for n in 1 2 3; do
    load --find-max 'p99<20ms' --rate "$(pick 500 100)" --duration "$(pick 3s 200ms)" --warm-up "$(pick 500ms 0s)" \
      --precision "$(pick 0.03 0.4)" --json "$out/find-max-$n.json"
    reports+=("$out/find-max-$n.json")
  done
  stop
  heading "bench/measure.sh find-max    # din-load --find-max 'p99<20ms' --duration 3s, three times"
  "$root/bench/scaling/plot.py" max "${reports[@]}"
}

rpc-floor() {
  heading 'bench/measure.sh rpc-floor    # bench/rpc_floor.sh'
  "$root/bench/rpc_floor.sh" --bin "$bin" --duration "$(pick 2s 200ms)" --rounds "$(pick 3 1)" --search "$(pick 1s 200ms)" \
    --precision "$(pick 0.1 0.4)"
}

sharing() {
  heading 'bench/measure.sh sharing    # sharing_bench'
  echo '```'
  "$bin/sharing_bench" --seconds "$(pick 2 0.01)"
  echo '```'
}

scaling() {
  local what
  heading 'bench/measure.sh scaling    # scaling_bench'
  for what in "pairs $(pick 1e7 1e4)" "rows $(pick "$rows" 1e4)" "models $(pick 256 4)" "memory $(pick 8e6 1e6)"; do
    log "scaling: $what"
    # shellcheck disable=SC2086  # two words
    "$bin/scaling_bench" $what >"$out/${what%% *}.csv" 2>>"$work/left-out" || { cat "$work/left-out" >&2; return 1; }
  done
  "$root/bench/scaling/plot.py" scaling "$out" "$out"
  [ ! -s "$work/left-out" ] || { echo; cat "$work/left-out"; }
}

failed=()
for step in "${steps[@]}"; do
  if [[ $step = peers && ! -x $bin/peers_bench || $step = service && ! -x $bin/peers_server ]]; then
    log "$step: left out: $bin has no peers (bench/peers/build.sh)"
    continue
  fi
  begin=$SECONDS
  log "$step, at $SECONDS s"
  set +e
  (
    set -e
    trap '[ -z "$server" ] || kill "$server"' EXIT
    "$step" >"$out/$step.part"
  )
  code=$?
  set -e
  if [ $code = 0 ]; then
    mv "$out/$step.part" "$out/$step.md"
    log "$step: $out/$step.md, took $((SECONDS - begin)) s"
  else
    failed+=("$step")
    log "$step: FAILED after $((SECONDS - begin)) s"
  fi
done
log "done after $SECONDS s${quick:+ (quick: no measurement)}"
[ ${#failed[@]} = 0 ] || { log "failed: ${failed[*]}"; exit 1; }
[ -n "$quick" ] || log "bench/measure.sh --publish puts the figures into the documents"
