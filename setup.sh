#!/usr/bin/env bash
# Installs the Debian 12 packages that dinserve needs and that are missing; says what it does; safe to run again.
#
#   ./setup.sh [--trainer] [--clients] [--fuzz] [--all] [--list]
#
#   (nothing)   what it takes to build and test the server
#   --trainer   libtorch, for din-train and the demo (about 950 MB on a bare system)
#   --clients   Python and Node with gRPC, for the example clients
#   --fuzz      clang-19, for coverage-guided fuzzing
#   --all       all of them
#   --list      print the packages and stop
set -euo pipefail

build=(g++ cmake make ninja-build ccache pkg-config git ca-certificates
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev libgrpc-dev libabsl-dev libc-ares-dev libre2-dev
  libdnnl-dev libhwy-dev libssl-dev zlib1g-dev nlohmann-json3-dev libxxhash-dev libfarmhash-dev liblzma-dev
  libgtest-dev libgmock-dev libbenchmark-dev libfiu-dev fiu-utils python3 python3-numpy)
trainer=(libtorch-dev libopenblas0-openmp)  # Debian's default BLAS is thirty times slower
clients=(python3-grpcio python3-protobuf nodejs npm)
fuzz=(clang-19 libclang-rt-19-dev)

packages=("${build[@]}")
list=""
for arg in "$@"; do
  case $arg in
    --trainer) packages+=("${trainer[@]}") ;;
    --clients) packages+=("${clients[@]}") ;;
    --fuzz) packages+=("${fuzz[@]}") ;;
    --all) packages+=("${trainer[@]}" "${clients[@]}" "${fuzz[@]}") ;;
    --list) list=1 ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "setup: unknown option $arg (see ./setup.sh --help)" >&2; exit 2 ;;
  esac
done
if [ -n "$list" ]; then printf '%s\n' "${packages[@]}"; exit 0; fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi
# A newer Node than Debian's brings npm along; Debian's npm package would pull Debian's Node in beside it.
if command -v node >/dev/null && command -v npm >/dev/null; then
  keep=(); for package in "${missing[@]}"; do case $package in nodejs | npm) ;; *) keep+=("$package") ;; esac; done
  missing=("${keep[@]}")
  [ ${#missing[@]} -gt 0 ] || { echo "setup: nothing is missing"; exit 0; }
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "setup: run as root, or install sudo: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
  { tail -20 "$log" >&2; echo "setup: apt-get failed; the whole log is $log" >&2; exit 1; }
rm -f "$log"
echo "setup: done"
