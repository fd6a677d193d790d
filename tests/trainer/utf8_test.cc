#include "trainer/utf8.h"

#include "gtest/gtest.h"

namespace din {
namespace {

using namespace std::string_view_literals;

TEST(Utf8Test, EveryCodePointButSurrogatesIsValidAndNothingOfItsBytesAlone) {
  for (const uint32_t c :
       {0x0u, 0x7Fu, 0x80u, 0xE9u, 0x7FFu, 0x800u, 0x20ACu, 0xD7FFu, 0xE000u, 0xFFFFu, 0x10000u, 0x1F600u, 0x10FFFFu}) {
    std::string text;
    AppendUtf8(c, text);
    EXPECT_TRUE(IsUtf8(text)) << c;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      EXPECT_FALSE(IsUtf8(text.substr(0, cut))) << c;
      EXPECT_FALSE(IsUtf8(text.substr(cut))) << c;
    }
  }
  std::string euro;
  AppendUtf8(0x20AC, euro);
  EXPECT_EQ(euro, "\u20ac");
}

TEST(Utf8Test, OverlongFormsSurrogatesAndWhatIsBeyondTheLastAreNot) {
  for (const std::string_view text :
       {"\xC0\x80"sv, "\xC1\xBF"sv, "\xE0\x9F\xBF"sv, "\xED\xA0\x80"sv, "\xF0\x8F\xBF\xBF"sv, "\xF4\x90\x80\x80"sv,
        "\xF5\x80\x80\x80"sv, "\xFF"sv, "Mis\xE9rables"sv}) {
    EXPECT_FALSE(IsUtf8(text));
  }
}

TEST(Utf8Test, EveryByteOfLatin1IsItsCodePoint) {
  EXPECT_EQ(Utf8FromLatin1("Mis\xe9rables \xff"), "Mis\u00e9rables \u00ff");
}

}  // namespace
}  // namespace din
