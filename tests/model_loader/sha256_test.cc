#include "model_loader/sha256.h"

#include "gtest/gtest.h"

namespace din {
namespace {

// FIPS 180-4's examples.
TEST(Sha256Test, PublishedVectors) {
  EXPECT_EQ(Hex(Sha256Of("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Hex(Sha256Of("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Hex(Sha256Of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256Test, PiecesGiveTheDigestOfTheWholeAndFinishStartsAnew) {
  Sha256 sha;
  for (int round = 0; round < 2; ++round) {
    sha.Update(std::as_bytes(std::span(std::string_view("a"))));
    sha.Update({});
    sha.Update(std::as_bytes(std::span(std::string_view("bc"))));
    EXPECT_EQ(sha.Finish(), Sha256Of("abc"));
  }
}

TEST(Sha256Test, HexIsReadBackAndNothingElseIs) {
  const Sha256Digest digest = Sha256Of("abc");
  const std::string hex = Hex(digest);
  ASSERT_TRUE(ParseHex(hex).has_value());
  EXPECT_EQ(*ParseHex(hex), digest);
  EXPECT_FALSE(ParseHex(""));
  EXPECT_FALSE(ParseHex(hex.substr(1)));
  EXPECT_FALSE(ParseHex(hex + "0"));
  EXPECT_FALSE(ParseHex("B" + hex.substr(1))) << "upper case";
  EXPECT_FALSE(ParseHex(hex.substr(1) + "g"));
}

}  // namespace
}  // namespace din
