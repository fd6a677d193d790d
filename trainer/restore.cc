#include "trainer/restore.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"

namespace din {
namespace {

// Options that may differ when a training goes on: how long, and where the data lie.
bool MayChange(std::string_view option) {
  for (const char* name : {"--epochs=", "--patience=", "--data=", "--threads="}) {
    if (option.starts_with(name)) return true;
  }
  return false;
}

}  // namespace

Options TrainingCommand::Describe() {
  Options o;
  data.AddTo(o);
  training.AddVariantsTo(o);
  training.AddTo(o);
  return o;
}

std::string OptionsToJson(const std::vector<std::string>& values) { return nlohmann::json(values).dump(); }

absl::StatusOr<std::vector<std::string>> OptionsFromJson(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) return absl::DataLossError("checkpoint: its options cannot be read");
  return json.get<std::vector<std::string>>();
}

absl::Status CheckSameTraining(const std::vector<std::string>& before, const std::vector<std::string>& now) {
  for (const std::string& option : now) {
    if (MayChange(option) || std::ranges::find(before, option) != before.end()) continue;
    const std::string name = option.substr(0, option.find('=') + 1);
    std::string other = "not known then";
    for (const std::string& b : before) {
      if (b.starts_with(name)) other = b;
    }
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint is of another training: ", option, " now, ", other,
                                                   " then; give the same options, or another --checkpoint"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Restored>> Restore(const std::string& path, const std::string& data_path,
                                                  Progress& progress) {
  DIN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, ReadCheckpoint(path));
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> values, OptionsFromJson(checkpoint.options));
  auto restored = std::make_unique<Restored>();
  TrainingCommand& command = restored->command;
  const std::vector<std::string_view> arguments(values.begin(), values.end());
  DIN_RETURN_IF_ERROR(command.Describe().Parse(arguments));
  if (!data_path.empty()) command.data.data = data_path;
  command.training.Settle();
  command.training.train.epochs = 0;  // only score
  DIN_ASSIGN_OR_RETURN(restored->data, command.data.Read(progress));
  DIN_ASSIGN_OR_RETURN(restored->split, MakeSamples(*restored->data, command.SampleChoice()));
  restored->shape = command.training.shape.Over(*restored->data);
  restored->trainer =
      std::make_unique<Trainer>(*restored->data, restored->split, restored->shape, command.training.train);
  DIN_RETURN_IF_ERROR(restored->trainer->Restore(checkpoint));
  Progress silent(nullptr);
  DIN_RETURN_IF_ERROR(restored->trainer->Fit(silent).status());  // no epochs left: takes the best one's weights
  return restored;
}

}  // namespace din
