#include "bench/load/request_file.h"

#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/zero_copy_stream_impl.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "google/protobuf/util/json_util.h"

namespace din::load {
namespace {

bool IsJson(const std::string& path) { return absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".json"); }

// A .json file holds one message over several lines; a .jsonl file one a line.
template <typename Message>
absl::StatusOr<std::vector<Message>> ReadJson(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::vector<Message> messages;
  std::string line;
  const char end = absl::EndsWith(path, ".json") ? '\0' : '\n';
  for (size_t number = 1; std::getline(file, line, end); ++number) {
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    const auto status = google::protobuf::util::JsonStringToMessage(line, &messages.emplace_back());
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", std::string(status.message())));
    }
  }
  return messages;
}

}  // namespace

absl::StatusOr<std::vector<v1::ScoreRequest>> ReadRequests(const std::string& path) {
  if (IsJson(path)) return ReadJson<v1::ScoreRequest>(path);
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  google::protobuf::io::IstreamInputStream stream(&file);
  std::vector<v1::ScoreRequest> requests;
  for (bool clean_end = false; !clean_end;) {
    v1::ScoreRequest request;
    const int64_t offset = stream.ByteCount();
    if (google::protobuf::util::ParseDelimitedFromZeroCopyStream(&request, &stream, &clean_end)) {
      requests.push_back(std::move(request));
    } else if (!clean_end) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": no ScoreRequest at byte ", offset));
    }
  }
  return requests;
}

absl::Status WriteRequests(const std::string& path, const std::vector<v1::ScoreRequest>& requests) {
  std::ofstream file(path, std::ios::binary);
  for (const v1::ScoreRequest& request : requests) {
    if (!IsJson(path)) {
      google::protobuf::util::SerializeDelimitedToOstream(request, &file);
      continue;
    }
    std::string line;
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    const auto status = google::protobuf::util::MessageToJsonString(request, &line, options);
    if (!status.ok()) return absl::InternalError(absl::StrCat(path, ": ", std::string(status.message())));
    file << line << '\n';
  }
  if (!file.flush()) return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::GoldenCase>> ReadCases(const std::string& path) {
  return ReadJson<v1::GoldenCase>(path);
}

v1::ScoreRequest RequestOf(const v1::GoldenCase& golden, const std::string& model) {
  v1::ScoreRequest request;
  request.set_model(model);
  *request.mutable_features() = golden.features();
  *request.mutable_sequences() = golden.sequences();
  *request.mutable_candidates() = golden.candidates();
  return request;
}

}  // namespace din::load
