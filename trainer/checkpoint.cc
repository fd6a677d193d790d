#include "trainer/checkpoint.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/file.h"
#include "model_loader/safetensors.h"

namespace din {
namespace {

constexpr char kOptions[] = "options";
constexpr std::string_view kCounts = "counts.";  // before the names of those

template <typename T>
Tensor View(DataType type, const T* values, size_t n, std::vector<int64_t> shape) {
  return {.type = type,
          .shape = std::move(shape),
          .data = reinterpret_cast<const std::byte*>(values),
          .bytes = n * sizeof(T)};
}

}  // namespace

absl::Status WriteCheckpoint(const std::string& path, const Checkpoint& checkpoint) {
  TensorMap tensors;
  const auto length = [](const auto& values) { return std::vector<int64_t>{static_cast<int64_t>(values.size())}; };
  tensors[kOptions] =
      View(DataType::kU8, checkpoint.options.data(), checkpoint.options.size(), length(checkpoint.options));
  for (const auto& [name, weight] : checkpoint.arrays) {
    tensors[name] = View(DataType::kF32, weight.values.data(), weight.values.size(), weight.shape);
  }
  for (const auto& [name, counts] : checkpoint.counts) {
    tensors[absl::StrCat(std::string(kCounts), name)] =
        View(DataType::kI32, counts.data(), counts.size(), length(counts));
  }
  std::vector<NamedTensor> in_order;
  for (const auto& [name, tensor] : tensors) in_order.push_back({name, &tensor});
  SortForWriting(in_order);

  const std::filesystem::path target = std::filesystem::absolute(path);
  const std::string part = target.filename().string() + ".part";
  DIN_ASSIGN_OR_RETURN(const Directory directory, Directory::Open(target.parent_path()));
  DIN_ASSIGN_OR_RETURN(const bool is_left_over, directory.Has(part));
  if (is_left_over) DIN_RETURN_IF_ERROR(directory.RemoveFile(part));
  DIN_ASSIGN_OR_RETURN(WritableFile file, directory.CreateFile(part));
  const std::string header = FormatSafetensorsHeader(in_order);
  DIN_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(header))));
  for (const NamedTensor& t : in_order) DIN_RETURN_IF_ERROR(file.Append({t.tensor->data, t.tensor->bytes}));
  DIN_RETURN_IF_ERROR(file.Sync());
  DIN_RETURN_IF_ERROR(directory.RenameReplace(part, target.filename()));
  return directory.Sync();
}

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path) {
  const auto damaged = [&](std::string_view why) {
    return absl::DataLossError(absl::StrCat(path, ": not a whole checkpoint: ", std::string(why)));
  };
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) return absl::NotFoundError(absl::StrCat(path, ": no checkpoint is there"));
  constexpr uint64_t kHeader = 1 << 20;
  std::string head(std::min<uint64_t>(size, kHeader), '\0');
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  const auto header = ParseSafetensorsHeader(head, size, {.header_bytes = kHeader, .tensors = 10'000});
  if (!header.ok()) return damaged(std::string(header.status().message()));

  Checkpoint checkpoint;
  file.seekg(static_cast<std::streamoff>(header->data_begin));
  for (const SafetensorsEntry& entry : header->entries) {
    const auto read = [&](auto& values) {
      values.resize((entry.end - entry.begin) / sizeof(values[0]));
      file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(entry.end - entry.begin));
    };
    if (entry.name == kOptions && entry.type == DataType::kU8) {
      read(checkpoint.options);
    } else if (entry.name.starts_with(kCounts) && entry.type == DataType::kI32) {
      read(checkpoint.counts[entry.name.substr(kCounts.size())]);
    } else if (entry.type == DataType::kF32) {
      Weight& weight = checkpoint.arrays[entry.name];
      weight.shape = entry.shape;
      read(weight.values);
    } else {
      return damaged(absl::StrCat("tensor ", entry.name));
    }
    if (!file) return damaged(absl::StrCat("it ends in tensor ", entry.name));
  }
  if (checkpoint.options.empty()) return damaged("it does not say how it was trained");
  return checkpoint;
}

}  // namespace din
