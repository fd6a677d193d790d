// The small shop of tests/model, complete with weights, as a model that is live in a registry.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model_loader/model_holder.h"
#include "proto/scoring.pb.h"
#include "tests/model/shop.h"

namespace din {

// Everything that DinModel::Create wants; the weights are arbitrary, but differ from row to row.
inline TensorStore ShopWeights() {
  TensorStore store = ShopTensors();
  std::vector<float> table;
  for (int row = 0; row < 50; ++row) table.insert(table.end(), {0.01f * static_cast<float>(row), 0.5f});
  store.F32("table.wide", {50, 2}, table);
  store.F32("att0.l0.w", {2, 4}, {1, 0, 3, 0, 0, 1, 0, 1});
  store.F32("att0.l0.b", {2}, {0.125f, 0.25f});
  store.F32("att0.out.w", {1, 2}, {2, 1});
  store.F32("head.w", {1, 2}, {4, -1});
  return store;
}

// Aborts where the spec and the weights do not fit.
inline ModelHandle ShopModel(int64_t version, const TensorStore& weights) {
  auto model = DinModel::Create(ShopSpec(), weights.map(), BestInstructionSet());
  if (!model.ok()) {
    std::cerr << model.status() << std::endl;
    std::abort();
  }
  auto loaded = std::make_shared<LoadedModel>();
  loaded->name = "shop";
  loaded->version = version;
  loaded->model = *std::move(model);
  return loaded;
}

inline v1::ScoreRequest ShopScoreRequest() {
  const v1::GoldenCase shop = ShopRequest();
  v1::ScoreRequest request;
  request.set_model("shop");
  *request.mutable_features() = shop.features();
  *request.mutable_sequences() = shop.sequences();
  *request.mutable_candidates() = shop.candidates();
  return request;
}

}  // namespace din
