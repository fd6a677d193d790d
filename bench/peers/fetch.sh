#!/usr/bin/env bash
# Fetches ONNX Runtime into DIRECTORY: the library from the npm package onnxruntime-node, the headers of its C interface
# from Debian trixie's libonnxruntime-dev. Nothing is installed; apt is used with a configuration of its own.
#
#   bench/peers/fetch.sh DIRECTORY
set -euo pipefail
[ $# = 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
version=1.30.0
mkdir -p "$1"
cd "$1"

if [ ! -e lib/libonnxruntime.so ]; then
  echo "peers: onnxruntime-node $version from npm"
  npm pack --silent "onnxruntime-node@$version" >/dev/null
  library=$(tar -tzf "onnxruntime-node-$version.tgz" | grep 'linux/x64/libonnxruntime\.so\.1$')
  mkdir -p lib
  tar -xzOf "onnxruntime-node-$version.tgz" "$library" >lib/libonnxruntime.so.1
  ln -sf libonnxruntime.so.1 lib/libonnxruntime.so
  rm "onnxruntime-node-$version.tgz"
fi

if [ ! -e include/onnxruntime_c_api.h ]; then
  echo "peers: headers from Debian trixie"
  apt=$(mktemp -d)
  trap 'rm -rf "$apt"' EXIT
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,parts}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >"$apt/sources.list"
  : >"$apt/status"
  options=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/parts"
    -o Dir::State::Lists="$apt/lists" -o Dir::State::Status="$apt/status" -o Dir::Cache="$apt/cache"
    -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" download libonnxruntime-dev && dpkg-deb -x libonnxruntime-dev_*.deb unpacked)
  mkdir -p include
  find "$apt/unpacked" -name 'onnxruntime_c_api.h' -o -name 'onnxruntime_ep_*.h' -o -name 'onnxruntime_error_code.h' |
    xargs cp -t include
fi
echo "peers: ONNX Runtime $version is in $PWD"
