// The six models of the paper's table (arXiv 1706.06978, section 6), as docs/models/*.json say them, against formulas
// written out for one small shop.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/din_model.h"
#include "model_loader/json.h"
#include "tests/model/random.h"
#include "tests/model/random_request.h"
#include "tests/model/raw_model.h"

namespace din {
namespace {

using testing::Rng;
using Vec = std::vector<double>;

constexpr size_t kDim = 4;
constexpr uint64_t kSeed = 17;

struct Item {
  int64_t item;
  int64_t cate;
  const char* cross;  // of the user and the category
};
constexpr int64_t kUser = 7;
constexpr Item kCandidates[] = {{3, 1, "7_1"}, {29, 4, "7_4"}, {0, 1, "7_1"}};
constexpr Item kBehaviours[] = {{3, 1, ""}, {12, 0, ""}, {12, 0, ""}, {28, 4, ""}, {5, 2, ""}};

v1::GoldenCase Request(const v1::ModelSpec& spec) {
  v1::GoldenCase request;
  const auto column = [](const char* name, auto* columns) {
    columns->Add()->set_name(name);
    return &(*columns)[columns->size() - 1];
  };
  column("user", request.mutable_features())->add_ids(kUser);
  v1::Column* item = column("item", request.mutable_candidates());
  for (const Item& c : kCandidates) item->add_ids(c.item);
  v1::Column* cate = column("cate", request.mutable_candidates());
  for (const Item& c : kCandidates) cate->add_ids(c.cate);
  for (const v1::Feature& feature : spec.features()) {
    if (feature.name() != "user_x_cate") continue;
    v1::Column* cross = column("user_x_cate", request.mutable_candidates());
    for (const Item& c : kCandidates) cross->add_keys(c.cross);
  }
  v1::Sequence& hist = *request.add_sequences();
  hist.set_name("hist");
  v1::Column* hist_item = column("hist_item", hist.mutable_columns());
  for (const Item& b : kBehaviours) hist_item->add_ids(b.item);
  v1::Column* hist_cate = column("hist_cate", hist.mutable_columns());
  for (const Item& b : kBehaviours) hist_cate->add_ids(b.cate);
  return request;
}

Vec operator+(Vec a, const Vec& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

double Dot(const Vec& a, const Vec& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Vec Concat(const std::vector<Vec>& parts) {
  Vec out;
  for (const Vec& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

class PaperModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string path = std::string(std::getenv("DIN_SOURCE_DIR")) + "/docs/models/" + GetParam() + ".json";
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    ASSERT_TRUE(ParseJson(text.str(), path, model_.spec).ok()) << path;
    for (const v1::Table& table : model_.spec.tables()) Draw("table." + table.name(), {table.rows(), table.dim()});
  }

  void Draw(const std::string& name, std::initializer_list<int64_t> shape) {
    size_t size = 1;
    for (const int64_t n : shape) size *= static_cast<size_t>(n);
    model_.AddWeights(name, shape, testing::Normals(rng_, size, 0.4));
  }

  Vec Row(const std::string& table, int64_t row, size_t dim) {
    const std::span<float> all = model_.Floats("table." + table);
    return Vec(all.begin() + row * static_cast<int64_t>(dim), all.begin() + (row + 1) * static_cast<int64_t>(dim));
  }
  Vec E(const std::string& table, int64_t row) { return Row(table, row, kDim); }
  double W(const std::string& table, int64_t row) { return Row("w_" + table, row, 1)[0]; }

  // A layer with tensors drawn when it is first used: PReLU, or Dice.
  Vec Layer(const std::string& name, size_t units, const Vec& x) {
    const auto in = static_cast<int64_t>(x.size()), out = static_cast<int64_t>(units);
    const bool dice = std::string(GetParam()) == "din";
    if (!model_.tensors.contains(name + ".w")) {
      Draw(name + ".w", {out, in});
      Draw(name + ".b", {out});
      Draw(name + ".act.alpha", {out});
      if (dice) {
        Draw(name + ".act.mean", {out});
        model_.AddWeights(name + ".act.var", {out}, Vec(units, 0.7));
      }
    }
    Vec y(units);
    for (size_t u = 0; u < units; ++u) {
      const auto w = model_.Floats(name + ".w").subspan(u * x.size(), x.size());
      y[u] = Dot(Vec(w.begin(), w.end()), x) + double{model_.Floats(name + ".b")[u]};
      const double alpha = model_.Floats(name + ".act.alpha")[u];
      double gate = y[u] > 0 ? 1 : 0;
      if (dice) {
        const double deviation = std::sqrt(double{model_.Floats(name + ".act.var")[u]} + 1e-8);
        gate = 1 / (1 + std::exp(-(y[u] - double{model_.Floats(name + ".act.mean")[u]}) / deviation));
      }
      y[u] *= gate + alpha * (1 - gate);
    }
    return y;
  }

  double Head(const std::string& name, const Vec& x) {
    if (!model_.tensors.contains(name + ".w")) {
      Draw(name + ".w", {1, static_cast<int64_t>(x.size())});
      Draw(name + ".b", {1});
    }
    const auto w = model_.Floats(name + ".w");
    return Dot(Vec(w.begin(), w.end()), x) + double{model_.Floats(name + ".b")[0]};
  }

  double Deep(const Vec& x) { return Head("head", Layer("tower.l1", 4, Layer("tower.l0", 8, x))); }

  double Wide(const Item& c) {
    double sum = W("user", kUser) + W("item", c.item) + W("cate", c.cate);
    for (const Item& b : kBehaviours) sum += W("item", b.item) + W("cate", b.cate);
    return sum;
  }

  // user, item, category, and the sums of the behaviours' items and categories.
  std::vector<Vec> Fields(const Item& c) {
    std::vector<Vec> fields = {E("user", kUser), E("item", c.item), E("cate", c.cate), Vec(kDim), Vec(kDim)};
    for (const Item& b : kBehaviours) {
      fields[3] = fields[3] + E("item", b.item);
      fields[4] = fields[4] + E("cate", b.cate);
    }
    return fields;
  }

  Vec BaseInput(const Item& c) {
    const std::vector<Vec> f = Fields(c);
    return Concat({f[0], f[3], f[4], f[1], f[2]});
  }

  Vec Pairs(const Item& c) {
    const std::vector<Vec> f = Fields(c);
    Vec products;
    for (size_t i = 0; i < f.size(); ++i) {
      for (size_t j = i + 1; j < f.size(); ++j) products.push_back(Dot(f[i], f[j]));
    }
    return products;
  }

  // As Rendle writes it.
  double FactorisationMachine(const Item& c) {
    double out = 0;
    for (size_t d = 0; d < kDim; ++d) {
      double sum = 0, squares = 0;
      for (const Vec& v : Fields(c)) {
        sum += v[d];
        squares += v[d] * v[d];
      }
      out += 0.5 * (sum * sum - squares);
    }
    return out;
  }

  Vec Interest(const Item& c) {
    const Vec q = Concat({E("item", c.item), E("cate", c.cate)});
    Vec sum(2 * kDim);
    for (const Item& b : kBehaviours) {
      const Vec k = Concat({E("item", b.item), E("cate", b.cate)});
      Vec difference, product;
      for (size_t d = 0; d < k.size(); ++d) {
        difference.push_back(q[d] - k[d]);
        product.push_back(q[d] * k[d]);
      }
      const double weight = Head("att0.out", Layer("att0.l0", 6, Concat({q, k, difference, product})));
      for (size_t d = 0; d < k.size(); ++d) sum[d] += weight * k[d];
    }
    return sum;
  }

  // The cross's row is the hash's business: it is looked up in a table of one number repeated.
  double Cross() {
    model_.tensors.erase("table.w_cross");
    model_.AddWeights("table.w_cross", {100, 1}, Vec(100, 0.3));
    return double{model_.Floats("table.w_cross")[0]};
  }

  double GlobalBias() {
    if (!model_.tensors.contains("bias.global")) Draw("bias.global", {1});
    return model_.Floats("bias.global")[0];
  }

  double Logit(const Item& c) {
    const std::string name = GetParam();
    if (name == "lr") return Wide(c) + GlobalBias();
    if (name == "base") return Deep(BaseInput(c));
    if (name == "wide_deep") return Deep(BaseInput(c)) + Wide(c) + Cross();
    if (name == "pnn") return Deep(Concat({BaseInput(c), Pairs(c)}));
    if (name == "deepfm") return Deep(BaseInput(c)) + Wide(c) + FactorisationMachine(c);
    return Deep(Concat({E("user", kUser), Interest(c), E("item", c.item), E("cate", c.cate)}));
  }

  Rng rng_{kSeed};
  testing::RawModel model_;
};

TEST_P(PaperModel, GivesTheScoresOfItsFormulaOnEveryInstructionSet) {
  std::vector<double> expected;
  for (const Item& c : kCandidates) expected.push_back(1 / (1 + std::exp(-Logit(c))));
  for (const InstructionSet isa : SupportedInstructionSets()) {
    const auto model = DinModel::Create(model_.spec, model_.tensors, isa);
    ASSERT_TRUE(model.ok()) << model.status();
    Workspace workspace;
    std::vector<float> scores(expected.size());
    (*model)->Score(testing::DecodeOrDie((*model)->decoder(), Request(model_.spec)), workspace, scores);
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_NEAR(scores[i], expected[i], 1e-6) << Name(isa) << ", candidate " << i << ", seed " << kSeed;
      EXPECT_GT(expected[i], 0.01);  // where a logit still shows
      EXPECT_LT(expected[i], 0.99);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PaperModel, ::testing::Values("lr", "base", "wide_deep", "pnn", "deepfm", "din"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace din
