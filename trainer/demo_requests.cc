#include "trainer/demo_requests.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <span>
#include <system_error>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"
#include "trainer/export.h"
#include "trainer/samples.h"

namespace din {
namespace {

// A history shorter than this shows little of an interest.
constexpr size_t kLeastHistory = 20;

std::vector<size_t> DrawUsers(const Dataset& data, const DemoRequestOptions& options, std::mt19937_64& random) {
  std::vector<size_t> users(data.users());
  std::iota(users.begin(), users.end(), size_t{0});
  std::erase_if(users, [&](size_t user) { return data.EventsOf(user).size() <= kLeastHistory; });
  std::shuffle(users.begin(), users.end(), random);
  if (users.size() > static_cast<size_t>(options.users)) users.resize(options.users);
  return users;
}

// The user's last item at a random place among items never touched.
std::vector<int32_t> DrawCandidates(const Dataset& data, size_t user, int count, std::mt19937_64& random) {
  absl::flat_hash_set<int32_t> taken;
  for (const Event& event : data.EventsOf(user)) taken.insert(event.item);
  std::vector<int32_t> candidates = {data.EventsOf(user).back().item};
  std::uniform_int_distribution<size_t> any(0, data.events.size() - 1);
  while (candidates.size() < static_cast<size_t>(count) && taken.size() < data.items.size()) {
    const int32_t item = data.events[any(random)].item;
    if (taken.insert(item).second) candidates.push_back(item);
  }
  std::shuffle(candidates.begin(), candidates.end(), random);
  return candidates;
}

// `moment` is the user at the event that the candidates compete for.
nlohmann::ordered_json Request(const Dataset& data, const Sample& moment, std::span<const int32_t> candidates,
                               const DemoRequestOptions& options) {
  using Json = nlohmann::ordered_json;
  // Integers or strings, as the snapshot's vocabulary has them.
  const char* const ids = data.integer_ids ? "ids" : "keys";
  const auto raw = [&](int32_t item) -> Json {
    const std::string& id = data.items[item].id;
    if (data.integer_ids) return std::stoll(id);
    return id;
  };
  Json features = Json::array(), sequences = Json::array(), items = Json::array();
  for (size_t f = 0; f < data.side_fields(); ++f) {
    const size_t field = data.item_fields() + f;
    const std::string& value = data.FieldValue(field, data.SideValue(moment.user, moment.row, f));
    features.push_back({{"name", TableName(data, field)}, {"keys", {value}}});
  }
  for (size_t s = 0; s < data.sequences(); ++s) {
    Json behaviours = Json::array();
    for (const Event& event : HistoryOf(data, moment, options.max_history, s)) behaviours.push_back(raw(event.item));
    const std::string list = SequenceName(data, s);
    Json columns = Json::array({Json::object({{"name", list + "_item"}, {ids, behaviours}})});
    sequences.push_back(Json::object({{"name", list}, {"columns", columns}}));
  }
  for (const int32_t item : candidates) items.push_back(raw(item));
  Json request = {{"model", options.model}};
  if (!features.empty()) request["features"] = features;
  request["sequences"] = sequences;
  request["candidates"] = Json::array({Json::object({{"name", kItem}, {ids, items}})});
  request[std::string("candidate_") + ids] = items;
  request["labels"] = true;
  return request;
}

absl::Status WriteFile(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path.string(), ": cannot be written"));
}

}  // namespace

absl::Status WriteDemoRequests(const Dataset& data, const DemoRequestOptions& options) {
  const std::filesystem::path out(options.out);
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return absl::UnavailableError(absl::StrCat(options.out, ": ", error.message()));
  std::mt19937_64 random(options.seed);
  std::string next;
  for (size_t user : DrawUsers(data, options, random)) {
    const auto events = data.EventsOf(user);
    const Sample moment{.user = static_cast<int32_t>(user),
                        .position = static_cast<int32_t>(events.size()) - 1,
                        .row = events.back().row};
    const std::vector<int32_t> candidates = DrawCandidates(data, user, options.candidates, random);
    const std::string name = absl::StrCat("user-", data.user_ids[user], ".json");
    const Item& target = data.items[events.back().item];
    DIN_RETURN_IF_ERROR(WriteFile(out / name, Request(data, moment, candidates, options).dump(2) + "\n"));
    absl::StrAppend(&next, name, "\t", target.id, "\t", target.title, "\n");
  }
  if (next.empty())
    return absl::InvalidArgumentError(absl::StrCat("data: no user with more than ", kLeastHistory, " events"));
  return WriteFile(out / "next.tsv", next);
}

}  // namespace din
