#!/usr/bin/env bash
# The main job on real input, from a bare Debian 12: install, build, train DIN on MovieLens, serve it, score real users,
# publish a second version and watch the swap, stop clean.
#
#   ./demo.sh [--users N] [--port P] [--fresh]
#
#   --users N   how many users to score (3)
#   --port P    where the server listens (0: any free port)
#   --fresh     train again although the model is there
set -euo pipefail
cd "$(dirname "$0")"
users=3 port=0 fresh=""
while [ $# -gt 0 ]; do
  case $1 in
    --users) users=${2:?--users needs a number}; shift 2 ;;
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --fresh) fresh=1; shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "demo: unknown option $1 (see ./demo.sh --help)" >&2; exit 2 ;;
  esac
done

work=build/demo bin=build/release/bin
mkdir -p "$work"
step() { printf '\n== %s\n' "$1"; }

step "packages"
./setup.sh --trainer

step "build (the first time takes a few minutes)"
log=$work/build.log
if ! { cmake --preset release && cmake --build --preset release --target din-server dinctl din-train -j "$(nproc)"; } >"$log" 2>&1; then
  tail -40 "$log" >&2
  exit 1
fi
echo "built din-server, dinctl and din-train in $bin ($SECONDS s since the start)"

step "MovieLens latest-small (GroupLens, from Debian's package r-cran-dslabs)"
trainer/fetch_movielens.sh --out "$work/movielens"

# Trained models are kept beside the model root and published from there, so that a second run starts at once.
train() {  # train VERSION SEED
  [ -z "$fresh" ] || rm -rf "$work/trained/movielens/$1"
  if [ -e "$work/trained/movielens/$1/manifest.json" ]; then
    echo "version $1 is trained already (--fresh trains again)"
    return
  fi
  "$bin/din-train" train --data "$work/movielens" --out "$work/trained/movielens" --version "$1" --seed "$2" \
    --activation dice --threads "$(nproc)"
}
# Publish as any publisher would: copy under a temporary name, then rename.
publish() {  # publish VERSION
  cp -r "$work/trained/movielens/$1" "$work/models/movielens/.incoming-$1"
  mv -T "$work/models/movielens/.incoming-$1" "$work/models/movielens/$1"
}

step "train DIN with Dice, version 1"
train 1 1

step "serve"
rm -rf "$work/models" "$work/port" && mkdir -p "$work/models/movielens"
publish 1
"$bin/din-server" --model-root "$work/models" --listen "127.0.0.1:$port" --port-file "$work/port" \
  --poll-interval 200ms >"$work/server.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  [ -s "$work/port" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 1; }
  sleep 0.1
done
[ -s "$work/port" ] || { cat "$work/server.log" >&2; echo "demo: din-server was not ready within 10 s" >&2; exit 1; }
DIN_SERVER="127.0.0.1:$(head -n 1 "$work/port")"
export DIN_SERVER
"$bin/dinctl" status

step "real users: what they watched, what the model ranks first, and why"
# Trained on one negative for each positive, so these scores rank; they are not the CTR of a real audience.
rm -rf "$work/requests"
"$bin/din-train" demo-requests --data "$work/movielens" --out "$work/requests" --users "$users"
for request in "$work"/requests/user-*.json; do
  printf '\n-- %s\n' "$(basename "$request" .json)"
  "$bin/dinctl" explain "$request" --top 10 --behaviours 5
done

step "a second version goes live"
train 2 2
first=$(ls "$work"/requests/user-*.json | head -n 1)
version() { "$bin/dinctl" score "$first" --json | sed -n 's/.*"version": *"*\([0-9]*\).*/\1/p' | head -n 1; }
before=$(version)
publish 2
for _ in $(seq 100); do
  [ "$(version)" = 2 ] && break
  sleep 0.1
done
[ "$(version)" = 2 ] || { tail "$work/server.log" >&2; echo "demo: version 2 did not go live within 10 s" >&2; exit 1; }
"$bin/dinctl" status
echo "the same request: scored by version $before before, by version $(version) now"
"$bin/dinctl" score "$first" --top 5

step "stop"
kill -TERM "$server"
trap - EXIT
wait "$server" || { tail "$work/server.log" >&2; echo "demo: din-server did not stop clean" >&2; exit 1; }
echo "din-server drained and stopped (exit 0)"
printf '\nAll of it is in %s: models, requests, server.log. Total: %s s.\n' "$work" "$SECONDS"
