#!/usr/bin/env bash
# Who may include whom (DESIGN.md, "Layers"). Prints each breach as file:line and exits 1 when there is one.
set -euo pipefail
cd "${DIN_SOURCE_DIR:-$(dirname "$0")/../..}"
breaches=0
ours='kernels|model|model_loader|server|tools|bench|trainer|tests|proto'

# fence FOLDER ALLOWED...: sources in FOLDER include, of the project's folders, only ALLOWED.
fence() {
  local folder=$1; shift
  local allowed; allowed=$(IFS='|'; echo "$*")
  report "includes upward" "$(grep -rnE --include='*.h' --include='*.cc' "^#include \"($ours)/" "$folder" |
    grep -vE "#include \"($allowed)/" || true)"
}

# only PATTERN WHAT FILE_REGEX: lines matching PATTERN stand only in files matching FILE_REGEX.
only() {
  report "$2" "$(grep -rnE --include='*.h' --include='*.cc' "$1" kernels model model_loader server tools bench trainer tests |
    grep -vE "^($3)" || true)"
}

report() {
  [ -n "$2" ] || return 0
  printf '%s\n' "$2" | sed "s/^/fence ($1): /" >&2
  breaches=1
}

fence kernels kernels
fence model model kernels proto
fence model_loader model_loader model kernels proto
fence server server model_loader model kernels proto
fence tools tools server model_loader model kernels proto
fence trainer trainer model_loader model proto
report "the wire below the server" "$(grep -rnE --include='*.h' --include='*.cc' '#include "proto/(scoring|admin)' kernels model model_loader trainer || true)"
only '#include [<"](oneapi/)?dnnl' "oneDNN" 'kernels/dense\.cc:'
only '#include [<"]hwy/' "Highway" 'kernels/[a-z_]+(-inl\.h|\.cc):'
only '#include [<"]grpc' "gRPC" '(server|tools|bench|tests)/'
only '[^a-zA-Z_.:>](mmap|munmap|madvise|openat|::open|::pread)\(' "files and mappings" '(model_loader/[a-z_]+\.cc|tests/.*|trainer/[a-z_]+\.cc|server/[a-z_]+\.cc|tools/[a-z_]+\.cc|bench/.*):'

report "a placeholder that nobody filled" "$(grep -rnE '@[A-Z0-9]+@' README.md DESIGN.md docs model_loader/FORMAT.md || true)"

[ $breaches = 0 ] && echo "fences: whole"
exit $breaches
