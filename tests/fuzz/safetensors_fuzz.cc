// ParseSafetensorsHeader on a whole file, and CheckFinite on the tensors that it finds: nothing lies outside the file.
#include "model_loader/safetensors.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

void Parse(std::string_view file) {
  (void)din::ClaimedDataBegin(file);
  const auto header = din::ParseSafetensorsHeader(file, file.size(), {.header_bytes = 1 << 20, .tensors = 1000});
  if (!header.ok()) return;
  FUZZ_CHECK(header->data_begin <= file.size());
  // A copy that is aligned as the reader's memory is, and little longer than the data.
  const std::string_view payload = file.substr(header->data_begin);
  const size_t data_bytes = payload.size();
  std::vector<uint64_t> memory(data_bytes / 8 + 1);
  std::byte* const data = reinterpret_cast<std::byte*>(memory.data());
  std::copy(payload.begin(), payload.end(), reinterpret_cast<char*>(data));
  uint64_t covered = 0;
  for (const din::SafetensorsEntry& entry : header->entries) {
    FUZZ_CHECK(entry.begin == covered && entry.end <= data_bytes);
    FUZZ_CHECK(entry.begin % din::SizeOf(entry.type) == 0);
    covered = entry.end;
    const din::Tensor tensor{
        .type = entry.type, .shape = entry.shape, .data = data + entry.begin, .bytes = entry.end - entry.begin};
    FUZZ_CHECK(static_cast<uint64_t>(tensor.elements()) * din::SizeOf(entry.type) == tensor.bytes);
    (void)din::CheckFinite(tensor, 0, static_cast<size_t>(tensor.elements()));
  }
  FUZZ_CHECK(covered == data_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = din::AsText(data, size);
  Parse(text);
  // The same with the right length in front: most mutations of the header miss it.
  const size_t end = text.rfind('}');
  if (size > 8 && end != std::string_view::npos && end >= 8) {
    const uint64_t length = end + 1 - 8;
    std::string file(text);
    std::memcpy(file.data(), &length, 8);
    Parse(file);
  }
  return 0;
}
