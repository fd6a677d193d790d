# Debian packages without installing them, for the scripts that test in emulators of other CPUs. Sourced.

# unpack SUITE ARCHITECTURE PACKAGE...: into SUITE-ARCHITECTURE/, with what they depend on, with an apt configuration of
# its own.
unpack() {
  local suite=$1 architecture=$2 to=$1-$2 apt=$PWD/apt; shift 2
  [ -e "$to/.ready" ] && return
  echo "unpacking packages of Debian $suite, $architecture"
  rm -rf "$to" "$apt"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$to"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$apt/sources.list"
  : >"$apt/status"
  local options=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$apt/lists"
    -o Dir::State::Status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1
    -o APT::Architecture="$architecture" -o APT::Architectures::="$architecture")
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install --no-install-recommends --download-only -y "$@" >/dev/null
  for deb in "$apt"/cache/archives/*.deb; do dpkg -x "$deb" "$to"; done
  rm -rf "$apt"
  touch "$to/.ready"
}
