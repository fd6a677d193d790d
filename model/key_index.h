// A list of distinct keys, searched: key -> its position.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/tensor_reader.h"

namespace din {

// An id as errors show it: 42, or a string quoted, escaped and cut to a readable length.
std::string SpellId(int64_t id);
std::string SpellId(std::string_view id);

// Open addressing over positions only: the keys stay where the snapshot has them, so an index costs 6 bytes a key,
// where a hash map of its own copies would cost 20 to 40. A hit reads one slot and one key.
// Immutable after Create; any thread; Find does not allocate. Keys is IntegerList or StringList.
template <typename Keys>
class KeyIndex {
 public:
  static constexpr uint32_t kNotFound = 0xFFFFFFFFu;

  KeyIndex() = default;
  // INVALID_ARGUMENT names both positions of a key that is there twice; `what` says in which list.
  static absl::StatusOr<KeyIndex> Create(Keys keys, const std::string& what);

  size_t size() const { return keys_.size(); }

  template <typename Key>
  uint32_t Find(Key key) const {
    if (slots_.empty()) return kNotFound;
    return slots_[SlotOf(key)];
  }

 private:
  static uint64_t Hash(int64_t key) { return absl::Hash<int64_t>()(key); }
  static uint64_t Hash(std::string_view key) {
    return absl::Hash<absl::string_view>()(absl::string_view(key.data(), key.size()));
  }

  // The slot that holds the key, or the free one where it would go. There is always a free one.
  template <typename Key>
  size_t SlotOf(Key key) const {
    size_t slot = static_cast<size_t>((static_cast<unsigned __int128>(Hash(key)) * slots_.size()) >> 64);
    while (slots_[slot] != kNotFound && keys_[slots_[slot]] != key) {
      if (++slot == slots_.size()) slot = 0;
    }
    return slot;
  }

  Keys keys_;
  std::vector<uint32_t> slots_;  // positions, or kNotFound
};

template <typename Keys>
absl::StatusOr<KeyIndex<Keys>> KeyIndex<Keys>::Create(Keys keys, const std::string& what) {
  if (keys.size() >= kNotFound) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", keys.size(), " keys > limit ", kNotFound - 1));
  }
  KeyIndex index;
  index.keys_ = keys;
  index.slots_.assign(keys.size() + keys.size() / 2 + 1, kNotFound);  // at most two thirds full
  for (size_t i = 0; i < keys.size(); ++i) {
    uint32_t& slot = index.slots_[index.SlotOf(keys[i])];
    if (slot != kNotFound) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": key ", SpellId(keys[i]), " is there twice, at positions ", slot, " and ", i));
    }
    slot = static_cast<uint32_t>(i);
  }
  return index;
}

}  // namespace din
