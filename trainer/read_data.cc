#include "trainer/read_data.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "trainer/amazon.h"
#include "trainer/movielens.h"
#include "trainer/table.h"

namespace din {

absl::StatusOr<Dataset> ReadData(const std::string& path, ReadReport& report, Progress& progress) {
  if (LooksLikeMovieLens(path)) return ReadMovieLens(path, report, progress);
  if (LooksLikeAmazon(path)) return ReadAmazon(path, report, progress);
  if (LooksLikeTable(path)) return ReadTable(path, report, progress);
  return absl::NotFoundError(absl::StrCat(
      path,
      ": no data set is there; looked for MovieLens (Rdata.rdx, which trainer/fetch_movielens.sh brings, ratings.csv, "
      "ratings.dat), Amazon reviews (reviews_*.json, meta_*.json), and an event log (events.tsv, events.csv, or a "
      "file)"));
}

}  // namespace din
