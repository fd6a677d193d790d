#include "model/input.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/allocation_count.h"
#include "tests/model/shop.h"

namespace din {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint32_t kZero = kZeroRow;
constexpr uint32_t kPad = ScoringInput::kPaddingPosition;

// A decoder and all that must outlive it.
class Shop {
 public:
  using Change = std::function<void(v1::ModelSpec&, TensorStore&)>;

  explicit Shop(const Change& change = [](v1::ModelSpec&, TensorStore&) {}) : store_(ShopTensors()) {
    v1::ModelSpec spec = ShopSpec();
    change(spec, store_);
    auto resolved = ResolveSpec(spec);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    resolved_ = std::move(resolved).value();
    TensorReader reader(store_.map());
    auto decoder = InputDecoder::Create(resolved_, reader);
    status_ = decoder.status();
    if (decoder.ok()) {
      decoder_ = std::move(decoder).value();
      status_ = reader.CheckAllUsed();
    }
  }

  const absl::Status& status() const { return status_; }
  const InputDecoder& decoder() const {
    EXPECT_TRUE(status_.ok()) << status_;
    return *decoder_;
  }
  absl::Status Decode(const v1::GoldenCase& request, ScoringInput& out, const InputLimits& limits = {}) const {
    return decoder().Decode(ColumnsOf(request), limits, out);
  }
  ScoringInput Decode(const v1::GoldenCase& request) const {
    ScoringInput out;
    const absl::Status status = Decode(request, out);
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
  int Feature(const std::string& name) const {
    for (int f = 0; f < resolved_.spec.features_size(); ++f) {
      if (resolved_.spec.features(f).name() == name) return f;
    }
    ADD_FAILURE() << name;
    return 0;
  }
  const ScoringInput::Column& Column(const ScoringInput& input, const std::string& name) const {
    return input.columns[Feature(name)];
  }

 private:
  TensorStore store_;
  ResolvedSpec resolved_;
  absl::Status status_;
  std::unique_ptr<const InputDecoder> decoder_;
};

v1::Column* Find(google::protobuf::RepeatedPtrField<v1::Column>* columns, const std::string& name) {
  for (v1::Column& column : *columns) {
    if (column.name() == name) return &column;
  }
  v1::Column* added = columns->Add();
  added->set_name(name);
  return added;
}

v1::Column* Candidate(v1::GoldenCase& request, const std::string& name) {
  return Find(request.mutable_candidates(), name);
}
v1::Column* Behaviour(v1::GoldenCase& request, const std::string& name) {
  return Find(request.mutable_sequences(0)->mutable_columns(), name);
}
v1::Column* User(v1::GoldenCase& request, const std::string& name) { return Find(request.mutable_features(), name); }

template <typename T>
void Set(google::protobuf::RepeatedField<T>* field, const std::vector<T>& values) {
  field->Assign(values.begin(), values.end());
}

v1::GoldenCase WithHistory(const std::vector<int64_t>& items) {
  v1::GoldenCase request = ShopRequest();
  Set(Behaviour(request, "h_item")->mutable_ids(), items);
  Set(Behaviour(request, "h_dwell")->mutable_values(), std::vector<float>(items.size(), 1.0f));
  return request;
}

v1::SequenceSpec* Hist(v1::ModelSpec& spec) { return spec.mutable_sequences(0); }
v1::Feature* Feature(v1::ModelSpec& spec, const std::string& name) {
  for (v1::Feature& feature : *spec.mutable_features()) {
    if (feature.name() == name) return &feature;
  }
  ADD_FAILURE() << name;
  return spec.mutable_features(0);
}
v1::IdMap* Map(v1::ModelSpec& spec, const std::string& name) {
  for (v1::IdMap& map : *spec.mutable_id_maps()) {
    if (map.name() == name) return &map;
  }
  ADD_FAILURE() << name;
  return spec.mutable_id_maps(0);
}
v1::SideTable* Side(v1::ModelSpec& spec, const std::string& name) {
  for (v1::SideTable& table : *spec.mutable_side_tables()) {
    if (table.name() == name) return &table;
  }
  ADD_FAILURE() << name;
  return spec.mutable_side_tables(0);
}

// --- A good request --------------------------------------------------------------------------------------------------

TEST(DecodeTest, UserFeatures) {
  const Shop shop;
  const ScoringInput input = shop.Decode(ShopRequest());
  EXPECT_THAT(shop.Column(input, "user").rows, ElementsAre(3));
  EXPECT_THAT(shop.Column(input, "age").values, ElementsAre(0.25f, -1.0f));
  // The last three of blue, red, black, "".
  EXPECT_THAT(shop.Column(input, "likes").rows, ElementsAre(0, kZero, 2));
  EXPECT_THAT(shop.Column(input, "likes").offsets, ElementsAre(0, 3));
  EXPECT_THAT(shop.Column(input, "likes").is_padding, ElementsAre(0, 0, 1));
}

TEST(DecodeTest, CandidatesTakeWhatIsNotSentFromSideTables) {
  const Shop shop;
  const ScoringInput input = shop.Decode(ShopRequest());
  EXPECT_EQ(input.candidates, 4u);
  EXPECT_THAT(shop.Column(input, "item").rows, ElementsAre(2, 5, 1, 6));
  EXPECT_THAT(shop.Column(input, "cate").rows, ElementsAre(2, kZero, 1, kZero));
  EXPECT_THAT(shop.Column(input, "tags").rows, ElementsAre(1, 2));
  EXPECT_THAT(shop.Column(input, "tags").offsets, ElementsAre(0, 0, 0, 2, 2));
  EXPECT_THAT(shop.Column(input, "tags").is_padding, ElementsAre(0, 0));
  EXPECT_THAT(shop.Column(input, "price").values, ElementsAre(20, 0.5f, 50, 0.5f, 10, 0.5f, 60, 0.5f));
  // 50: its category is out of vocabulary; 60: side tables do not have it.
  EXPECT_THAT(input.out_of_vocabulary, ElementsAre(0, 1, 0, 1));
}

TEST(DecodeTest, WhatIsSentOverridesTheSideTable) {
  const Shop shop;
  v1::GoldenCase request = ShopRequest();
  Set(Candidate(request, "item")->mutable_ids(), {20, 50});
  Set(Candidate(request, "cate")->mutable_ids(), {int64_t{9}, int64_t{50}});
  Set(Candidate(request, "tags")->mutable_ids(), {int64_t{7}, int64_t{3}, int64_t{4}, int64_t{5}});
  Set(Candidate(request, "tags")->mutable_offsets(), {0u, 1u, 4u});
  Set(Candidate(request, "price")->mutable_values(), {1.0f, 2.0f, 3.0f, 4.0f});
  const ScoringInput input = shop.Decode(request);
  EXPECT_THAT(shop.Column(input, "cate").rows, ElementsAre(9, kZero));
  EXPECT_THAT(shop.Column(input, "tags").rows, ElementsAre(7, 3, 4));
  EXPECT_THAT(shop.Column(input, "tags").offsets, ElementsAre(0, 1, 3));
  EXPECT_THAT(shop.Column(input, "tags").is_padding, ElementsAre(1, 0, 0));
  EXPECT_THAT(shop.Column(input, "price").values, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(input.out_of_vocabulary, ElementsAre(0, 1));
}

TEST(DecodeTest, SequencesAreCutAndMasked) {
  const Shop shop;
  const ScoringInput input = shop.Decode(ShopRequest());
  // The last four of 10, 20, 0, 30, 77; 0 is padding, 77 is out of vocabulary and without entries.
  EXPECT_EQ(input.sequences[0].sent, 5u);
  EXPECT_FALSE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(1, 3, 4));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(2, 3, 0));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(2, 3, kZero));
  EXPECT_THAT(shop.Column(input, "h_tags").rows, ElementsAre(kZero));
  EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(shop.Column(input, "h_dwell").values, ElementsAre(2, 4, 5));
  EXPECT_THAT(input.sequences[1].positions, ElementsAre(0, 1));
  EXPECT_THAT(shop.Column(input, "q_word").rows, ElementsAre(0, kZero));
  EXPECT_THAT(shop.Column(input, "q_stem").rows, ElementsAre(1, kZero));
  EXPECT_THAT(shop.Column(input, "q_idf").values, ElementsAre(0, 0.75f));
}

TEST(DecodeTest, UserFeaturesMayComeFromSideTables) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore&) {
    for (const std::string name : {"price", "tags", "cate"}) {
      v1::Feature* feature = spec.add_features();
      *feature = *Feature(spec, name);
      feature->set_name("user_" + name);
      feature->set_scope(v1::USER);
      feature->mutable_side()->set_key("user");
    }
  });
  v1::GoldenCase request = ShopRequest();
  User(request, "user")->set_ids(0, 0);
  const ScoringInput input = shop.Decode(request);
  EXPECT_THAT(shop.Column(input, "user_price").values, ElementsAre(0, 0.5f));
  EXPECT_THAT(shop.Column(input, "user_tags").rows, ElementsAre(7, 8));
  EXPECT_THAT(shop.Column(input, "user_tags").offsets, ElementsAre(0, 2));
  EXPECT_THAT(shop.Column(input, "user_cate").rows, ElementsAre(0));
}

TEST(DecodeTest, BehavioursAndUsersOutOfVocabularyDoNotMarkCandidates) {
  const Shop shop;
  v1::GoldenCase request = WithHistory({77, 78});
  Set(Candidate(request, "item")->mutable_ids(), {int64_t{10}, int64_t{20}});
  EXPECT_THAT(shop.Decode(request).out_of_vocabulary, ElementsAre(0, 0));
}

TEST(DecodeTest, EachWayToBeOutOfVocabularyMarksTheCandidate) {
  const Shop shop;
  v1::GoldenCase request = ShopRequest();
  Set(Candidate(request, "item")->mutable_ids(), {int64_t{1}, int64_t{10}, int64_t{10}, int64_t{30}});
  Set(Candidate(request, "cate")->mutable_ids(), {int64_t{1}, int64_t{-1}, int64_t{1}, int64_t{1}});
  // 1: not in the vocabulary (nor in tags_of); 10: category -1; 10: all known; 30: its tag 99, from the side table.
  EXPECT_THAT(shop.Decode(request).out_of_vocabulary, ElementsAre(1, 1, 0, 1));
  // An id beyond max_length takes no part.
  Set(Candidate(request, "tags")->mutable_ids(), {int64_t{1}, int64_t{2}, int64_t{99}, int64_t{99}});
  Set(Candidate(request, "tags")->mutable_offsets(), {0u, 0u, 0u, 3u, 4u});
  EXPECT_THAT(shop.Decode(request).out_of_vocabulary, ElementsAre(1, 1, 0, 1));
}

TEST(DecodeTest, AnInputIsReusedAcrossModelsAndAfterErrors) {
  const Shop shop;
  const Shop other([](v1::ModelSpec& spec, TensorStore&) {
    // Every column changes its place and so its kind.
    std::reverse(spec.mutable_features()->begin(), spec.mutable_features()->end());
  });
  ScoringInput input;
  ASSERT_TRUE(shop.Decode(ShopRequest(), input).ok());
  v1::GoldenCase bad = ShopRequest();
  Set(User(bad, "user")->mutable_ids(), {int64_t{99}});
  ASSERT_FALSE(shop.Decode(bad, input).ok());
  ASSERT_TRUE(other.Decode(ShopRequest(), input).ok());
  EXPECT_THAT(other.Column(input, "likes").rows, ElementsAre(0, kZero, 2));
  EXPECT_THAT(other.Column(input, "likes").values, IsEmpty());
  EXPECT_THAT(other.Column(input, "h_dwell").values, ElementsAre(2, 4, 5));
  EXPECT_THAT(other.Column(input, "h_dwell").rows, IsEmpty());
  EXPECT_THAT(other.Column(input, "h_dwell").offsets, IsEmpty());
}

TEST(DecodeTest, RequestsOfSizesSeenBeforeDoNotAllocate) {
  const Shop shop;
  const v1::GoldenCase request = ShopRequest();
  const v1::GoldenCase other = WithHistory({10});
  const InputLimits limits;
  ScoringInput input;
  ASSERT_TRUE(shop.Decode(request, input, limits).ok());
  ASSERT_TRUE(shop.Decode(other, input, limits).ok());
  const RequestColumns columns = ColumnsOf(request);
  const RequestColumns other_columns = ColumnsOf(other);
  const long before = AllocationCount();
  bool ok = true;
  for (int i = 0; i < 10; ++i) {
    ok &= shop.decoder().Decode(columns, limits, input).ok();
    ok &= shop.decoder().Decode(other_columns, limits, input).ok();
  }
  const long during = AllocationCount() - before;
  EXPECT_EQ(during, 0);
  EXPECT_TRUE(ok);
  // The count counts.
  const auto counted = std::make_unique<int>(1);
  EXPECT_GT(AllocationCount() - before, during);
}

// --- Sequences: truncate, pad, mask
// -----------------------------------------------------------------------------------

TEST(SequenceTest, KeepFirstKeepsTheOldest) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore&) { Hist(spec)->set_keep(v1::KEEP_FIRST); });
  EXPECT_THAT(shop.Decode(ShopRequest()).sequences[0].positions, ElementsAre(0, 1, 3));
}

TEST(SequenceTest, EmptyInEveryWayOfSendingIt) {
  const Shop shop;
  v1::GoldenCase no_columns = ShopRequest();
  no_columns.mutable_sequences(0)->clear_columns();
  v1::GoldenCase empty_columns = WithHistory({});
  for (const std::string name : {"h_cate", "h_tags"}) Behaviour(empty_columns, name);
  v1::GoldenCase empty_list = WithHistory({});
  Behaviour(empty_list, "h_tags")->add_offsets(0);
  for (const v1::GoldenCase& request : {no_columns, empty_columns, empty_list}) {
    const ScoringInput input = shop.Decode(request);
    EXPECT_EQ(input.sequences[0].sent, 0u);
    EXPECT_TRUE(input.sequences[0].empty);
    EXPECT_THAT(input.sequences[0].positions, IsEmpty());
    EXPECT_THAT(shop.Column(input, "h_item").rows, IsEmpty());
    EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0));
  }
}

TEST(SequenceTest, NothingValidIsEmpty) {
  const Shop shop;
  const ScoringInput input = shop.Decode(WithHistory({10, 0, 0, 0, 0}));
  EXPECT_EQ(input.sequences[0].sent, 5u);
  EXPECT_TRUE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, IsEmpty());
}

TEST(SequenceTest, ValidityIsOfRawIdsAndNeedsEveryFeature) {
  // Row 0 of items stands for unknown ids; padding is the raw id 0, which is row 7.
  const Shop shop([](v1::ModelSpec& spec, TensorStore&) {
    Hist(spec)->add_valid_when_not_padding("h_cate");
    Feature(spec, "h_cate")->mutable_padding()->set_id(2);
  });
  // 10 (cate 1), 20 (cate 2 from the side table: padding), 77 (no category: not padding), 0: padding.
  EXPECT_THAT(shop.Decode(WithHistory({10, 20, 77, 0})).sequences[0].positions, ElementsAre(0, 2));
  v1::GoldenCase sent = WithHistory({10, 20, 77, 0});
  Set(Behaviour(sent, "h_cate")->mutable_ids(), {int64_t{2}, int64_t{3}, int64_t{2}, int64_t{4}});
  EXPECT_THAT(shop.Decode(sent).sequences[0].positions, ElementsAre(1));
}

TEST(SequenceTest, StringPaddingMasks) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore&) {
    spec.mutable_sequences(1)->add_valid_when_not_padding("q_word");
    Feature(spec, "q_word")->mutable_padding()->set_key("red");
  });
  EXPECT_THAT(shop.Decode(ShopRequest()).sequences[1].positions, ElementsAre(1));
}

TEST(SequenceTest, IdsThatTakeNoPartAreNotJudged) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore&) {
    Map(spec, "items")->set_out_of_vocabulary(v1::IdMap::ERROR);
    Map(spec, "items")->clear_out_of_vocabulary_row();
    Feature(spec, "h_item")->mutable_padding()->set_id(-1);
    Side(spec, "cate_of")->set_missing_key(v1::SideTable::MISSING_KEY_ERROR);
  });
  v1::GoldenCase request = WithHistory({77, 10, -1, 20, 30});  // 77 is cut, -1 is dropped
  Set(Candidate(request, "item")->mutable_ids(), {int64_t{10}});
  EXPECT_THAT(shop.Decode(request).sequences[0].positions, ElementsAre(1, 3, 4));
}

// PARTICIPATE: padding and invalid positions are attended to.
Shop::Change Participate(uint32_t padded_length) {
  return [padded_length](v1::ModelSpec& spec, TensorStore&) {
    Hist(spec)->set_invalid(v1::SequenceSpec::PARTICIPATE);
    Hist(spec)->set_padded_length(padded_length);
  };
}

TEST(SequenceTest, ParticipatingPositionsArePadded) {
  const Shop shop(Participate(6));
  const ScoringInput input = shop.Decode(ShopRequest());
  EXPECT_FALSE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(1, 2, 3, 4, kPad, kPad));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(2, 7, 3, 0, 7, 7));
  // Without padding of its own: what the side tables have for item 0.
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(2, 0, 3, kZero, 0, 0));
  EXPECT_THAT(shop.Column(input, "h_tags").rows, ElementsAre(7, 8, kZero, 7, 8, 7, 8));
  EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0, 0, 2, 3, 3, 5, 7));
  EXPECT_THAT(shop.Column(input, "h_dwell").values, ElementsAre(2, 3, 4, 5, 0, 0));
}

TEST(SequenceTest, SentColumnsArePaddedAsSideTablesAre) {
  const Shop shop(Participate(4));
  v1::GoldenCase request = WithHistory({10, 20});
  Set(Behaviour(request, "h_cate")->mutable_ids(), {int64_t{30}, int64_t{31}});
  Set(Behaviour(request, "h_tags")->mutable_ids(), {int64_t{9}});
  Set(Behaviour(request, "h_tags")->mutable_offsets(), {0u, 0u, 1u});
  const ScoringInput input = shop.Decode(request);
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(30, 31, 0, 0));
  EXPECT_THAT(shop.Column(input, "h_tags").rows, ElementsAre(9, 7, 8, 7, 8));
  EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0, 0, 1, 3, 5));
}

TEST(SequenceTest, EmptyHistoryThatParticipatesIsAllPadding) {
  const Shop shop(Participate(4));
  v1::GoldenCase request = ShopRequest();
  request.mutable_sequences(0)->clear_columns();
  const ScoringInput input = shop.Decode(request);
  EXPECT_FALSE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(kPad, kPad, kPad, kPad));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(7, 7, 7, 7));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0, 2, 4, 6, 8));
  EXPECT_THAT(shop.Column(input, "h_dwell").values, ElementsAre(0, 0, 0, 0));
  const Shop ragged(Participate(0));
  EXPECT_TRUE(ragged.Decode(request).sequences[0].empty);
  EXPECT_THAT(ragged.Decode(request).sequences[0].positions, IsEmpty());
}

TEST(SequenceTest, PaddingOfItsOwnComesBeforeTheSideTables) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    Participate(4)(spec, tensors);
    Feature(spec, "h_cate")->mutable_padding()->set_id(11);
    Feature(spec, "h_tags")->mutable_padding()->set_id(8);
  });
  const ScoringInput input = shop.Decode(WithHistory({10, 0, 20}));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(1, 0, 2, 11));
  EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0, 3, 5, 5, 5));
  EXPECT_THAT(shop.Column(input, "h_tags").is_padding, ElementsAre(0, 0, 0, 0, 1));
}

TEST(SequenceTest, ZeroVectorPads) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    Participate(4)(spec, tensors);
    Hist(spec)->clear_valid_when_not_padding();
    Feature(spec, "h_item")->mutable_padding()->set_zero_vector(true);
    Feature(spec, "h_cate")->mutable_padding()->set_zero_vector(true);
  });
  const ScoringInput input = shop.Decode(WithHistory({10, 0}));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(1, 7, kZero, kZero));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(1, 0, kZero, kZero));
  EXPECT_THAT(shop.Column(input, "h_tags").offsets, ElementsAre(0, 3, 5, 5, 5));
}

TEST(SequenceTest, PaddingThatIsOutOfVocabularyFollowsTheRule) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    Participate(4)(spec, tensors);
    Feature(spec, "h_item")->mutable_padding()->set_id(-1);
    Feature(spec, "h_cate")->mutable_padding()->set_id(-1);
    Feature(spec, "h_tags")->mutable_padding()->set_id(-1);
  });
  const ScoringInput input = shop.Decode(WithHistory({10}));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(1, 0, 0, 0));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(1, kZero, kZero, kZero));
  EXPECT_EQ(input.out_of_vocabulary[0], 0);
}

// length_of: as many positions are valid as another list has ids.
Shop::Change LengthOfLikes(uint32_t padded_length) {
  return [padded_length](v1::ModelSpec& spec, TensorStore&) {
    Hist(spec)->clear_valid_when_not_padding();
    Hist(spec)->set_padded_length(padded_length);
    Hist(spec)->set_length_of("likes");
    Feature(spec, "likes")->clear_max_length();
    Feature(spec, "likes")->clear_keep();
  };
}

// `likes` of the padding id, which count like others.
v1::GoldenCase WithLikes(v1::GoldenCase request, size_t likes) {
  User(request, "likes")->clear_keys();
  for (size_t i = 0; i < likes; ++i) User(request, "likes")->add_keys("");
  return request;
}

TEST(LengthOfTest, TheFirstPositionsOfTheSideThatIsKeptAreValid) {
  const Shop last(LengthOfLikes(6));
  const ScoringInput input = last.Decode(WithLikes(ShopRequest(), 2));
  EXPECT_FALSE(input.sequences[0].empty);
  // Of the last four of 10, 20, 0, 30, 77; 0, the padding id, is sent and therefore masked by nothing.
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(1, 2));
  EXPECT_THAT(last.Column(input, "h_item").rows, ElementsAre(2, 7));
  const Shop first([](v1::ModelSpec& spec, TensorStore& tensors) {
    LengthOfLikes(6)(spec, tensors);
    Hist(spec)->set_keep(v1::KEEP_FIRST);
  });
  EXPECT_THAT(first.Decode(WithLikes(ShopRequest(), 3)).sequences[0].positions, ElementsAre(0, 1, 2));
}

TEST(LengthOfTest, PaddingIsValidWhereTheOtherListIsLonger) {
  const Shop shop(LengthOfLikes(6));
  const ScoringInput input = shop.Decode(WithLikes(WithHistory({10, 20}), 4));
  EXPECT_FALSE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(0, 1, kPad, kPad));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(1, 2, 7, 7));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(1, 2, 0, 0));
  EXPECT_THAT(shop.Column(input, "h_dwell").values, ElementsAre(1, 1, 0, 0));
}

TEST(LengthOfTest, NoMorePositionsThanThePaddedLength) {
  const Shop shop(LengthOfLikes(5));
  EXPECT_THAT(shop.Decode(WithLikes(ShopRequest(), 9)).sequences[0].positions, ElementsAre(1, 2, 3, 4, kPad));
}

TEST(LengthOfTest, HistoryOfNoBehavioursIsPaddingAlone) {
  const Shop shop(LengthOfLikes(6));
  v1::GoldenCase request = WithLikes(ShopRequest(), 2);
  request.mutable_sequences(0)->clear_columns();
  const ScoringInput input = shop.Decode(request);
  EXPECT_FALSE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(kPad, kPad));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(7, 7));
}

TEST(LengthOfTest, EmptyListMakesTheSequenceEmpty) {
  const ScoringInput zero = Shop(LengthOfLikes(6)).Decode(WithLikes(ShopRequest(), 0));
  EXPECT_TRUE(zero.sequences[0].empty);
  EXPECT_THAT(zero.sequences[0].positions, IsEmpty());
  const Shop mean([](v1::ModelSpec& spec, TensorStore& tensors) {
    LengthOfLikes(6)(spec, tensors);
    spec.mutable_attentions(0)->set_empty(v1::Attention::EMPTY_POSITIONS_MEAN);
  });
  const ScoringInput all = mean.Decode(WithLikes(ShopRequest(), 0));
  EXPECT_TRUE(all.sequences[0].empty);
  EXPECT_THAT(all.sequences[0].positions, ElementsAre(1, 2, 3, 4, kPad, kPad));
}

TEST(LengthOfTest, IdsBeyondTheListsOwnMaxLengthDoNotCount) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    LengthOfLikes(6)(spec, tensors);
    Feature(spec, "likes")->set_max_length(3);
    Feature(spec, "likes")->set_keep(v1::KEEP_LAST);
  });
  EXPECT_THAT(shop.Decode(WithLikes(ShopRequest(), 5)).sequences[0].positions, ElementsAre(1, 2, 3));
}

TEST(LengthOfTest, ListMayComeFromASideTable) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    LengthOfLikes(6)(spec, tensors);
    v1::Feature* key = spec.add_features();
    *key = *Feature(spec, "item");
    key->set_name("last_item");
    key->set_scope(v1::USER);
    v1::Feature* list = spec.add_features();
    *list = *Feature(spec, "h_tags");
    list->set_name("last_tags");
    list->set_scope(v1::USER);
    list->clear_sequence();
    list->mutable_side()->set_key("last_item");
    Hist(spec)->set_length_of("last_tags");
  });
  v1::GoldenCase request = ShopRequest();
  Set(User(request, "last_item")->mutable_ids(), {int64_t{10}});
  EXPECT_THAT(shop.Decode(request).sequences[0].positions, ElementsAre(1, 2, 3));
  Set(User(request, "last_item")->mutable_ids(), {int64_t{60}});  // without an entry
  EXPECT_TRUE(shop.Decode(request).sequences[0].empty);
  Set(User(request, "last_tags")->mutable_ids(), {int64_t{4}});
  EXPECT_THAT(shop.Decode(request).sequences[0].positions, ElementsAre(1));
}

// EMPTY_POSITIONS_MEAN: what a finite mask constant under softmax does to an empty history.
Shop::Change PositionsMean(uint32_t padded_length) {
  return [padded_length](v1::ModelSpec& spec, TensorStore&) {
    Hist(spec)->set_padded_length(padded_length);
    spec.mutable_attentions(0)->set_empty(v1::Attention::EMPTY_POSITIONS_MEAN);
  };
}

TEST(PositionsMeanTest, NothingValidGivesAllPositionsAfterPadding) {
  const Shop shop(PositionsMean(6));
  const ScoringInput input = shop.Decode(WithHistory({10, 0, 0, 0, 0}));
  EXPECT_TRUE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(1, 2, 3, 4, kPad, kPad));
  EXPECT_THAT(shop.Column(input, "h_item").rows, ElementsAre(7, 7, 7, 7, 7, 7));
  EXPECT_THAT(shop.Column(input, "h_cate").rows, ElementsAre(0, 0, 0, 0, 0, 0));
}

TEST(PositionsMeanTest, WithoutPaddedLengthThereIsAtLeastOnePosition) {
  const Shop shop(PositionsMean(0));
  v1::GoldenCase request = ShopRequest();
  request.mutable_sequences(0)->clear_columns();
  const ScoringInput nothing_sent = shop.Decode(request);
  EXPECT_TRUE(nothing_sent.sequences[0].empty);
  EXPECT_THAT(nothing_sent.sequences[0].positions, ElementsAre(kPad));
  EXPECT_THAT(shop.Column(nothing_sent, "h_item").rows, ElementsAre(7));
  EXPECT_THAT(shop.Column(nothing_sent, "h_tags").rows, ElementsAre(7, 8));
  EXPECT_THAT(shop.Decode(WithHistory({0, 0})).sequences[0].positions, ElementsAre(0, 1));
}

TEST(PositionsMeanTest, HistoryWithAValidPositionIsNotPadded) {
  const Shop shop(PositionsMean(6));
  const ScoringInput input = shop.Decode(ShopRequest());
  EXPECT_FALSE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(1, 3, 4));
}

TEST(PositionsMeanTest, EmptyHistoryThatParticipatesWithoutPaddedLength) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    PositionsMean(0)(spec, tensors);
    Participate(0)(spec, tensors);
  });
  const ScoringInput input = shop.Decode(WithHistory({}));
  EXPECT_TRUE(input.sequences[0].empty);
  EXPECT_THAT(input.sequences[0].positions, ElementsAre(kPad));
  EXPECT_THAT(shop.Decode(WithHistory({0})).sequences[0].positions, ElementsAre(0));
  EXPECT_FALSE(shop.Decode(WithHistory({0})).sequences[0].empty);
}

TEST(PositionsMeanTest, AttentionOnAnotherSequenceDoesNotCount) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    PositionsMean(6)(spec, tensors);
    spec.mutable_sequences(1)->set_padded_length(5);
  });
  v1::GoldenCase request = ShopRequest();
  request.mutable_sequences(1)->clear_columns();
  EXPECT_THAT(shop.Decode(request).sequences[1].positions, IsEmpty());
}

// --- Refusals: requests ---------------------------------------------------------------------------------------------

struct Refusal {
  const char* message;
  std::function<void(v1::GoldenCase&)> change;
};

void ExpectRefusals(const Shop& shop, const std::vector<Refusal>& refusals, const InputLimits& limits = {}) {
  for (const Refusal& refusal : refusals) {
    v1::GoldenCase request = ShopRequest();
    refusal.change(request);
    ScoringInput out;
    const absl::Status status = shop.Decode(request, out, limits);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << refusal.message << " but: " << status;
    EXPECT_EQ(std::string(status.message()), refusal.message);
  }
}

TEST(RefusalTest, UnknownMisplacedAndRepeatedNames) {
  ExpectRefusals(
      Shop(),
      {
          {"candidates.itm: no such feature; the nearest is \"item\"", [](auto& r) { Candidate(r, "itm"); }},
          {"features.agee: no such feature; the nearest is \"age\"", [](auto& r) { User(r, "agee"); }},
          {"sequences.hist.dwell: no such feature; the nearest is \"h_dwell\"", [](auto& r) { Behaviour(r, "dwell"); }},
          {"candidates.\"ta\\ngs\": no such feature; the nearest is \"tags\"", [](auto& r) { Candidate(r, "ta\ngs"); }},
          {"candidates.\"\": no such feature; the nearest is \"item\"", [](auto& r) { Candidate(r, ""); }},
          {"candidates.age: has scope USER, expected in features", [](auto& r) { Candidate(r, "age"); }},
          {"features.item: has scope CANDIDATE, expected in candidates", [](auto& r) { User(r, "item"); }},
          {"candidates.h_item: belongs to sequence \"hist\"", [](auto& r) { Candidate(r, "h_item"); }},
          {"sequences.hist.q_word: belongs to sequence \"queries\"", [](auto& r) { Behaviour(r, "q_word"); }},
          {"sequences.hist.user: has scope USER, expected in features", [](auto& r) { Behaviour(r, "user"); }},
          {"candidates.item: sent twice", [](auto& r) { *r.add_candidates() = r.candidates(0); }},
          {"features.age: sent twice", [](auto& r) { *r.add_features() = r.features(1); }},
          {"sequences.hist.h_item: sent twice",
           [](auto& r) { *r.mutable_sequences(0)->add_columns() = r.sequences(0).columns(0); }},
          {"sequences.hist: sent twice", [](auto& r) { *r.add_sequences() = r.sequences(0); }},
          {"sequences.hits: no such sequence; the nearest is \"hist\"",
           [](auto& r) { r.add_sequences()->set_name("hits"); }},
      });
}

TEST(RefusalTest, MissingParts) {
  ExpectRefusals(Shop(), {
                             {"features.user: missing", [](auto& r) { r.mutable_features()->DeleteSubrange(0, 1); }},
                             {"features.likes: missing", [](auto& r) { r.mutable_features()->RemoveLast(); }},
                             {"candidates: 0, expected at least 1", [](auto& r) { r.clear_candidates(); }},
                             {"candidates: 0, expected at least 1", [](auto& r) { Candidate(r, "item")->clear_ids(); }},
                             {"candidates.item: missing",
                              [](auto& r) {
                                r.clear_candidates();
                                Candidate(r, "cate")->add_ids(1);
                              }},
                             {"sequences.hist.h_dwell: missing",
                              [](auto& r) { r.mutable_sequences(0)->mutable_columns()->RemoveLast(); }},
                             {"sequences.hist: missing; send it empty for a user without behaviours",
                              [](auto& r) { r.mutable_sequences()->DeleteSubrange(0, 1); }},
                         });
}

TEST(RefusalTest, WrongTypes) {
  ExpectRefusals(
      Shop(),
      {
          {"candidates.item: keys sent, expected ids (INT64)",
           [](auto& r) {
             Candidate(r, "item")->clear_ids();
             Candidate(r, "item")->add_keys("10");
           }},
          {"candidates.item: ids and values sent, expected ids (INT64)",
           [](auto& r) { Candidate(r, "item")->add_values(1); }},
          {"sequences.queries.q_word: ids and keys sent, expected keys (STRING)",
           [](auto& r) { r.mutable_sequences(1)->mutable_columns(0)->add_ids(1); }},
          {"features.age: ids and values sent, expected values (DENSE)", [](auto& r) { User(r, "age")->add_ids(1); }},
          {"candidates.item: offsets sent, expected none (ID)", [](auto& r) { Candidate(r, "item")->add_offsets(0); }},
          {"features.age: offsets sent, expected none (DENSE)", [](auto& r) { User(r, "age")->add_offsets(0); }},
          {"features.likes: offsets sent, expected none: the column is the list",
           [](auto& r) { User(r, "likes")->add_offsets(0); }},
      });
}

TEST(RefusalTest, RaggedColumns) {
  ExpectRefusals(Shop(), {
                             {"features.user: 2 ids, expected 1", [](auto& r) { User(r, "user")->add_ids(1); }},
                             {"features.user: 0 ids, expected 1", [](auto& r) { User(r, "user")->clear_ids(); }},
                             {"features.age: 3 values, expected 2", [](auto& r) { User(r, "age")->add_values(1); }},
                             {"candidates.cate: 1 rows, item has 4", [](auto& r) { Candidate(r, "cate")->add_ids(1); }},
                             {"candidates.cate: 0 rows, item has 4", [](auto& r) { Candidate(r, "cate"); }},
                             {"candidates.price: 1 rows, item has 4",
                              [](auto& r) {
                                Set(Candidate(r, "price")->mutable_values(), {1.0f, 2.0f});
                              }},
                             {"candidates.price: 3 values, expected a multiple of the width 2",
                              [](auto& r) {
                                Set(Candidate(r, "price")->mutable_values(), {1.0f, 2.0f, 3.0f});
                              }},
                             {"sequences.hist.h_dwell: 6 rows, h_item has 5",
                              [](auto& r) { Behaviour(r, "h_dwell")->add_values(1); }},
                             {"candidates.tags: 1 rows, item has 4",
                              [](auto& r) {
                                Set(Candidate(r, "tags")->mutable_offsets(), {0u, 0u});
                              }},
                         });
}

Refusal Offsets(const char* message, const std::vector<uint32_t>& offsets, int ids) {
  return {message, [=](v1::GoldenCase& r) {
            Set(Candidate(r, "tags")->mutable_offsets(), offsets);
            for (int i = 0; i < ids; ++i) Candidate(r, "tags")->add_ids(1);
          }};
}

TEST(RefusalTest, MalformedOffsets) {
  const uint32_t huge = std::numeric_limits<uint32_t>::max();
  ExpectRefusals(Shop(),
                 {
                     Offsets("candidates.tags: 2 ids, but no offsets", {}, 2),
                     Offsets("candidates.tags: offsets start at 1, expected 0", {1, 1, 1, 1, 2}, 2),
                     Offsets("candidates.tags: offsets[2] = 0 < 1 before it", {0, 1, 0, 1, 2}, 2),
                     Offsets("candidates.tags: offsets[3] = 0 < 4294967295 before it", {0, 0, huge, 0, 2}, 2),
                     Offsets("candidates.tags: offsets end at 1, but there are 2 ids", {0, 0, 0, 0, 1}, 2),
                     Offsets("candidates.tags: offsets end at 4294967295, but there are 2 ids", {0, 0, 0, 0, huge}, 2),
                 });
}

TEST(RefusalTest, NumbersThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  ExpectRefusals(Shop(), {
                             {"features.age[1]: nan is not a finite number",
                              [](auto& r) { User(r, "age")->set_values(1, std::nanf("")); }},
                             {"candidates.price[6]: -inf is not a finite number",
                              [inf](auto& r) {
                                Set(Candidate(r, "price")->mutable_values(), std::vector<float>(8, 1.0f));
                                Candidate(r, "price")->set_values(6, -inf);
                              }},
                             // Even where the position is cut: a request is judged as it was sent.
                             {"sequences.hist.h_dwell[0]: inf is not a finite number",
                              [inf](auto& r) { Behaviour(r, "h_dwell")->set_values(0, inf); }},
                         });
}

TEST(RefusalTest, CountsBeyondTheLimits) {
  InputLimits limits;
  limits.candidates = 4;
  limits.behaviours = 5;
  limits.list_ids = 4;
  const Shop shop;
  ScoringInput out;
  EXPECT_TRUE(shop.Decode(ShopRequest(), out, limits).ok());
  ExpectRefusals(shop,
                 {
                     {"candidates: 5 > limit 4", [](auto& r) { Candidate(r, "item")->add_ids(1); }},
                     {"sequences.hist: 6 behaviours > limit 5", [](auto& r) { Behaviour(r, "h_item")->add_ids(1); }},
                     {"features.likes: 5 ids > limit 4", [](auto& r) { User(r, "likes")->add_keys("red"); }},
                     {"candidates.tags: 5 ids > limit 4", Offsets("", {0, 5, 5, 5, 5}, 5).change},
                     {"candidates.tags: side table \"tags_of\" gives 6 or more ids > limit 4",
                      [](auto& r) { Set(Candidate(r, "item")->mutable_ids(), std::vector<int64_t>(4, 10)); }},
                 },
                 limits);
}

TEST(RefusalTest, IdsThatTheModelDoesNotTake) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore& tensors) {
    for (const char* name : {"items", "words"}) {
      Map(spec, name)->set_out_of_vocabulary(v1::IdMap::ERROR);
      Map(spec, name)->clear_out_of_vocabulary_row();
    }
    tensors.Strings("vocab.words.keys", {"red", "green", "", "blue", "black", "mauve", "r"});
  });
  v1::GoldenCase good = ShopRequest();
  Behaviour(good, "h_item")->set_ids(4, 10);
  ScoringInput out;
  ASSERT_TRUE(shop.Decode(good, out).ok()) << shop.Decode(good, out);
  const auto good_but = [&](const std::function<void(v1::GoldenCase&)>& change) {
    return [&good, change](v1::GoldenCase& r) {
      r = good;
      change(r);
    };
  };
  ExpectRefusals(shop, {
                           {"features.user[0]: id 5 is out of vocabulary",
                            good_but([](auto& r) { User(r, "user")->set_ids(0, 5); })},
                           {"candidates.item[2]: id -10 is out of vocabulary",
                            good_but([](auto& r) { Candidate(r, "item")->set_ids(2, -10); })},
                           {"sequences.hist.h_item[4]: id 77 is out of vocabulary",
                            good_but([](auto& r) { Behaviour(r, "h_item")->set_ids(4, 77); })},
                           {"features.likes[1]: id \"rot\\n\" is out of vocabulary",
                            good_but([](auto& r) { User(r, "likes")->set_keys(1, "rot\n"); })},
                           {"sequences.queries.q_word[0]: id \"\\xff\" is out of vocabulary",
                            good_but([](auto& r) { r.mutable_sequences(1)->mutable_columns(0)->set_keys(0, "\xff"); })},
                       });
}

TEST(RefusalTest, KeyThatASideTableMustHave) {
  ExpectRefusals(Shop(), {{"candidates.item[1]: id 61 is not in side table \"price_of\", which price needs",
                           [](auto& r) { Candidate(r, "item")->set_ids(1, 61); }}});
}

TEST(RefusalTest, ErrorsLeaveNoPointerToTheRequest) {
  const Shop shop;
  v1::GoldenCase request = ShopRequest();
  Candidate(request, "itm");
  ScoringInput out;
  ASSERT_FALSE(shop.Decode(request, out).ok());
  EXPECT_THAT(out.sent, IsEmpty());
}

// --- Refusals: models -----------------------------------------------------------------------------------------------

struct BadModel {
  const char* message;
  Shop::Change change;
};

TEST(CreateTest, ModelsThatCannotDecode) {
  for (const BadModel& bad : std::vector<BadModel>{
           {"tensor vocab.items.keys: missing", [](auto&, auto&t) { t.Remove("vocab.items.keys"); }},
           {"tensor side.tags_of.offsets: missing", [](auto&, auto&t) { t.Remove("side.tags_of.offsets"); }},
           {"side table \"cate_of\": key 50: value 99 is out of vocabulary of id map \"cates\" (feature \"cate\")",
            [](auto&spec, auto&) { Map(spec, "cates")->set_out_of_vocabulary(v1::IdMap::ERROR); }},
           {"feature \"h_item\": sequence \"hist\" is padded, but it has no padding",
            [](auto&spec, auto&t) {
              PositionsMean(0)(spec, t);
              Hist(spec)->clear_valid_when_not_padding();
              Feature(spec, "h_item")->clear_padding();
            }},
           {"feature \"h_item\": sequence \"hist\" is padded, but it has no padding",
            [](auto&spec, auto&t) {
              LengthOfLikes(4)(spec, t);
              Feature(spec, "h_item")->clear_padding();
            }},
           {"feature \"h_cate\": sequence \"hist\" is padded, but it has no padding, and its key \"h_item\" has no "
            "padding id",
            [](auto&spec, auto&t) {
              Participate(4)(spec, t);
              Hist(spec)->clear_valid_when_not_padding();
              Feature(spec, "h_item")->mutable_padding()->set_zero_vector(true);
            }},
           {"feature \"h_item\": sequence \"hist\" is padded, but its padding id is out of vocabulary",
            [](auto&spec, auto&t) {
              Participate(4)(spec, t);
              Map(spec, "items")->set_out_of_vocabulary(v1::IdMap::ERROR);
              Map(spec, "items")->clear_out_of_vocabulary_row();
              Feature(spec, "h_item")->mutable_padding()->set_id(-1);
            }},
           {"feature \"h_cate\": sequence \"hist\" is padded, but side table \"cate_of\" has no entry for 60, the "
            "padding id of its key \"h_item\"",
            [](auto&spec, auto&t) {
              Participate(4)(spec, t);
              Side(spec, "cate_of")->set_missing_key(v1::SideTable::MISSING_KEY_ERROR);
              Feature(spec, "h_item")->mutable_padding()->set_id(60);
            }},
       }) {
    const Shop shop(bad.change);
    EXPECT_EQ(shop.status().code(), absl::StatusCode::kInvalidArgument) << bad.message;
    EXPECT_EQ(std::string(shop.status().message()), bad.message);
  }
}

TEST(CreateTest, SequenceThatIsNeverPaddedNeedsNoPadding) {
  const Shop shop([](v1::ModelSpec& spec, TensorStore&) {
    Hist(spec)->clear_valid_when_not_padding();
    Feature(spec, "h_item")->clear_padding();
    Hist(spec)->set_padded_length(9);  // DROP and EMPTY_ZERO: nobody would see it
  });
  EXPECT_THAT(shop.Decode(ShopRequest()).sequences[0].positions, ElementsAre(1, 2, 3, 4));
}

TEST(CreateTest, RowsOfTheIdMaps) {
  const Shop shop;
  EXPECT_EQ(shop.decoder().IdMapRows(0), 5);
  EXPECT_EQ(shop.decoder().IdMapRows(1), 8);
  EXPECT_EQ(shop.decoder().IdMapRows(2), 50);
  EXPECT_EQ(shop.decoder().IdMapRows(3), 4);
}

// --- Labels ---------------------------------------------------------------------------------------------------------

TEST(LabelTest, CandidatesAndBehaviours) {
  const Shop shop;
  const v1::GoldenCase request = ShopRequest();
  const RequestColumns columns = ColumnsOf(request);
  EXPECT_EQ(shop.decoder().CandidateLabel(columns, 0), "Bucket");
  EXPECT_EQ(shop.decoder().CandidateLabel(columns, 1), "");
  EXPECT_EQ(shop.decoder().CandidateLabel(columns, 2), "Anvil");
  EXPECT_EQ(shop.decoder().CandidateLabel(columns, 99), "");
  EXPECT_EQ(shop.decoder().BehaviourLabel(columns, 0, 0), "Anvil");
  EXPECT_EQ(shop.decoder().BehaviourLabel(columns, 0, 3), "");
  EXPECT_EQ(shop.decoder().BehaviourLabel(columns, 1, 0), "");
}

TEST(LabelTest, ColumnThatIsNotSentHasNone) {
  const Shop shop;
  v1::GoldenCase request = ShopRequest();
  request.mutable_sequences()->DeleteSubrange(0, 1);
  EXPECT_EQ(shop.decoder().BehaviourLabel(ColumnsOf(request), 0, 0), "");
}

// --- Properties -----------------------------------------------------------------------------------------------------

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int Below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(engine_); }
  float Number() { return std::uniform_real_distribution<float>(-2, 2)(engine_); }
  int64_t Item() { return 10 * Below(7); }

 private:
  std::mt19937 engine_;
};

void FillList(v1::Column* column, int rows, Random& random) {
  column->add_offsets(0);
  for (int i = 0; i < rows; ++i) {
    for (int n = random.Below(4); n > 0; --n) column->add_ids(random.Below(60));
    column->add_offsets(static_cast<uint32_t>(column->ids_size()));
  }
}

v1::GoldenCase RandomRequest(Random& random) {
  v1::GoldenCase request;
  User(request, "user")->add_ids(random.Below(5));
  Set(User(request, "age")->mutable_values(), {random.Number(), random.Number()});
  for (int n = random.Below(6); n >= 0; --n) User(request, "likes")->add_keys(n % 2 == 0 ? "red" : "");
  request.add_sequences()->set_name("hist");
  const int behaviours = random.Below(10);
  for (int i = 0; i < behaviours; ++i) {
    Behaviour(request, "h_item")->add_ids(random.Below(20) == 0 ? -5 : random.Item());
    Behaviour(request, "h_dwell")->add_values(random.Number());
  }
  if (random.Below(2) == 0) {
    for (int i = 0; i < behaviours; ++i) Behaviour(request, "h_cate")->add_ids(random.Below(60));
  }
  if (random.Below(2) == 0) FillList(Behaviour(request, "h_tags"), behaviours, random);
  request.add_sequences()->set_name("queries");
  const int candidates = 1 + random.Below(5);
  for (int i = 0; i < candidates; ++i) Candidate(request, "item")->add_ids(random.Item());
  if (random.Below(2) == 0) FillList(Candidate(request, "tags"), candidates, random);
  return request;
}

// The request with the behaviours that the server would cut already cut.
v1::GoldenCase Truncated(const v1::GoldenCase& request, int max_length, bool keep_last) {
  v1::GoldenCase out = request;
  const int sent = Behaviour(out, "h_item")->ids_size();
  const int kept = std::min(sent, max_length);
  const int first = keep_last ? sent - kept : 0;
  for (v1::Column& column : *out.mutable_sequences(0)->mutable_columns()) {
    const v1::Column whole = column;
    column.clear_ids();
    column.clear_values();
    column.clear_offsets();
    for (int i = first; i < first + kept; ++i) {
      if (whole.name() == "h_dwell") {
        column.add_values(whole.values(i));
      } else if (whole.name() == "h_tags") {
        if (column.offsets().empty()) column.add_offsets(0);
        for (uint32_t v = whole.offsets(i); v < whole.offsets(i + 1); ++v) column.add_ids(whole.ids(v));
        column.add_offsets(static_cast<uint32_t>(column.ids_size()));
      } else {
        column.add_ids(whole.ids(i));
      }
    }
  }
  return out;
}

void ExpectSameColumns(const ScoringInput& a, const ScoringInput& b) {
  ASSERT_EQ(a.columns.size(), b.columns.size());
  for (size_t f = 0; f < a.columns.size(); ++f) {
    EXPECT_EQ(a.columns[f].rows, b.columns[f].rows) << f;
    EXPECT_EQ(a.columns[f].offsets, b.columns[f].offsets) << f;
    EXPECT_EQ(a.columns[f].values, b.columns[f].values) << f;
    EXPECT_EQ(a.columns[f].is_padding, b.columns[f].is_padding) << f;
  }
  EXPECT_EQ(a.out_of_vocabulary, b.out_of_vocabulary);
  EXPECT_EQ(a.sequences[0].empty, b.sequences[0].empty);
}

TEST(PropertyTest, TruncatedByHandIsTruncatedByTheServer) {
  constexpr uint32_t kSeed = 20260101;
  RecordProperty("seed", static_cast<int>(kSeed));
  Random random(kSeed);
  const std::vector<Shop::Change> variants = {[](v1::ModelSpec&, TensorStore&) {}, Participate(6), PositionsMean(6),
                                              PositionsMean(0)};
  for (const Shop::Change& variant : variants) {
    for (const v1::Keep keep : {v1::KEEP_LAST, v1::KEEP_FIRST}) {
      const Shop shop([&](v1::ModelSpec& spec, TensorStore& tensors) {
        variant(spec, tensors);
        Hist(spec)->set_keep(keep);
      });
      for (int i = 0; i < 300; ++i) {
        const v1::GoldenCase request = RandomRequest(random);
        SCOPED_TRACE(testing::Message() << "seed " << kSeed << "\n" << request.DebugString());
        const ScoringInput whole = shop.Decode(request);
        const ScoringInput cut = shop.Decode(Truncated(request, 4, keep == v1::KEEP_LAST));
        ExpectSameColumns(whole, cut);
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(PropertyTest, EveryColumnHasOneRowPerCandidateOrPosition) {
  constexpr uint32_t kSeed = 20260102;
  Random random(kSeed);
  const Shop shop(Participate(7));
  ScoringInput input;
  for (int i = 0; i < 500; ++i) {
    const v1::GoldenCase request = RandomRequest(random);
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << "\n" << request.DebugString());
    ASSERT_TRUE(shop.Decode(request, input).ok());
    const size_t positions = input.sequences[0].positions.size();
    ASSERT_EQ(shop.Column(input, "item").rows.size(), input.candidates);
    ASSERT_EQ(shop.Column(input, "cate").rows.size(), input.candidates);
    ASSERT_EQ(shop.Column(input, "tags").offsets.size(), input.candidates + 1);
    ASSERT_EQ(shop.Column(input, "price").values.size(), 2 * input.candidates);
    ASSERT_EQ(input.out_of_vocabulary.size(), input.candidates);
    ASSERT_EQ(shop.Column(input, "h_item").rows.size(), positions);
    ASSERT_EQ(shop.Column(input, "h_cate").rows.size(), positions);
    ASSERT_EQ(shop.Column(input, "h_tags").offsets.size(), positions + 1);
    ASSERT_EQ(shop.Column(input, "h_tags").rows.size(), shop.Column(input, "h_tags").is_padding.size());
    ASSERT_EQ(shop.Column(input, "h_tags").offsets.back(), shop.Column(input, "h_tags").rows.size());
    ASSERT_EQ(shop.Column(input, "h_dwell").values.size(), positions);
  }
}

}  // namespace
}  // namespace din
