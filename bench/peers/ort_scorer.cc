// ONNX Runtime through its C interface.
#include <cstring>
#include <deque>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <onnxruntime_c_api.h>

#include "absl/strings/str_cat.h"
#include "bench/peers/scorer.h"
#include "tests/model/raw_model.h"

namespace din::peers {
namespace {

const OrtApi& Api() {
  static const OrtApi& api = *OrtGetApiBase()->GetApi(ORT_API_VERSION);
  return api;
}

void Check(OrtStatus* status) {
  if (status != nullptr) testing::Die(absl::StrCat("ONNX Runtime: ", Api().GetErrorMessage(status)));
}

OrtEnv* Environment() {
  static OrtEnv* const environment = [] {
    OrtEnv* made = nullptr;
    Check(Api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "din", &made));
    return made;
  }();
  return environment;
}

class OrtScorer final : public Scorer {
 public:
  OrtScorer(const PeerModel& model, Form form, const ScorerOptions& options)
      : model_(model), tiled_(form == Form::kTiled), inputs_(options.inputs) {
    OrtSessionOptions* session_options = nullptr;
    Check(Api().CreateSessionOptions(&session_options));
    Check(Api().SetIntraOpNumThreads(session_options, options.threads));
    Check(Api().SetSessionGraphOptimizationLevel(session_options, ORT_ENABLE_ALL));
    const std::string graph = ExportOnnx(model, form, inputs_);
    Check(Api().CreateSessionFromArray(Environment(), graph.data(), graph.size(), session_options, &session_));
    Api().ReleaseSessionOptions(session_options);
    Check(Api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    OrtAllocator* allocator = nullptr;
    Check(Api().GetAllocatorWithDefaultOptions(&allocator));
    Check(Api().SessionGetOutputName(session_, 0, allocator, &output_name_));
  }
  ~OrtScorer() override {
    Clear();
    OrtAllocator* allocator = nullptr;
    Check(Api().GetAllocatorWithDefaultOptions(&allocator));
    Check(Api().AllocatorFree(allocator, output_name_));
    Api().ReleaseMemoryInfo(memory_);
    Api().ReleaseSession(session_);
  }

  void Add(const PeerRequest& request) override {
    Kept& kept = requests_.emplace_back();
    const auto b = static_cast<int64_t>(request.candidates);
    const auto h = static_cast<int64_t>(request.behaviours);
    const size_t tiles = tiled_ ? request.candidates : 1;
    const auto shape = [&](std::vector<int64_t> tail) {
      if (tiled_) tail.insert(tail.begin(), b);
      return tail;
    };
    if (inputs_ == Inputs::kDense) {
      Keep("q", Embed(model_.fields, request.candidate_rows), {b, model_.width}, kept, kept.floats);
      Keep("k", Tiled(Embed(model_.fields, request.behaviour_rows), tiles), shape({h, model_.width}), kept,
           kept.floats);
      if (model_.user_width > 0)
        Keep("u", Embed(model_.user, UserRows(request)), {1, model_.user_width}, kept, kept.floats);
      return;
    }
    for (size_t f = 0; f < model_.fields.size(); ++f) {
      Keep(absl::StrCat("cand", f), request.candidate_rows[f], {b}, kept, kept.rows);
      Keep(absl::StrCat("hist", f), Tiled(request.behaviour_rows[f], tiles), shape({h}), kept, kept.rows);
    }
    for (size_t f = 0; f < model_.user.size(); ++f) {
      Keep(absl::StrCat("user", f), std::vector<int64_t>{request.user_rows[f]}, {1}, kept, kept.rows);
    }
  }

  void Clear() final {
    for (const Kept& kept : requests_) {
      for (OrtValue* value : kept.values) Api().ReleaseValue(value);
    }
    requests_.clear();
  }

  void Score(size_t request, std::span<float> scores) override {
    const Kept& kept = requests_[request];
    std::vector<const char*> names;
    for (const std::string& name : kept.names) names.push_back(name.c_str());
    OrtValue* output = nullptr;
    Check(Api().Run(session_, nullptr, names.data(), kept.values.data(), names.size(), &output_name_, 1, &output));
    void* data = nullptr;
    Check(Api().GetTensorMutableData(output, &data));
    std::memcpy(scores.data(), data, scores.size_bytes());
    Api().ReleaseValue(output);
  }

 private:
  // ORT borrows the numbers, so they stay where they are.
  struct Kept {
    std::vector<std::string> names;
    std::vector<OrtValue*> values;
    std::deque<std::vector<float>> floats;
    std::deque<std::vector<int64_t>> rows;
  };

  template <typename T>
  static std::vector<T> Tiled(const std::vector<T>& values, size_t tiles) {
    std::vector<T> out;
    for (size_t t = 0; t < tiles; ++t) out.insert(out.end(), values.begin(), values.end());
    return out;
  }
  static std::vector<std::vector<int64_t>> UserRows(const PeerRequest& request) {
    std::vector<std::vector<int64_t>> rows;
    for (const int64_t row : request.user_rows) rows.push_back({row});
    return rows;
  }
  template <typename T>
  void Keep(const std::string& name, std::vector<T> values, const std::vector<int64_t>& shape, Kept& kept,
            std::deque<std::vector<T>>& numbers) {
    const auto type =
        std::is_same_v<T, float> ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    std::vector<T>& mine = numbers.emplace_back(std::move(values));
    OrtValue* value = nullptr;
    Check(Api().CreateTensorWithDataAsOrtValue(memory_, mine.data(), mine.size() * sizeof(T), shape.data(),
                                               shape.size(), type, &value));
    kept.names.push_back(name);
    kept.values.push_back(value);
  }

  const PeerModel& model_;
  const bool tiled_;
  const Inputs inputs_;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  char* output_name_ = nullptr;
  std::deque<Kept> requests_;
};

}  // namespace

std::unique_ptr<Scorer> MakeOrtScorer(const PeerModel& model, Form form, const ScorerOptions& options) {
  return std::make_unique<OrtScorer>(model, form, options);
}

}  // namespace din::peers
