// libtorch: TorchScript from source, frozen and optimised for inference.
#include <cmath>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <torch/script.h>

#include "absl/strings/str_cat.h"
#include "bench/peers/scorer.h"

namespace din::peers {
namespace {

torch::Tensor Tensor(std::span<const float> values, const std::vector<int64_t>& shape) {
  return torch::from_blob(const_cast<float*>(values.data()), shape, torch::kFloat32).clone();
}

torch::Tensor Rows(const std::vector<int64_t>& rows) {
  return torch::from_blob(const_cast<int64_t*>(rows.data()), {static_cast<int64_t>(rows.size())}, torch::kInt64)
      .clone();
}

// Writes the forward function and gives the module what it names.
class ModuleWriter {
 public:
  ModuleWriter(const PeerModel& model, Inputs inputs) : model_(model), inputs_(inputs) {}

  torch::jit::Module Write() {
    std::vector<std::string> arguments;
    std::string body = Embeddings(arguments);
    absl::StrAppend(&body, "  t = q.unsqueeze(1).expand_as(k)\n  x = torch.cat([t, k, t - k, t * k], -1)\n");
    Layers("att", model_.attention, body);
    absl::StrAppend(&body, "  interest = torch.matmul(x.transpose(1, 2), k).squeeze(1)\n");
    if (model_.product) {
      absl::StrAppend(&body, "  x = torch.cat([interest, q, interest * q], -1)\n");
    } else {
      absl::StrAppend(&body, "  x = torch.cat([interest, q, u.expand([q.size(0), -1])], -1)\n");
    }
    if (!model_.bn_gamma.empty()) {
      Give("bn_mean", model_.bn_mean), Give("bn_var", model_.bn_var);
      Give("bn_gamma", model_.bn_gamma), Give("bn_beta", model_.bn_beta);
      absl::StrAppend(&body,
                      "  x = torch.batch_norm(x, self.bn_gamma, self.bn_beta, self.bn_mean, self.bn_var, False, 0.1, ",
                      model_.bn_eps, ", False)\n");
    }
    Layers("tower", model_.tower, body);
    std::string head = "def forward(self";
    for (const std::string& argument : arguments) absl::StrAppend(&head, ", ", argument);
    module_.define(absl::StrCat(head, "):\n", body, "  return torch.sigmoid(x.squeeze(1))\n"));
    module_.eval();
    return torch::jit::optimize_for_inference(module_);
  }

 private:
  void Give(const std::string& name, const torch::Tensor& tensor) { module_.register_buffer(name, tensor); }
  void Give(const std::string& name, const std::vector<float>& values) {
    Give(name, Tensor(values, {static_cast<int64_t>(values.size())}));
  }

  std::string Embeddings(std::vector<std::string>& arguments) {
    if (inputs_ == Inputs::kDense) {
      arguments = {"q", "k"};
      if (model_.user_width > 0) arguments.push_back("u");
      return "";
    }
    std::string body = Lookup("q", "cand", model_.fields, "table", arguments);
    absl::StrAppend(&body, Lookup("k", "hist", model_.fields, "table", arguments));
    if (model_.user_width > 0) absl::StrAppend(&body, Lookup("u", "user", model_.user, "user_table", arguments));
    return body;
  }
  std::string Lookup(const std::string& into, const std::string& from, const std::vector<PeerTable>& tables,
                     const std::string& name, std::vector<std::string>& arguments) {
    std::string list;
    for (size_t f = 0; f < tables.size(); ++f) {
      const std::string table = absl::StrCat(name, f);
      if (!module_.hasattr(table)) Give(table, Tensor(tables[f].values, {tables[f].rows, tables[f].dim}));
      arguments.push_back(absl::StrCat(from, f));
      absl::StrAppend(&list, f == 0 ? "" : ", ", "torch.embedding(self.", table, ", ", arguments.back(), ")");
    }
    return absl::StrCat("  ", into, " = torch.cat([", list, "], -1)\n");
  }

  void Layers(const std::string& prefix, const std::vector<PeerLayer>& layers, std::string& body) {
    for (size_t l = 0; l < layers.size(); ++l) {
      const PeerLayer& layer = layers[l];
      const std::string name = absl::StrCat(prefix, l);
      Give(name + "_w", Tensor(layer.w, {layer.out, layer.in}));
      Give(name + "_b", layer.b);
      absl::StrAppend(&body, "  x = torch.linear(x, self.", name, "_w, self.", name, "_b)\n");
      if (layer.activation == PeerLayer::Activation::kSigmoid) absl::StrAppend(&body, "  x = torch.sigmoid(x)\n");
      if (layer.activation == PeerLayer::Activation::kDice) Dice(name, layer, body);
    }
  }
  void Dice(const std::string& name, const PeerLayer& layer, std::string& body) {
    std::vector<float> deviation;
    for (const float var : layer.var) deviation.push_back(static_cast<float>(std::sqrt(var + layer.eps)));
    Give(name + "_mean", layer.mean), Give(name + "_deviation", deviation), Give(name + "_alpha", layer.alpha);
    absl::StrAppend(&body, "  p = torch.sigmoid((x - self.", name, "_mean) / self.", name, "_deviation)\n",
                    "  x = p * x + (1 - p) * self.", name, "_alpha * x\n");
  }

  const PeerModel& model_;
  const Inputs inputs_;
  torch::jit::Module module_{"Din"};
};

class TorchScorer final : public Scorer {
 public:
  TorchScorer(const PeerModel& model, const ScorerOptions& options)
      : model_(model), options_(options), module_(ModuleWriter(model, options.inputs).Write()) {}

  void Add(const PeerRequest& request) override {
    std::vector<torch::jit::IValue>& arguments = requests_.emplace_back();
    const auto b = static_cast<int64_t>(request.candidates);
    const auto h = static_cast<int64_t>(request.behaviours);
    if (options_.inputs == Inputs::kDense) {
      const std::vector<float> q = Embed(model_.fields, request.candidate_rows);
      const std::vector<float> k = Embed(model_.fields, request.behaviour_rows);
      arguments.emplace_back(Tensor(q, {b, model_.width}));
      arguments.emplace_back(Tensor(k, {1, h, model_.width}).repeat({b, 1, 1}));
      if (model_.user_width > 0) {
        std::vector<std::vector<int64_t>> rows;
        for (const int64_t row : request.user_rows) rows.push_back({row});
        arguments.emplace_back(Tensor(Embed(model_.user, rows), {1, model_.user_width}));
      }
      return;
    }
    for (const auto& rows : request.candidate_rows) arguments.emplace_back(Rows(rows));
    for (const auto& rows : request.behaviour_rows) arguments.emplace_back(Rows(rows).unsqueeze(0).repeat({b, 1}));
    for (const int64_t row : request.user_rows) arguments.emplace_back(Rows({row}));
  }

  void Clear() override { requests_.clear(); }

  void Score(size_t request, std::span<float> scores) override {
    if (at::get_num_threads() != options_.threads) at::set_num_threads(options_.threads);
    const c10::InferenceMode no_gradients;
    const torch::Tensor out = module_.forward(requests_[request]).toTensor().contiguous();
    std::copy_n(out.data_ptr<float>(), scores.size(), scores.data());
  }

 private:
  const PeerModel& model_;
  const ScorerOptions options_;
  torch::jit::Module module_;
  std::vector<std::vector<torch::jit::IValue>> requests_;
};

}  // namespace

std::unique_ptr<Scorer> MakeTorchScorer(const PeerModel& model, const ScorerOptions& options) {
  return std::make_unique<TorchScorer>(model, options);
}

}  // namespace din::peers
