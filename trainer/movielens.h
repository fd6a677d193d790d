// Reads MovieLens ratings (GroupLens Research, https://grouplens.org/datasets/movielens/) into a Dataset: items are
// films, the category is the first genre, the title ends in the year: "Dumbo (1941)".
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/dataset.h"

namespace din {

struct ReadReport {
  size_t events = 0;
  size_t bad_lines = 0;
  std::string first_bad_line;  // "ratings.csv:17: rating \"x\" is not a number"; empty when there is none
};

// `directory` holds either Rdata.rdx and Rdata.rdb (the data sets of R's package dslabs, variable `movielens`) or
// ratings.csv and movies.csv (as GroupLens ships latest-small, latest, 20M and 25M). NOT_FOUND when it holds neither;
// DATA_LOSS when more than one line in a thousand is bad, naming the first.
absl::StatusOr<Dataset> ReadMovieLens(const std::string& directory, ReadReport& report);

}  // namespace din
