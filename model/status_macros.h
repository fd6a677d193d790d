// Abseil 20220623 has no public ones.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define DIN_RETURN_IF_ERROR(expr)                 \
  do {                                            \
    if (absl::Status din_status = (expr); !din_status.ok()) return din_status; \
  } while (false)

#define DIN_CONCAT_INNER(a, b) a##b
#define DIN_CONCAT(a, b) DIN_CONCAT_INNER(a, b)
// DIN_ASSIGN_OR_RETURN(auto x, F());
#define DIN_ASSIGN_OR_RETURN(lhs, expr) DIN_ASSIGN_OR_RETURN_INNER(DIN_CONCAT(din_status_or_, __LINE__), lhs, expr)
#define DIN_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                               \
  if (!result.ok()) return result.status();           \
  lhs = std::move(result).value()
