// Reads Amazon reviews (J. McAuley, UCSD, 2014; the data of DIN, section 6.1): reviews_*.json and meta_*.json, one record
// a line, plain or compressed. Items are products, the category is the last of the last path ("categories"), as the
// authors took it. The value is the rating ("overall").
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/lines.h"
#include "trainer/progress.h"

namespace din {

bool LooksLikeAmazon(const std::string& directory);

// `directory` holds one reviews_*.json and one meta_*.json (also .gz, .xz). The metadata are Python literals rather than
// JSON; both are read in either file. A product without metadata is of the category "unknown". NOT_FOUND when a file is
// missing; DATA_LOSS as ForEachLine.
absl::StatusOr<Dataset> ReadAmazon(const std::string& directory, ReadReport& report, Progress& progress);

// A Python literal of dicts, lists, strings, numbers, True, False and None as JSON. What is no such literal comes out
// as something that no JSON parser takes.
std::string PythonLiteralToJson(std::string_view text);

}  // namespace din
