#!/usr/bin/env bash
# Fetches ONNX Runtime and builds what run.sh and service.sh run, beside everything else in build/release.
set -euo pipefail
cd "$(dirname "$0")/../.."
./setup.sh --trainer >&2
bench/peers/fetch.sh build/onnxruntime >&2
cmake --preset release -DDIN_ORT_DIR="$PWD/build/onnxruntime" >/dev/null
cmake --build --preset release --target peers_bench peers_server din-load bench-snapshot >&2
