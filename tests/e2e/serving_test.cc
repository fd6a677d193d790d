// Requests against a live server: right answers, and errors that say what is wrong.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/snapshot.h"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr double kTolerance = 1e-5;

// One server with all golden models and the shop, for all tests here.
class ServingTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new ModelRoot;
    for (const std::string& name : GoldenNames()) root_->PublishGolden(name, name, 1);
    root_->PublishShop(7);
    server_ = new RunningServer(*root_, {"--max-candidates=20", "--max-behaviours=40", "--max-list-ids=100"});
    client_ = new TestClient(server_->address());
  }
  static void TearDownTestSuite() {
    delete client_;
    EXPECT_EQ(server_->Stop(), 0);
    delete server_;
    delete root_;
  }

  // The message of the INVALID_ARGUMENT that the shop's good request gets once `spoil` was at it.
  static std::string Refusal(const std::function<void(v1::ScoreRequest&)>& spoil) {
    v1::ScoreRequest request = ShopScoreRequest();
    spoil(request);
    const auto response = client_->Score(request);
    EXPECT_EQ(response.status().code(), absl::StatusCode::kInvalidArgument) << response.status();
    return std::string(response.status().message());
  }

  static ModelRoot* root_;
  static RunningServer* server_;
  static TestClient* client_;
};
ModelRoot* ServingTest::root_;
RunningServer* ServingTest::server_;
TestClient* ServingTest::client_;

TEST_F(ServingTest, EveryGoldenScoreComesBackOverTheWire) {
  size_t scores = 0;
  double largest = 0;
  for (const std::string& name : GoldenNames()) {
    const auto snapshot = Snapshot::Open(GoldenDirectory(name), {});
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    for (const v1::GoldenCase& golden : (*snapshot)->golden()) {
      const auto response = client_->Score(ToScoreRequest(golden, name));
      ASSERT_TRUE(response.ok()) << name << " " << golden.id() << ": " << response.status();
      ASSERT_EQ(response->scores_size(), golden.scores_size());
      for (int rank = 0; rank < response->scores_size(); ++rank) {
        const double error = std::abs(response->scores(rank) - golden.scores(static_cast<int>(response->index(rank))));
        EXPECT_LE(error, kTolerance) << name << " " << golden.id() << " candidate " << response->index(rank);
        EXPECT_LE(response->scores(rank), response->scores(std::max(rank - 1, 0)));
        largest = std::max(largest, error);
        ++scores;
      }
    }
  }
  std::cout << scores << " golden scores over RPC, largest error " << largest << std::endl;
  EXPECT_GT(scores, 300u);
}

TEST_F(ServingTest, ResponseCarriesNamesLabelsAndUnknownIdsByRank) {
  v1::ScoreRequest request = ShopScoreRequest();
  for (const char* key : {"bucket", "mystery", "anvil", "last"}) request.add_candidate_keys(key);
  request.set_labels(true);
  request.set_top_k(4);
  const auto response = client_->Score(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->model(), "shop");
  EXPECT_EQ(response->version(), 7);
  ASSERT_THAT(response->index(), SizeIs(4));
  const std::vector<std::string> keys = {"bucket", "mystery", "anvil", "last"}, labels = {"Bucket", "", "Anvil", ""};
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(response->candidate_keys(rank), keys[response->index(rank)]);
    EXPECT_EQ(response->labels(rank), labels[response->index(rank)]);
  }
  std::vector<uint32_t> unknown;  // candidate 1: its category; candidate 3: in no side table
  for (const uint32_t rank : response->out_of_vocabulary()) unknown.push_back(response->index(static_cast<int>(rank)));
  EXPECT_THAT(unknown, UnorderedElementsAre(1, 3));
}

TEST_F(ServingTest, TopKIsTheHeadOfTheWholeRanking) {
  v1::ScoreRequest request = ShopScoreRequest();
  const auto all = client_->Score(request);
  request.set_top_k(2);
  const auto top = client_->Score(request);
  ASSERT_TRUE(all.ok() && top.ok());
  EXPECT_THAT(top->index(), ElementsAre(all->index(0), all->index(1)));
  EXPECT_THAT(top->scores(), ElementsAre(all->scores(0), all->scores(1)));
}

TEST_F(ServingTest, AttributeInTheRequestOverridesTheSideTable) {
  v1::ScoreRequest request = ShopScoreRequest();
  const auto from_side_table = client_->Score(request);
  v1::Column* cate = request.add_candidates();
  cate->set_name("cate");
  for (const int64_t id : {2, 3, 1, 0}) cate->add_ids(id);
  const auto sent = client_->Score(request);
  ASSERT_TRUE(from_side_table.ok() && sent.ok());
  EXPECT_THAT(from_side_table->out_of_vocabulary(), SizeIs(2));
  EXPECT_THAT(sent->out_of_vocabulary(), SizeIs(1));  // the tags of 60, which were not sent
  EXPECT_NE(from_side_table->scores(0), sent->scores(0));
}

// --- What is refused -------------------------------------------------------------------------------------------------

TEST_F(ServingTest, UnknownModelAndVersionAreNotFound) {
  v1::ScoreRequest request = ShopScoreRequest();
  request.set_version(6);
  EXPECT_EQ(client_->Score(request).status(),
            absl::NotFoundError("version: 6 of model \"shop\" is not served; live: 7"));
  request.set_version(7);
  EXPECT_TRUE(client_->Score(request).ok());
  request.set_model("ship");
  EXPECT_EQ(client_->Score(request).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Refusal([](v1::ScoreRequest& r) { r.clear_model(); }), HasSubstr("model: empty, but 8 are served"));
  EXPECT_THAT(Refusal([](v1::ScoreRequest& r) { r.set_version(-1); }), HasSubstr("version: -1 < 0"));
}

TEST_F(ServingTest, ColumnsThatAreNotTheModelsAreRefusedByName) {
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features(0)->set_name("usr"); }),
              HasSubstr("features.usr: no such feature; the nearest is \"user\""));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features()->DeleteSubrange(0, 1); }),
              HasSubstr("features.user: missing"));
  EXPECT_THAT(Refusal([](auto& r) { *r.add_features() = r.features(0); }), HasSubstr("features.user: sent twice"));
  EXPECT_THAT(Refusal([](auto& r) { *r.add_features() = r.candidates(0); }), HasSubstr("features.item"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sequences(0)->set_name("history"); }), HasSubstr("sequences.history"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sequences()->DeleteSubrange(0, 1); }),
              HasSubstr("sequences.hist: missing"));
  EXPECT_THAT(Refusal([](auto& r) { r.clear_candidates(); }), HasSubstr("candidates: 0, expected at least 1"));
}

TEST_F(ServingTest, WrongTypesAndRaggedColumnsAreRefused) {
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features(0)->add_keys("3"); }),
              HasSubstr("features.user: ids and keys sent"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features(0)->add_ids(4); }),
              HasSubstr("features.user: 2 ids, expected 1"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features(1)->add_values(1); }),
              HasSubstr("features.age: 3 values, expected 2"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_sequences(0)->mutable_columns(0)->add_ids(10); }),
              HasSubstr("h_dwell: 5 rows, h_item has 6"));
  EXPECT_THAT(Refusal([](auto& r) {
                v1::Column* tags = r.add_candidates();
                tags->set_name("tags");
                tags->add_ids(1);
                for (const uint32_t offset : {0, 1, 0, 1, 1}) tags->add_offsets(offset);
              }),
              HasSubstr("candidates.tags: offsets[2] = 0 < 1"));
}

TEST_F(ServingTest, NumbersThatAreNoneAndForbiddenIdsAreRefused) {
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features(1)->set_values(1, std::numeric_limits<float>::quiet_NaN()); }),
              HasSubstr("features.age[1]: nan is not a finite number"));
  EXPECT_THAT(Refusal([](auto& r) {
                r.mutable_sequences(0)->mutable_columns(1)->set_values(4, std::numeric_limits<float>::infinity());
              }),
              HasSubstr("h_dwell[4]: inf is not a finite number"));
  EXPECT_THAT(Refusal([](auto& r) { r.mutable_features(0)->set_ids(0, 5); }),
              HasSubstr("features.user[0]: id 5 is out of vocabulary"));
}

TEST_F(ServingTest, LimitsAreNamedWithTheirValue) {
  EXPECT_THAT(Refusal([](auto& r) {
                while (r.candidates(0).ids_size() < 21) r.mutable_candidates(0)->add_ids(10);
              }),
              HasSubstr("candidates: 21 > limit 20"));
  EXPECT_THAT(Refusal([](auto& r) {
                v1::Sequence& hist = *r.mutable_sequences(0);
                while (hist.columns(0).ids_size() < 41) hist.mutable_columns(0)->add_ids(10);
              }),
              HasSubstr("sequences.hist: 41 behaviours > limit 40"));
  EXPECT_THAT(Refusal([](auto& r) {
                while (r.features(2).keys_size() < 101) r.mutable_features(2)->add_keys("red");
              }),
              HasSubstr("features.likes: 101 ids > limit 100"));
}

TEST_F(ServingTest, CandidateNamesAreOneEachOrNone) {
  EXPECT_THAT(Refusal([](auto& r) { r.add_candidate_ids(1); }), HasSubstr("candidate_ids: 1 sent, expected 4"));
  EXPECT_THAT(Refusal([](auto& r) {
                r.add_candidate_ids(1);
                r.add_candidate_keys("a");
              }),
              HasSubstr("at most one of the two"));
}

TEST_F(ServingTest, MessageBeyondTheReceiveLimitIsRefused) {
  v1::ScoreRequest request = ShopScoreRequest();
  request.add_candidate_keys(std::string(5 << 20, 'x'));
  EXPECT_EQ(client_->Score(request).status().code(), absl::StatusCode::kResourceExhausted);
}

// Megabytes of zeros are some kilobytes of gzip, and gRPC unpacks them all before it looks at the limit.
TEST_F(ServingTest, CompressedMessageIsRefusedAndTheServerServesOn) {
  const std::string bytes = ShopScoreRequest().SerializeAsString() + std::string(64 << 10, '\0');
  for (const char* compression : {"gzip", "deflate"}) {
    EXPECT_EQ(client_->ScoreBytes(bytes, compression).code(), absl::StatusCode::kUnimplemented) << compression;
  }
  EXPECT_TRUE(client_->ScoreBytes(ShopScoreRequest().SerializeAsString()).ok());
}

TEST_F(ServingTest, MessageThatIsNoRequestIsRefusedWithoutALineInTheLog) {
  const absl::Status malformed = client_->ScoreBytes("\xff\xff");
  EXPECT_EQ(malformed, absl::InvalidArgumentError("message: 2 bytes, which are no din.v1.ScoreRequest: malformed, or a "
                                                  "string that is not UTF-8"));
  const std::string not_utf8("\x0a\x01\xff", 3);  // model = 1: one byte
  EXPECT_EQ(client_->ScoreBytes(not_utf8).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(client_->Score(ShopScoreRequest()).ok());
  EXPECT_THAT(server_->Log(), Not(HasSubstr("UTF-8")));
}

// --- Explain, metadata, reflection -----------------------------------------------------------------------------------

TEST_F(ServingTest, ExplainGivesAWeightForEveryBehaviourSent) {
  v1::ExplainRequest request;
  *request.mutable_request() = ShopScoreRequest();
  request.add_candidates(2);
  request.add_candidates(0);
  const auto response = client_->Explain(request);
  ASSERT_TRUE(response.ok()) << response.status();
  const auto scored = client_->Score(ShopScoreRequest());
  ASSERT_TRUE(scored.ok());
  EXPECT_EQ(response->response().SerializeAsString(), scored->SerializeAsString());
  ASSERT_THAT(response->candidates(), SizeIs(2));
  EXPECT_EQ(response->candidates(0).index(), 2u);
  EXPECT_EQ(response->candidates(0).label(), "Anvil");
  for (const auto& candidate : response->candidates()) {
    const auto& weights = candidate.attentions(0);
    EXPECT_EQ(weights.attention(), "att");
    EXPECT_THAT(weights.weights(), SizeIs(5));
    EXPECT_THAT(weights.not_attended(), ElementsAre(0, 2));
    EXPECT_NEAR(weights.weights(1) + weights.weights(3) + weights.weights(4), 1, 1e-6);
  }
  ASSERT_THAT(response->labels(), SizeIs(1));
  EXPECT_THAT(response->labels(0).labels(), ElementsAre("Anvil", "Bucket", "", "", ""));
}

TEST_F(ServingTest, ExplainRefusesWhatScoreRefusesAndForeignCandidates) {
  v1::ExplainRequest request;
  *request.mutable_request() = ShopScoreRequest();
  request.add_candidates(4);
  EXPECT_EQ(client_->Explain(request).status(), absl::InvalidArgumentError("candidates[0]: 4, but the request has 4"));
  request.mutable_request()->clear_candidates();
  EXPECT_EQ(client_->Explain(request).status().code(), absl::StatusCode::kInvalidArgument);
}

// A request made from nothing but the metadata: one row of each required feature.
TEST_F(ServingTest, MetadataIsEnoughToBuildARequest) {
  const auto models = client_->GetModelMetadata("");
  ASSERT_TRUE(models.ok()) << models.status();
  EXPECT_THAT(models->models(), SizeIs(8));
  for (const std::string& model : models->models()) {
    const auto metadata = client_->GetModelMetadata(model);
    ASSERT_TRUE(metadata.ok()) << metadata.status();
    v1::ScoreRequest request;
    request.set_model(model);
    for (const auto& spec : metadata->spec().sequences()) request.add_sequences()->set_name(spec.name());  // empty
    for (const auto& info : metadata->features()) {
      if (!info.required() || info.scope() == v1::SEQUENCE) continue;
      v1::Column* column = info.scope() == v1::USER ? request.add_features() : request.add_candidates();
      column->set_name(info.name());
      for (uint32_t i = 0; info.kind() == v1::DENSE && i < info.width(); ++i) column->add_values(0);
      if (info.kind() == v1::ID && info.id_type() == v1::INT64) column->add_ids(1);
      if (info.kind() == v1::ID && info.id_type() == v1::STRING) column->add_keys("a");
      if (info.kind() == v1::ID_LIST && info.scope() == v1::CANDIDATE) {
        column->add_offsets(0);
        column->add_offsets(0);
      }
    }
    const auto response = client_->Score(request);
    EXPECT_TRUE(response.ok()) << model << ": " << response.status();
  }
}

TEST_F(ServingTest, MetadataTellsWhereTheVersionComesFrom) {
  const std::string name = GoldenNames().front();
  const auto manifest = ReadManifest(GoldenDirectory(name), {});
  ASSERT_TRUE(manifest.ok());
  const auto metadata = client_->GetModelMetadata(name);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->version(), 1);
  EXPECT_EQ(metadata->digest(), manifest->digest);
  EXPECT_EQ(metadata->golden_cases(), 4u);
  EXPECT_LE(metadata->largest_golden_error(), kTolerance);
  EXPECT_EQ(client_->GetModelMetadata("ship").status().code(), absl::StatusCode::kNotFound);
}

// gRPC's threads sleep for 100 ms when there was nothing to do for a second, and a request that comes 50 ms into that
// sleep would wait for its end, every time. A busy machine makes it wait now and then.
TEST_F(ServingTest, FirstRequestAfterAPauseDoesNotWait) {
  auto fastest = std::chrono::steady_clock::duration::max();
  for (int i = 0; i < 10 && fastest >= std::chrono::milliseconds(30); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1050));
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_TRUE(client_->GetModelMetadata("shop").ok());
    fastest = std::min(fastest, std::chrono::steady_clock::now() - begin);
  }
  EXPECT_LT(fastest, std::chrono::milliseconds(30));
}

// Each open stream holds a thread of the server.
TEST_F(ServingTest, LeakedReflectionStreamsHoldABoundedNumberOfThreads) {
  const size_t before = server_->Threads();
  {
    TestClient leaking(server_->address());
    for (int i = 0; i < 100; ++i) leaking.LeakReflectionStream();
    EXPECT_TRUE(Eventually([&] { return server_->Threads() >= before + 16; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_LE(server_->Threads(), before + 40);
    EXPECT_TRUE(client_->Score(ShopScoreRequest()).ok());
    EXPECT_EQ(*client_->Health("shop"), "SERVING");
  }
  EXPECT_TRUE(Eventually([&] { return client_->ListServices().ok(); }));
}

TEST_F(ServingTest, ReflectionListsTheServices) {
  const auto services = client_->ListServices();
  ASSERT_TRUE(services.ok()) << services.status();
  EXPECT_THAT(*services, HasSubstr("din.v1.ScoringService"));
  EXPECT_THAT(*services, HasSubstr("grpc.health.v1.Health"));
}

}  // namespace
}  // namespace din
