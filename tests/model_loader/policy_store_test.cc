#include "model_loader/policy_store.h"

#include <string>
#include <vector>

#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

ModelPolicy Policy() {
  ModelPolicy policy;
  policy.pinned = 7;
  policy.labels = {{"stable", 6}, {"canary", 7}};
  policy.quarantine = {{std::string(64, 'a'), 8}};
  policy.last_good = INT64_MAX;
  policy.last_good_digest = std::string(64, 'b');
  policy.previous_good = 5;
  policy.previous_good_digest = std::string(64, 'c');
  policy.unloaded = true;
  return policy;
}

TEST(PolicyStoreTest, WhatAnOlderProgramWroteIsRead) {
  const auto policy = ParsePolicy(R"({"format": 1, "pinned": 3, "labels": {}, "quarantine": {}, "last_good": 3,
                                      "last_good_digest": "d", "unloaded": false})");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->pinned, 3);
  EXPECT_EQ(policy->previous_good, 0);
}

TEST(PolicyStoreTest, WhatIsSavedIsLoaded) {
  TempDirectory root;
  std::vector<absl::Status> problems;
  {
    const auto store = PolicyStore::Open(root / "state/deep");
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE((*store)->Save("m", {}).ok());
    ASSERT_TRUE((*store)->Save("m", Policy()).ok());
    ASSERT_TRUE((*store)->Save("n", {}).ok());
    ExpectError(PolicyStore::Open(root / "state/deep").status(), absl::StatusCode::kFailedPrecondition, {"in use"});
  }
  const auto store = PolicyStore::Open(root / "state/deep");
  ASSERT_TRUE(store.ok()) << store.status();
  const auto policies = (*store)->Load(problems);
  ASSERT_TRUE(policies.ok()) << policies.status();
  EXPECT_EQ(policies->at("m"), Policy());
  EXPECT_EQ(policies->at("n"), ModelPolicy());
  EXPECT_EQ(policies->size(), 2u);
  EXPECT_TRUE(problems.empty());
}

TEST(PolicyStoreTest, ADeadWritersFileIsReplacedAndNeverRead) {
  TempDirectory root;
  const auto store = PolicyStore::Open(root.path());
  ASSERT_TRUE((*store)->Save("m", Policy()).ok());
  WriteFile(root / ".next", "{\"format\":");
  std::vector<absl::Status> problems;
  EXPECT_EQ((*store)->Load(problems)->at("m"), Policy());
  EXPECT_TRUE(problems.empty());
  EXPECT_TRUE((*store)->Save("m", {}).ok());
  EXPECT_EQ((*store)->Load(problems)->at("m"), ModelPolicy());
}

TEST(PolicyStoreTest, EveryCutAndEveryWrongTypeIsAProblemAndNothingElse) {
  TempDirectory root;
  const auto store = PolicyStore::Open(root.path());
  const std::string whole = FormatPolicy(Policy());
  std::vector<std::string> bad = {"{}", "[]", "{\"format\": 2}", whole + "x"};
  for (size_t length = 0; length < whole.size() - 2; ++length) bad.push_back(whole.substr(0, length));
  for (const std::string& text : bad) EXPECT_FALSE(ParsePolicy(text).ok()) << text;
  WriteFile(root / "m.json", bad[2]);
  ASSERT_TRUE((*store)->Save("n", Policy()).ok());
  std::vector<absl::Status> problems;
  const auto policies = (*store)->Load(problems);
  ASSERT_TRUE(policies.ok());
  EXPECT_EQ(policies->size(), 1u);
  ASSERT_EQ(problems.size(), 1u);
  ExpectError(problems[0], absl::StatusCode::kUnimplemented, {"m.json: format 2"});
}

}  // namespace
}  // namespace din
