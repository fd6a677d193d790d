// Reads event logs of one's own: TSV or CSV with a header, plain or compressed.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/lines.h"
#include "trainer/progress.h"

namespace din {

// `path` is the log, or a directory that holds it as events.tsv or events.csv (also .gz, .xz), and beside it, where
// there is more to say, items.tsv and users.tsv (the same endings).
//
// Columns of the log, in any order:
//   user, item       any text
//   ts               an integer that orders a user's events (also: timestamp, time)
//   category...      of the item: every column whose name begins with "category"
//   label            1: clicked, 0: only shown (also: click). With it the log is one of impressions
//   value            a number, the rating (also: rating)
//   action           what the user did: a behaviour list each, when asked for
//   user_..., context_...  id features of the user, and of the moment
// Any other column is refused. items.tsv: item, the category columns, name (also: title). users.tsv: user, and id
// features of the user. Other columns of these two are not read when there is no use for them.
//
// NOT_FOUND when there is no log; INVALID_ARGUMENT for a header that does not fit, naming the column; DATA_LOSS for an
// empty or damaged file, and when more than one line in a thousand is bad, naming the first.
absl::StatusOr<Dataset> ReadTable(const std::string& path, ReadReport& report, Progress& progress);

// Whether `path` is such a log or holds one.
bool LooksLikeTable(const std::string& path);

}  // namespace din
