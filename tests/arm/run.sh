#!/usr/bin/env bash
# Checks the kernels on AArch64 on a machine that is an x86-64: compiles them and their tests for NEON and runs the tests
# in QEMU, in a minute. Downloads 90 MB of Debian packages into build/arm (nothing is installed).
# Not part of the test suite: on an AArch64 machine, that is the test.
#
#   tests/arm/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1:-} in
  "") ;;
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "arm: unknown option $1 (see --help)" >&2; exit 2 ;;
esac
source=$PWD
. tests/unpack.sh
mkdir -p build/arm && cd build/arm
unpack bookworm amd64 g++-12-aarch64-linux-gnu qemu-user
unpack bookworm arm64 libhwy-dev libabsl-dev libdnnl-dev libgtest-dev

host=$PWD/bookworm-amd64
target=$PWD/bookworm-arm64
libraries=$target/usr/lib/aarch64-linux-gnu
compiler=(env LD_LIBRARY_PATH="$host/usr/lib/x86_64-linux-gnu" "$host/usr/bin/aarch64-linux-gnu-g++-12" --sysroot="$host")
emulator=("$host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" --library-path
  "$host/lib/x86_64-linux-gnu:$host/usr/lib/x86_64-linux-gnu" "$host/usr/bin/qemu-aarch64" -L "$target")

step() { printf 'arm: %s (%s s)\n' "$1" "$SECONDS"; }
step "compiling"
rm -f ./*.o
printf '%s\n' "$source"/kernels/*.cc "$source"/tests/kernels/*_test.cc | xargs -n 1 -P "$(nproc)" "${compiler[@]}" -c \
  -std=c++20 -O2 -DNDEBUG -DHWY_SHARED_DEFINE -fno-math-errno -Wall -Wextra -Werror -Wno-missing-field-initializers \
  -Wno-restrict -I"$source" -isystem "$target/usr/include"
tests=(*_test.o)
kernels=()
for file in "$source"/kernels/*.cc; do kernels+=("$(basename "$file" .cc).o"); done
links=$(PKG_CONFIG_SYSROOT_DIR=$target PKG_CONFIG_LIBDIR=$libraries/pkgconfig:$target/usr/share/pkgconfig \
  pkg-config --libs-only-l absl_statusor libhwy gtest_main)
for test in "${tests[@]}"; do
  "${compiler[@]}" -o "${test%.o}" "$test" "${kernels[@]}" -L"$libraries" -Wl,-rpath-link,"$libraries" $links -ldnnl -l:libgomp.so.1
done

export OMP_NUM_THREADS=1
failed=0
for test in "${tests[@]%.o}"; do
  step "$test"
  if "${emulator[@]}" "./$test" >"$test.log" 2>&1; then
    grep -E '^\[  (PASSED|SKIPPED) ' "$test.log"
  else
    tail -40 "$test.log" >&2
    failed=1
  fi
done
[ $failed = 0 ] && step "passed" || { step "FAILED"; exit 1; }
