#include "model/id_map.h"

#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "model/key_index.h"
#include "tests/model/tensor_store.h"

namespace din {
namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

v1::IdMap Spec(const std::string& text) {
  v1::IdMap spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return spec;
}

IdMap Create(const std::string& text, const TensorMap& tensors = {}) {
  TensorReader reader(tensors);
  auto map = IdMap::Create(Spec(text), reader);
  EXPECT_TRUE(map.ok()) << map.status();
  EXPECT_TRUE(reader.CheckAllUsed().ok());
  return std::move(map).value();
}

std::string Spell(IdMap::Result result) {
  const char* kind[] = {"known", "unknown", "refused"};
  return absl::StrCat(kind[result.kind], " ", result.row == kZeroRow ? "zero" : absl::StrCat(result.row));
}

// --- The hashes ----------------------------------------------------------------------------------------------------

// BigQuery's documentation of FARM_FINGERPRINT, which is Fingerprint64 of FarmHash as a signed integer: the example
// over CONCAT(CAST(x AS STRING), y, CAST(z AS STRING)).
TEST(Farmhash64Test, BigQueryDocumentation) {
  EXPECT_EQ(static_cast<int64_t>(Farmhash64("1footrue")), -1541654101129638711);
  EXPECT_EQ(static_cast<int64_t>(Farmhash64("2applefalse")), 2794438866806483259);
  EXPECT_EQ(static_cast<int64_t>(Farmhash64("3true")), -4880158226897771312);
}

// Guava's FarmHashFingerprint64Test, "really simple fingerprints": 4, 32 and 256 bytes.
TEST(Farmhash64Test, GuavaSimpleFingerprints) {
  const auto repeated = [](int n) {
    std::string s;
    for (int i = 0; i < n; ++i) s += "test";
    return s;
  };
  EXPECT_EQ(static_cast<int64_t>(Farmhash64(repeated(1))), 8581389452482819506);
  EXPECT_EQ(static_cast<int64_t>(Farmhash64(repeated(8))), -4196240717365766262);
  EXPECT_EQ(static_cast<int64_t>(Farmhash64(repeated(64))), 3500507768004279527);
}

// tf.strings.to_hash_bucket_fast's documentation: ["Hello", "TensorFlow", "2.x"] in 3 buckets.
TEST(Farmhash64Test, TensorFlowDocumentation) {
  const IdMap map = Create(R"(name: "m" id_type: STRING hash { function: FARMHASH64_DECIMAL size: 3 })");
  EXPECT_EQ(map.Row(std::string_view("Hello")).row, 0u);
  EXPECT_EQ(map.Row(std::string_view("TensorFlow")).row, 2u);
  EXPECT_EQ(map.Row(std::string_view("2.x")).row, 2u);
}

// The sanity check of xxHash's own command line tool (Cyan4973/xxHash, cli/xsum_sanity_check.c, XSUM_XXH64_testdata):
// prefixes of a generated buffer, seeds 0 and 2654435761.
TEST(Xxh64Test, SanityCheckOfXxhsum) {
  std::string buffer(222, '\0');
  uint64_t generator = 2654435761u;
  for (char& c : buffer) {
    c = static_cast<char>(generator >> 56);
    generator *= 11400714785074694797ull;
  }
  struct Vector {
    size_t length;
    uint64_t seed;
    uint64_t hash;
  };
  for (const Vector& v : std::vector<Vector>{
           {0, 0, 0xEF46DB3751D8E999},
           {0, 2654435761u, 0xAC75FDA2929B17EF},
           {1, 0, 0xE934A84ADB052768},
           {1, 2654435761u, 0x5014607643A9B4C3},
           {4, 0, 0x9136A0DCA57457EE},
           {14, 0, 0x8282DCC4994E35C8},
           {14, 2654435761u, 0xC3BD6BF63DEB6DF0},
           {222, 0, 0xB641AE8CB691C174},
           {222, 2654435761u, 0x20CB8AB7AE10C14A},
       }) {
    EXPECT_EQ(Xxh64(std::string_view(buffer).substr(0, v.length), v.seed), v.hash) << v.length << " " << v.seed;
  }
}

// --- Maps that know every id ---------------------------------------------------------------------------------------

TEST(IdMapTest, ModuloGivesTheNonNegativeRemainder) {
  const IdMap map = Create(R"(name: "m" id_type: INT64 modulo { size: 10 })");
  EXPECT_EQ(map.rows(), 10);
  const std::vector<std::pair<int64_t, uint32_t>> cases = {{0, 0},   {9, 9},   {10, 0},   {-1, 9},
                                                           {-10, 0}, {-11, 9}, {kMax, 7}, {kMin, 2}};
  for (const auto& [id, row] : cases) {
    EXPECT_EQ(map.Row(id).kind, IdMap::Result::kKnown);
    EXPECT_EQ(map.Row(id).row, row) << id;
  }
}

TEST(IdMapTest, ModuloOfTheLargestSize) {
  const IdMap map = Create(R"(name: "m" id_type: INT64 modulo { size: 4294967294 })");
  EXPECT_EQ(map.Row(-1).row, 4294967293u);
  EXPECT_LT(map.Row(kMin).row, 4294967294u);
}

TEST(IdMapTest, HashOfAnIntegerIsThatOfItsDigits) {
  for (const char* function : {"FARMHASH64_DECIMAL", "XXH64"}) {
    const std::string hash = absl::StrCat("hash { function: ", function, " size: 1000003 }");
    const IdMap ints = Create(absl::StrCat("name: 'i' id_type: INT64 ", hash));
    const IdMap strings = Create(absl::StrCat("name: 's' id_type: STRING ", hash));
    for (const int64_t id : {int64_t{0}, int64_t{7}, int64_t{-12}, int64_t{1234567890123}, kMin, kMax}) {
      const std::string digits = std::to_string(id);
      EXPECT_EQ(ints.Row(id).row, strings.Row(std::string_view(digits)).row) << function << " " << id;
    }
  }
}

TEST(IdMapTest, HashIsReducedModuloSize) {
  const IdMap farm = Create(R"(name: "m" id_type: STRING hash { function: FARMHASH64_DECIMAL size: 1000 })");
  EXPECT_EQ(farm.Row(std::string_view("1footrue")).row, 16905089972579912905u % 1000);
  const IdMap xxh = Create(R"(name: "m" id_type: STRING hash { function: XXH64 size: 1000 seed: 2654435761 })");
  EXPECT_EQ(xxh.Row(std::string_view("")).row, 0xAC75FDA2929B17EFu % 1000);
}

TEST(IdMapTest, SkipZeroKeepsRowZeroForTheIdZero) {
  const std::string hash = "hash { function: FARMHASH64_DECIMAL_SKIP_ZERO size: 1000 }";
  const IdMap ints = Create("name: 'i' id_type: INT64 " + hash);
  const IdMap strings = Create("name: 's' id_type: STRING " + hash);
  EXPECT_EQ(ints.rows(), 1000);
  EXPECT_EQ(ints.Row(0).row, 0u);
  EXPECT_EQ(strings.Row(std::string_view("0")).row, 0u);
  EXPECT_EQ(strings.Row(std::string_view("1footrue")).row, 16905089972579912905u % 999 + 1);
  for (int64_t id = 1; id < 20000; ++id) {
    ASSERT_GE(ints.Row(id).row, 1u);
    ASSERT_LT(ints.Row(id).row, 1000u);
  }
  EXPECT_NE(strings.Row(std::string_view("00")).row, 0u);
}

// --- Maps with a vocabulary ----------------------------------------------------------------------------------------

TEST(IdMapTest, IdentityShiftsByFirstWithoutOverflow) {
  const IdMap map = Create(R"(name: "m" id_type: INT64 identity { size: 5 first: -2 } out_of_vocabulary: ZERO)");
  EXPECT_EQ(map.rows(), 5);
  EXPECT_EQ(Spell(map.Row(-2)), "known 0");
  EXPECT_EQ(Spell(map.Row(2)), "known 4");
  for (const int64_t id : {int64_t{-3}, int64_t{3}, kMin, kMax}) EXPECT_EQ(Spell(map.Row(id)), "unknown zero") << id;
  const IdMap low =
      Create(R"(name: "m" id_type: INT64 identity { size: 5 first: -9223372036854775808 } out_of_vocabulary: ZERO)");
  EXPECT_EQ(Spell(low.Row(kMin + 4)), "known 4");
  EXPECT_EQ(Spell(low.Row(kMax)), "unknown zero");
}

TEST(IdMapTest, OutOfVocabularyRules) {
  const std::string map = "name: 'm' id_type: INT64 identity { size: 5 } ";
  EXPECT_EQ(Spell(Create(map + "out_of_vocabulary: ERROR").Row(5)), "refused zero");
  EXPECT_EQ(Spell(Create(map + "out_of_vocabulary: ZERO").Row(5)), "unknown zero");
  EXPECT_EQ(Spell(Create(map + "out_of_vocabulary: ROW out_of_vocabulary_row: 3").Row(5)), "unknown 3");
  // A row past the others counts among those that the table must have.
  EXPECT_EQ(Create(map + "out_of_vocabulary: ROW out_of_vocabulary_row: 3").rows(), 5);
  EXPECT_EQ(Create(map + "out_of_vocabulary: ROW out_of_vocabulary_row: 9").rows(), 10);
}

TEST(IdMapTest, VocabularyOfIntegersInEitherWidth) {
  for (const bool wide : {false, true}) {
    TensorStore store;
    if (wide) {
      store.I64("vocab.m.keys", {42, -7, 0});
    } else {
      store.I32("vocab.m.keys", {42, -7, 0});
    }
    const IdMap map = Create(
        R"(name: "m" id_type: INT64 vocabulary { first_row: 2 } out_of_vocabulary: ROW out_of_vocabulary_row: 1)",
        store.map());
    EXPECT_EQ(map.rows(), 5);
    EXPECT_EQ(Spell(map.Row(42)), "known 2");
    EXPECT_EQ(Spell(map.Row(-7)), "known 3");
    EXPECT_EQ(Spell(map.Row(0)), "known 4");
    EXPECT_EQ(Spell(map.Row(1)), "unknown 1");
    EXPECT_EQ(Spell(map.Row(kMin)), "unknown 1");
  }
}

TEST(IdMapTest, VocabularyOfStringsComparesBytes) {
  const std::string nul("a\0b", 3);
  TensorStore store;
  store.Strings("vocab.m.keys", {"a", nul, "", "\xff\xfe"});
  const IdMap map = Create(R"(name: "m" id_type: STRING vocabulary {} out_of_vocabulary: ZERO)", store.map());
  EXPECT_EQ(Spell(map.Row(std::string_view("a"))), "known 0");
  EXPECT_EQ(Spell(map.Row(std::string_view(nul))), "known 1");
  EXPECT_EQ(Spell(map.Row(std::string_view(""))), "known 2");
  EXPECT_EQ(Spell(map.Row(std::string_view("\xff\xfe"))), "known 3");
  EXPECT_EQ(Spell(map.Row(std::string_view("A"))), "unknown zero");
}

TEST(IdMapTest, EmptyVocabularyKnowsNothing) {
  TensorStore store;
  store.I64("vocab.m.keys", {});
  const IdMap map = Create(R"(name: "m" id_type: INT64 vocabulary {} out_of_vocabulary: ZERO)", store.map());
  EXPECT_EQ(map.rows(), 0);
  EXPECT_EQ(Spell(map.Row(0)), "unknown zero");
}

TEST(IdMapTest, LargeVocabularyFindsEveryKeyAndNoOther) {
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < 50000; ++i) keys.push_back(i * i * 2654435761 - (i << 33));
  ASSERT_EQ(std::set<int64_t>(keys.begin(), keys.end()).size(), keys.size());
  TensorStore store;
  store.I64("vocab.m.keys", keys);
  const IdMap map = Create(R"(name: "m" id_type: INT64 vocabulary {} out_of_vocabulary: ZERO)", store.map());
  const std::set<int64_t> known(keys.begin(), keys.end());
  for (size_t i = 0; i < keys.size(); ++i) {
    ASSERT_EQ(map.Row(keys[i]).kind, IdMap::Result::kKnown);
    ASSERT_EQ(map.Row(keys[i]).row, i);
    if (!known.contains(keys[i] + 1)) {
      ASSERT_EQ(map.Row(keys[i] + 1).kind, IdMap::Result::kOutOfVocabulary);
    }
  }
}

TEST(IdMapTest, DuplicateKeyIsRefusedWithBothPositions) {
  TensorStore store;
  store.I64("vocab.m.keys", {5, 8, 9, 8});
  TensorReader ints(store.map());
  EXPECT_EQ(
      IdMap::Create(Spec("name: 'm' id_type: INT64 vocabulary {} out_of_vocabulary: ZERO"), ints).status().message(),
      "id map \"m\": key 8 is there twice, at positions 1 and 3");
  store.Strings("vocab.s.keys", {"b\n", "a", "b\n"});
  TensorReader strings(store.map());
  EXPECT_EQ(IdMap::Create(Spec("name: 's' id_type: STRING vocabulary {} out_of_vocabulary: ZERO"), strings)
                .status()
                .message(),
            "id map \"s\": key \"b\\n\" is there twice, at positions 0 and 2");
}

TEST(IdMapTest, RowsBeyondUint32AreRefused) {
  TensorStore store;
  store.I64("vocab.m.keys", {1, 2});
  TensorReader reader(store.map());
  const auto map = IdMap::Create(
      Spec("name: 'm' id_type: INT64 vocabulary { first_row: 4294967294 } out_of_vocabulary: ZERO"), reader);
  EXPECT_EQ(map.status().message(), "id map \"m\": first_row 4294967294 + 2 keys > limit 4294967295");
}

TEST(IdMapTest, MissingVocabularyNamesTheTensor) {
  const TensorMap none;
  TensorReader reader(none);
  EXPECT_EQ(
      IdMap::Create(Spec("name: 'm' id_type: INT64 vocabulary {} out_of_vocabulary: ZERO"), reader).status().message(),
      "tensor vocab.m.keys: missing");
  EXPECT_EQ(
      IdMap::Create(Spec("name: 'm' id_type: STRING vocabulary {} out_of_vocabulary: ZERO"), reader).status().message(),
      "tensor vocab.m.keys.bytes: missing");
}

TEST(SpellIdTest, StringsAreEscapedAndCut) {
  EXPECT_EQ(SpellId(int64_t{-5}), "-5");
  EXPECT_EQ(SpellId(std::string_view("a\"\x01")), "\"a\\\"\\x01\"");
  EXPECT_EQ(SpellId(std::string_view(std::string(1000, 'x'))).size(), 64u + 5u);
}

}  // namespace
}  // namespace din
