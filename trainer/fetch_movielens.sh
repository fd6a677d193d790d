#!/bin/sh
# Fetches MovieLens latest-small (GroupLens; research use, not commercial) from Debian's package r-cran-dslabs: downloads
# and unpacks the package (4.7 MB) without installing it, so that R is not needed.
set -eu

usage() {
  echo "usage: $0 --out DIR"
  echo "Writes DIR/Rdata.rdx, DIR/Rdata.rdb (read by din-train --data DIR) and DIR/copyright. Needs no root."
}

out=
while [ $# -gt 0 ]; do
  case "$1" in
    --out) [ $# -ge 2 ] || { echo "$0: --out: a value is missing" >&2; exit 2; }; out=$2; shift 2 ;;
    --out=*) out=${1#--out=}; shift ;;
    -h|--help) usage; exit 0 ;;
    *) echo "$0: unknown option $1; did you mean --out?" >&2; exit 2 ;;
  esac
done
[ -n "$out" ] || { echo "$0: --out is missing" >&2; exit 2; }

if [ -s "$out/Rdata.rdx" ] && [ -s "$out/Rdata.rdb" ]; then
  echo "movielens: already in $out"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"  # apt downloads as its own user where it can
# The warning about the sandbox user is of no use to anyone here; errors are kept.
if ! (cd "$work" && apt-get -q download r-cran-dslabs) > "$work/log" 2>&1; then
  cat "$work/log" >&2
  echo "$0: apt-get download r-cran-dslabs failed; a package list (apt-get update) and a Debian mirror are needed" >&2
  exit 1
fi
dpkg-deb -x "$work"/r-cran-dslabs_*.deb "$work/package"
mkdir -p "$out"
package=$work/package/usr
cp "$package/share/doc/r-cran-dslabs/copyright" "$out/copyright"
# The index last, under its final name only when it is whole: it says that the data is there.
cp "$package/lib/R/site-library/dslabs/data/Rdata.rdb" "$out/Rdata.rdb"
cp "$package/lib/R/site-library/dslabs/data/Rdata.rdx" "$out/Rdata.rdx.part"
mv "$out/Rdata.rdx.part" "$out/Rdata.rdx"
echo "movielens: fetched into $out"
