// Reads MovieLens ratings (GroupLens Research, https://grouplens.org/datasets/movielens/) into a Dataset: items are
// films, the category is the first genre, the title ends in the year: "Dumbo (1941)". A rating of 4 and more is the
// action "liked", else "disliked".
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/lines.h"
#include "trainer/progress.h"

namespace din {

bool LooksLikeMovieLens(const std::string& directory);

// `directory` holds one of
//   Rdata.rdx, Rdata.rdb                  latest-small, the variable `movielens` of R's package dslabs
//   ratings.csv, movies.csv               latest-small, latest, 20M and 25M as GroupLens ships them
//   ratings.dat, movies.dat[, users.dat]  1M and 10M; users have gender, age and occupation
// NOT_FOUND when it holds none; DATA_LOSS when more than one line in a thousand is bad, naming the first.
absl::StatusOr<Dataset> ReadMovieLens(const std::string& directory, ReadReport& report, Progress& progress);

}  // namespace din
