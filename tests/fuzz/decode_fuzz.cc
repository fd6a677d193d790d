// Any bytes as a request (a serialized GoldenCase) against the shop's model: decoding refuses or gives an input that
// scoring can trust without looking.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "google/protobuf/stubs/logging.h"
#include "kernels/gather.h"
#include "model/input.h"
#include "model/resolved_spec.h"
#include "tests/fuzz/fuzz.h"
#include "tests/model/shop.h"

namespace din {
namespace {

// Small enough that the fuzzer gets past each of them.
constexpr InputLimits kLimits = {.candidates = 64, .behaviours = 128, .list_ids = 256};

// One shop with history dropped, and one with it padded; each owns what its decoder reads.
class Shop {
 public:
  explicit Shop(v1::SequenceSpec::Invalid invalid) : store_(ShopTensors()) {
    v1::ModelSpec spec = ShopSpec();
    spec.mutable_sequences(0)->set_invalid(invalid);
    spec.mutable_sequences(0)->set_padded_length(6);
    resolved_ = ResolveSpec(spec).value();
    TensorReader reader(store_.map());
    decoder_ = InputDecoder::Create(resolved_, reader).value();
  }

  void Decode(const v1::GoldenCase& request) const {
    thread_local ScoringInput input;
    const absl::Status status = decoder_->Decode(ColumnsOf(request), kLimits, input);
    for (size_t i = 0; i < 3; ++i) {
      (void)decoder_->CandidateLabel(ColumnsOf(request), i);
      (void)decoder_->BehaviourLabel(ColumnsOf(request), 0, i);
    }
    if (status.ok()) {
      Check(input);
    } else {
      FUZZ_CHECK(status.code() == absl::StatusCode::kInvalidArgument && !status.message().empty());
    }
  }

 private:
  void Check(const ScoringInput& input) const {
    FUZZ_CHECK(input.candidates >= 1 && input.candidates <= kLimits.candidates);
    FUZZ_CHECK(input.out_of_vocabulary.size() == input.candidates);
    for (size_t s = 0; s < input.sequences.size(); ++s) CheckSequence(input.sequences[s]);
    for (size_t f = 0; f < input.columns.size(); ++f) CheckColumn(static_cast<int>(f), input);
  }

  static void CheckSequence(const ScoringInput::Sequence& sequence) {
    FUZZ_CHECK(sequence.sent <= kLimits.behaviours);
    FUZZ_CHECK(sequence.positions.size() <= 6);
    for (uint32_t p : sequence.positions) {
      FUZZ_CHECK(p < sequence.sent || p == ScoringInput::kPaddingPosition);
    }
  }

  void CheckColumn(int f, const ScoringInput& input) const {
    const v1::Feature& feature = resolved_.spec.features(f);
    const ScoringInput::Column& column = input.columns[f];
    const size_t rows = feature.scope() == v1::USER ? 1
                        : feature.scope() == v1::CANDIDATE
                            ? input.candidates
                            : input.sequences[resolved_.features[f].sequence].positions.size();
    for (uint32_t row : column.rows) {
      FUZZ_CHECK(row == kZeroRow || row < decoder_->IdMapRows(resolved_.features[f].id_map));
    }
    for (float value : column.values) FUZZ_CHECK(std::isfinite(value));
    switch (feature.kind()) {
      case v1::ID:
        FUZZ_CHECK(column.rows.size() == rows);
        break;
      case v1::ID_LIST:
        FUZZ_CHECK(column.offsets.size() == rows + 1 && column.offsets.front() == 0);
        FUZZ_CHECK(column.offsets.back() == column.rows.size());
        FUZZ_CHECK(column.is_padding.size() == column.rows.size());
        for (size_t i = 0; i < rows; ++i) FUZZ_CHECK(column.offsets[i] <= column.offsets[i + 1]);
        break;
      default:
        FUZZ_CHECK(column.values.size() == rows * feature.width());
    }
  }

  TensorStore store_;
  ResolvedSpec resolved_;
  std::unique_ptr<const InputDecoder> decoder_;
};

}  // namespace
}  // namespace din

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Protobuf prints a line for every string that is not UTF-8.
  [[maybe_unused]] static const auto silenced = google::protobuf::SetLogHandler(nullptr);
  static const auto* const drops = new din::Shop(din::v1::SequenceSpec::DROP);
  static const auto* const pads = new din::Shop(din::v1::SequenceSpec::PARTICIPATE);
  din::v1::GoldenCase request;
  if (size > (1u << 20) || !request.ParseFromArray(data, static_cast<int>(size))) return 0;
  drops->Decode(request);
  pads->Decode(request);
  return 0;
}
