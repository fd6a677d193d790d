// Reads whatever data set a path holds.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/lines.h"
#include "trainer/progress.h"

namespace din {

// MovieLens (movielens.h), Amazon reviews (amazon.h), or an event log of one's own (table.h), told apart by the names
// of the files. NOT_FOUND when it is none of them, naming what is looked for; else the reader's errors.
absl::StatusOr<Dataset> ReadData(const std::string& path, ReadReport& report, Progress& progress);

}  // namespace din
