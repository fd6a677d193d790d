#include "model/resolved_spec.h"

#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using testing::HasSubstr;

// The smallest model that has one of everything.
v1::ModelSpec Spec() {
  v1::ModelSpec spec;
  const bool parsed = google::protobuf::TextFormat::ParseFromString(
      R"pb(
        format: 1
        id_maps {
          name: "items"
          id_type: INT64
          identity { size: 10 }
          out_of_vocabulary: ERROR
        }
        id_maps {
          name: "tags"
          id_type: STRING
          hash { function: XXH64 size: 5 }
        }
        tables { name: "item" rows: 10 dim: 4 }
        tables { name: "tag" rows: 5 dim: 3 }
        tables { name: "price" rows: 1 dim: 2 }
        tables { name: "bias" rows: 10 dim: 1 }
        side_tables { name: "title" key_type: INT64 rows: 10 kind: ID value_type: STRING missing_key: MISSING_KEY_ZERO }
        side_tables { name: "price_of" key_type: INT64 rows: 10 kind: DENSE width: 1 missing_key: MISSING_KEY_ERROR }
        features { name: "age" scope: USER kind: DENSE width: 2 }
        features {
          name: "tags"
          scope: USER
          kind: ID_LIST
          id_map: "tags"
          padding { key: "" }
          max_length: 3
          keep: KEEP_LAST
        }
        features { name: "item" scope: CANDIDATE kind: ID id_map: "items" }
        features {
          name: "price"
          scope: CANDIDATE
          kind: DENSE
          width: 1
          side { side_table: "price_of" key: "item" }
        }
        features {
          name: "hist"
          scope: SEQUENCE
          sequence: "clicks"
          kind: ID
          id_map: "items"
          padding { id: 0 }
        }
        sequences { name: "clicks" max_length: 5 keep: KEEP_LAST valid_when_not_padding: "hist" invalid: DROP }
        slots {
          name: "age"
          dense { feature: "age" }
        }
        slots {
          name: "tags"
          pool { feature: "tags" table: "tag" kind: MEAN skip_padding: true divisor_epsilon: 1e-8 }
        }
        slots {
          name: "q"
          embed { feature: "item" table: "item" }
        }
        slots {
          name: "k"
          embed { feature: "hist" table: "item" }
        }
        slots {
          name: "price"
          scaled { value: "price" table: "price" }
        }
        attentions {
          name: "att"
          sequence: "clicks"
          query: "q"
          key: "k"
          query_width: QUERY_WIDTH_EQUAL
          input: [ Q, K, Q_MINUS_K, Q_TIMES_K ]
          layers {
            units: 6
            bias: true
            activation {
              kind: DICE
              dice { statistics: RUNNING eps: 1e-8 alpha: ALPHA_TENSOR }
            }
          }
          out_bias: true
          out_activation: NONE
          scale: SCALE_NONE
          normalise: NORMALISE_NONE
          empty: EMPTY_ZERO
        }
        sequence_pools { name: "sum" sequence: "clicks" key: "k" kind: SUM }
        interactions {
          name: "products"
          vectors { name: "q" }
          vectors { name: "sum" }
          vectors { name: "att" }
          kind: INNER_PRODUCTS
        }
        interactions {
          name: "fm"
          vectors { name: "age" }
          vectors { name: "price" }
          vectors { name: "sum" end: 2 }
          kind: BI_INTERACTION
        }
        pre_towers {
          name: "pre"
          input { a { name: "age" } }
          layers {
            units: 3
            bias: true
            activation { kind: RELU }
          }
        }
        tower {
          input { a { name: "att" } }
          input {
            a { name: "q" }
            b { name: "sum" }
          }
          input { a { name: "att" begin: 1 end: 3 } }
          input { a { name: "pre" } }
          input { a { name: "price" } }
          input { a { name: "tags" } }
          layers {
            units: 8
            bias: true
            bn { eps: 1e-5 affine: true }
            activation { kind: PRELU }
          }
          head_bias: true
          classes: 1
          id_biases { feature: "item" table: "bias" }
          wide { name: "fm" }
        }
        labels { feature: "item" side_table: "title" }
      )pb",
      &spec);
  EXPECT_TRUE(parsed);
  return spec;
}

TEST(ResolveSpecTest, ResolvesNamesAndWidths) {
  const auto resolved = ResolveSpec(Spec());
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->attentions[0].key.width, 4u);
  EXPECT_EQ(resolved->tower.in_width, 4u + 4 + 2 + 3 + 2 + 3);
  EXPECT_EQ(resolved->tower.out_width, 8u);
  EXPECT_FALSE(resolved->tower.input[3].a.per_candidate);  // a pre-tower over user features alone
  EXPECT_TRUE(resolved->tower.input[0].a.per_candidate);
  EXPECT_EQ(resolved->interactions[0].out_width, 3u);
  EXPECT_EQ(resolved->interactions[1].out_width, 2u);
  EXPECT_EQ(resolved->wide[0].width, 2u);
  EXPECT_EQ(resolved->features[2].label, 0);
  EXPECT_EQ(resolved->features[3].side_key, 2);
}

TEST(ResolveSpecTest, Bf16NeedsATolerance) {
  v1::ModelSpec spec = Spec();
  spec.set_precision(v1::PRECISION_BF16);
  EXPECT_THAT(std::string(ResolveSpec(spec).status().message()), testing::HasSubstr("bf16_tolerance: 0 with PRECISION_BF16"));
  spec.set_bf16_tolerance(0.5);
  EXPECT_THAT(std::string(ResolveSpec(spec).status().message()), testing::HasSubstr("bf16_tolerance: 0.5 is not in [0, 0.1]"));
  spec.set_bf16_tolerance(2e-4);
  EXPECT_TRUE(ResolveSpec(spec).ok());
}

// What is left of the model is its wide part: LR.
v1::Tower& WithoutInput(v1::ModelSpec& s) {
  v1::Tower& tower = *s.mutable_tower();
  tower.clear_input();
  tower.clear_layers();
  tower.clear_head_bias();
  return tower;
}

TEST(ResolveSpecTest, ATowerMayBeItsWidePartAlone) {
  v1::ModelSpec spec = Spec();
  WithoutInput(spec).set_global_bias(true);
  spec.clear_attentions();
  spec.mutable_interactions()->DeleteSubrange(0, 1);
  const auto resolved = ResolveSpec(spec);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->tower.in_width, 0u);
}

v1::SequenceSpec& LengthOfTags(v1::ModelSpec& s) {
  v1::SequenceSpec& clicks = *s.mutable_sequences(0);
  clicks.clear_valid_when_not_padding();
  clicks.set_padded_length(6);
  clicks.set_length_of("tags");
  return clicks;
}

TEST(ResolveSpecTest, ResolvesTheListThatMeasuresASequence) {
  v1::ModelSpec spec = Spec();
  EXPECT_EQ(ResolveSpec(spec)->sequences[0].length_of, kNone);
  LengthOfTags(spec);
  const auto resolved = ResolveSpec(spec);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->sequences[0].length_of, 1);
}

struct Refusal {
  const char* name;
  std::function<void(v1::ModelSpec&)> change;
  const char* message;
};

class ResolveSpecRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(ResolveSpecRefusalTest, NamesTheFieldAndWhatIsAccepted) {
  v1::ModelSpec spec = Spec();
  GetParam().change(spec);
  const auto resolved = ResolveSpec(spec);
  ASSERT_FALSE(resolved.ok());
  EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr(GetParam().message));
}

v1::Attention& Att(v1::ModelSpec& s) { return *s.mutable_attentions(0); }
v1::Dice& AttDice(v1::ModelSpec& s) { return *Att(s).mutable_layers(0)->mutable_activation()->mutable_dice(); }

const Refusal kRefusals[] = {
    {"UnknownFormat", [](v1::ModelSpec& s) { s.set_format(2); }, "format: 2 is not known to this server; accepted: 1"},
    {"NoTower", [](v1::ModelSpec& s) { s.clear_tower(); }, "tower: missing"},
    {"DuplicateTable", [](v1::ModelSpec& s) { s.mutable_tables(1)->set_name("item"); },
     "tables[1].name: \"item\" is there twice"},
    {"ControlCharacterInName", [](v1::ModelSpec& s) { s.mutable_tables(1)->set_name("a\nb"); }, "control character"},
    {"IdMapWithoutKind", [](v1::ModelSpec& s) { s.mutable_id_maps(0)->clear_identity(); },
     "id_maps[0]: no kind; accepted: identity, modulo, hash, vocabulary"},
    {"IdentityOfStrings", [](v1::ModelSpec& s) { s.mutable_id_maps(0)->set_id_type(v1::STRING); },
     "id_maps[0].id_type: STRING is not accepted; accepted: INT64"},
    {"NoOutOfVocabularyRule",
     [](v1::ModelSpec& s) { s.mutable_id_maps(0)->set_out_of_vocabulary(v1::IdMap::OUT_OF_VOCABULARY_UNSPECIFIED); },
     "id_maps[0].out_of_vocabulary: OUT_OF_VOCABULARY_UNSPECIFIED is not accepted; accepted: ERROR, ROW, ZERO"},
    {"SeedWithoutXxh64",
     [](v1::ModelSpec& s) {
       s.mutable_id_maps(1)->mutable_hash()->set_function(v1::IdMap::Hash::FARMHASH64_DECIMAL);
       s.mutable_id_maps(1)->mutable_hash()->set_seed(3);
     },
     "id_maps[1].hash.seed: must stay unset unless function is XXH64"},
    {"HashOfSizeZero", [](v1::ModelSpec& s) { s.mutable_id_maps(1)->mutable_hash()->set_size(0); },
     "id_maps[1].hash.size: 0 is not in [1, "},
    {"TableOfNoRows", [](v1::ModelSpec& s) { s.mutable_tables(0)->set_rows(0); }, "tables[0].rows: 0 is not in [1, "},
    {"FeatureWithoutScope", [](v1::ModelSpec& s) { s.mutable_features(0)->clear_scope(); },
     "features[0].scope: SCOPE_UNSPECIFIED is not accepted; accepted: USER, CANDIDATE, SEQUENCE"},
    {"FeatureOfUnknownIdMap", [](v1::ModelSpec& s) { s.mutable_features(2)->set_id_map("shops"); },
     "features[2].id_map: no id map \"shops\""},
    {"PaddingOfWrongType", [](v1::ModelSpec& s) { s.mutable_features(4)->mutable_padding()->set_key("0"); },
     "features[4].padding: key, but the id map's ids are INT64: use id"},
    {"SideKeyOfOtherScope", [](v1::ModelSpec& s) { s.mutable_features(3)->mutable_side()->set_key("hist"); },
     "features[3].side.key: \"hist\" must be an ID feature of the same scope"},
    {"SideWidthDiffers", [](v1::ModelSpec& s) { s.mutable_side_tables(1)->set_width(2); },
     "features[3].side.side_table"},
    {"SequenceWithoutLength", [](v1::ModelSpec& s) { s.mutable_sequences(0)->clear_max_length(); },
     "sequences[0].max_length: 0 is not in [1, "},
    {"PaddedShorterThanKept", [](v1::ModelSpec& s) { s.mutable_sequences(0)->set_padded_length(4); },
     "sequences[0].padded_length: 4 < max_length 5"},
    {"ValidityOfForeignFeature",
     [](v1::ModelSpec& s) { s.mutable_sequences(0)->set_valid_when_not_padding(0, "item"); },
     "\"item\" must be an ID feature of this sequence with a padding id"},
    {"LengthOfUnknownFeature", [](v1::ModelSpec& s) { LengthOfTags(s).set_length_of("tag"); },
     "sequences[0].length_of: no feature \"tag\""},
    {"LengthOfNumbers", [](v1::ModelSpec& s) { LengthOfTags(s).set_length_of("age"); },
     "sequences[0].length_of: \"age\" is DENSE of scope USER, expected ID_LIST of scope USER"},
    {"LengthOfCandidatesList",
     [](v1::ModelSpec& s) {
       LengthOfTags(s);
       s.mutable_features(1)->set_scope(v1::CANDIDATE);
     },
     "sequences[0].length_of: \"tags\" is ID_LIST of scope CANDIDATE, expected ID_LIST of scope USER"},
    {"LengthOfWhereAllParticipate",
     [](v1::ModelSpec& s) { LengthOfTags(s).set_invalid(v1::SequenceSpec::PARTICIPATE); },
     "sequences[0].invalid: PARTICIPATE is not accepted; accepted: DROP (with length_of)"},
    {"LengthOfBesideAMask", [](v1::ModelSpec& s) { LengthOfTags(s).add_valid_when_not_padding("hist"); },
     "sequences[0].valid_when_not_padding: must stay unset with length_of"},
    {"LengthOfWithoutPaddedLength", [](v1::ModelSpec& s) { LengthOfTags(s).clear_padded_length(); },
     "sequences[0].padded_length: 0; length_of needs one"},
    {"ScaledByWideValue", [](v1::ModelSpec& s) { *s.mutable_slots(4)->mutable_scaled()->mutable_value() = "age"; },
     "slots[4].scaled.value: width 2, expected 1"},
    {"EmbedOfDenseFeature", [](v1::ModelSpec& s) { s.mutable_slots(2)->mutable_embed()->set_feature("price"); },
     "slots[2].embed.feature: \"price\" is DENSE, expected ID"},
    {"InfiniteEmptyValue",
     [](v1::ModelSpec& s) {
       s.mutable_slots(1)->mutable_pool()->set_empty_value(std::numeric_limits<double>::infinity());
     },
     "slots[1].pool.empty_value: inf is not in"},
    {"AttentionWithoutLayers", [](v1::ModelSpec& s) { Att(s).clear_layers(); }, "attentions[0].layers: at least one"},
    {"QueryNarrowerThanKey",
     [](v1::ModelSpec& s) {
       s.mutable_tables(0)->set_dim(5);
       Att(s).set_query(0, "tags");
     },
     "attentions[0].query: width 3, the key's is 5; QUERY_WIDTH_ZERO_PAD would fill it up"},
    {"KeyOutsideTheSequence", [](v1::ModelSpec& s) { Att(s).set_key(0, "q"); },
     "attentions[0].key[0]: slot \"q\" is not of this sequence"},
    {"BatchDice", [](v1::ModelSpec& s) { AttDice(s).set_statistics(v1::Dice::BATCH); },
     "attentions[0].layers[0].activation.dice.statistics: BATCH is refused"},
    {"DiceWithoutEps", [](v1::ModelSpec& s) { AttDice(s).set_eps(0); }, "activation.dice.eps: 0 is not in (0, 1]"},
    {"NanEps", [](v1::ModelSpec& s) { AttDice(s).set_eps(std::numeric_limits<double>::quiet_NaN()); },
     "activation.dice.eps: nan is not in (0, 1]"},
    {"PositionwisePrelu",
     [](v1::ModelSpec& s) {
       Att(s).mutable_layers(0)->mutable_activation()->clear_dice();
       Att(s).mutable_layers(0)->mutable_activation()->set_kind(v1::Activation::POSITIONWISE_PRELU);
     },
     "POSITIONWISE_PRELU is outside the family"},
    {"NoNormalise", [](v1::ModelSpec& s) { Att(s).clear_normalise(); },
     "attentions[0].normalise: NORMALISE_UNSPECIFIED is not accepted; accepted: NORMALISE_NONE, NORMALISE_SOFTMAX, "
     "NORMALISE_SIGMOID"},
    {"PositionsMeanWithoutSoftmax", [](v1::ModelSpec& s) { Att(s).set_empty(v1::Attention::EMPTY_POSITIONS_MEAN); },
     "with EMPTY_POSITIONS_MEAN"},
    {"ScaleBehindSigmoid",
     [](v1::ModelSpec& s) {
       Att(s).set_out_activation(v1::Activation::SIGMOID);
       Att(s).set_scale(v1::Attention::SCALE_INVERSE_SQRT_WIDTH);
     },
     "attentions[0].out_activation: SIGMOID is not accepted; accepted: NONE (with a scale)"},
    {"TwoVectorsOfOneName", [](v1::ModelSpec& s) { s.mutable_sequence_pools(0)->set_name("att"); },
     "sequence_pools[0].name: \"att\" is there twice"},
    {"ProductOfWidths", [](v1::ModelSpec& s) { s.mutable_tower()->mutable_input(1)->mutable_b()->set_name("age"); },
     "tower.input[1]: product of vectors of width 4 and 2"},
    {"SliceOutside", [](v1::ModelSpec& s) { s.mutable_tower()->mutable_input(2)->mutable_a()->set_end(5); },
     "tower.input[2].a: [1, 5) of \"att\", whose width is 4"},
    {"TermOfSequenceSlot", [](v1::ModelSpec& s) { s.mutable_tower()->mutable_input(0)->mutable_a()->set_name("k"); },
     "a slot of scope SEQUENCE is pooled first"},
    {"PreTowerOfPreTower",
     [](v1::ModelSpec& s) { s.mutable_pre_towers(0)->mutable_input(0)->mutable_a()->set_name("pre"); },
     "pre_towers[0].input[0].a.name: no vector \"pre\""},
    {"InteractionOfOne", [](v1::ModelSpec& s) { s.mutable_interactions(0)->mutable_vectors()->DeleteSubrange(1, 2); },
     "interactions[0].vectors: 1 entries, expected at least 2"},
    {"InteractionOfWidths", [](v1::ModelSpec& s) { s.mutable_interactions(1)->mutable_vectors(2)->clear_end(); },
     "interactions[1].vectors[2]: width 4, that of vectors[0] is 2"},
    {"InteractionWithoutKind", [](v1::ModelSpec& s) { s.mutable_interactions(0)->clear_kind(); },
     "interactions[0].kind: KIND_UNSPECIFIED is not accepted; accepted: INNER_PRODUCTS, BI_INTERACTION"},
    {"InteractionOfPreTower", [](v1::ModelSpec& s) { s.mutable_interactions(0)->mutable_vectors(0)->set_name("pre"); },
     "interactions[0].vectors[0].name: no vector \"pre\""},
    {"InteractionOfInteraction",
     [](v1::ModelSpec& s) { s.mutable_interactions(1)->mutable_vectors(0)->set_name("products"); },
     "interactions[1].vectors[0].name: no vector \"products\""},
    {"TooManyProducts",
     [](v1::ModelSpec& s) {
       for (int i = 0; i < 400; ++i) s.mutable_interactions(0)->add_vectors()->set_name("q");
     },
     "interactions[0].vectors: inner products: 81003 is not in [1, 65536]"},
    {"WideOfUnknownVector", [](v1::ModelSpec& s) { s.mutable_tower()->mutable_wide(0)->set_name("fmm"); },
     "tower.wide[0].name: no vector \"fmm\""},
    {"NothingForTheLogit", [](v1::ModelSpec& s) { WithoutInput(s).clear_wide(); },
     "tower.input: at least one term, or a tower.wide"},
    {"LayersWithoutInput", [](v1::ModelSpec& s) { WithoutInput(s).add_layers()->set_units(3); },
     "tower.layers: must stay unset without input"},
    {"HeadBiasWithoutInput", [](v1::ModelSpec& s) { WithoutInput(s).set_head_bias(true); },
     "tower.head_bias: must stay unset without input: use global_bias"},
    {"TwoClassesWithoutInput", [](v1::ModelSpec& s) { WithoutInput(s).set_classes(2); },
     "tower.classes: 2 is not accepted; accepted: 1 (without input)"},
    {"ThreeClasses", [](v1::ModelSpec& s) { s.mutable_tower()->set_classes(3); },
     "tower.classes: 3 is not accepted; accepted: 1, 2"},
    {"PositiveClassOutside", [](v1::ModelSpec& s) { s.mutable_tower()->set_positive_class(1); },
     "tower.positive_class: 1 >= classes 1"},
    {"WideIdBias", [](v1::ModelSpec& s) { s.mutable_tower()->mutable_id_biases(0)->set_table("item"); },
     "dim 4, expected 1"},
    {"LabelOfNumbers", [](v1::ModelSpec& s) { s.mutable_labels(0)->set_side_table("price_of"); },
     "labels[0]: a label joins"},
};

INSTANTIATE_TEST_SUITE_P(All, ResolveSpecRefusalTest, testing::ValuesIn(kRefusals),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace din
