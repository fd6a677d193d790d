// The sizes and choices that make one model out of the family; what the network and the exported ModelSpec both follow.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/dataset.h"

namespace din {

// Added to the variance in Dice: DIN, section 5.3.
inline constexpr double kDiceEps = 1e-8;

// DIN and what the paper compares it with (section 6.3).
enum class Model { kLr, kBase, kWideDeep, kPnn, kDeepFm, kDin };
enum class Activation { kDice, kPRelu };
enum class Pooling { kSum, kMean };  // of behaviours, whatever the candidate
enum class AttentionInput {
  kWithDifference,  // [q, k, q - k, q * k], the authors' code
  kProduct,         // [q, k, q * k], the paper's figure 2
};

struct ModelShape {
  Model model = Model::kDin;
  int64_t dim = 16;                       // of each field's embedding
  std::vector<int64_t> attention = {36};  // hidden units of the local activation unit; not empty
  std::vector<int64_t> tower = {80, 40};  // hidden units of the tower; not empty
  Activation activation = Activation::kDice;
  AttentionInput attention_input = AttentionInput::kWithDifference;
  bool product = true;               // DIN: v_U * v_A into the tower, too
  Pooling pooling = Pooling::kMean;  // of all but DIN
  int max_history = 50;

  // Of the data: see Over.
  int64_t item_fields = 2;  // an item's id and its categories
  int64_t side_fields = 0;  // of the user and the moment
  int64_t sequences = 1;    // behaviour lists

  // This model over these data.
  ModelShape Over(const Dataset& data) const {
    ModelShape shape = *this;
    shape.item_fields = static_cast<int64_t>(data.item_fields());
    shape.side_fields = static_cast<int64_t>(data.side_fields());
    shape.sequences = static_cast<int64_t>(data.sequences());
    return shape;
  }

  bool has_embeddings() const { return model != Model::kLr; }
  bool has_wide() const { return model == Model::kLr || model == Model::kWideDeep || model == Model::kDeepFm; }
  // What a row of a table holds: the embedding, then a weight of the wide part for each role of the field (candidate or
  // side value, then each behaviour list).
  int64_t embedding_width() const { return has_embeddings() ? dim : 0; }
  int64_t roles(bool is_item_field) const { return !has_wide() ? 0 : is_item_field ? 1 + sequences : 1; }

  int64_t width() const { return dim * item_fields; }  // D, of a behaviour and of a candidate
  int64_t side_width() const { return dim * side_fields; }
  // The vectors of one width that PNN and DeepFM take in pairs: each field of the candidate, each field of each pooled
  // behaviour list, each side field.
  int64_t vectors() const { return item_fields * (1 + sequences) + side_fields; }
};

}  // namespace din
