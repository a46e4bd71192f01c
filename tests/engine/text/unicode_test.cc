#include "engine/text/unicode.h"

#include <gtest/gtest.h>

#include <string>

namespace svdserve::unicode {
namespace {

std::string Sanitized(std::string_view text) {
  std::string out;
  AppendSanitized(text, &out);
  return out;
}

TEST(UnicodeTest, ReplacesMaximalIllFormedSubparts) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(Sanitized("plain é 中 😀"), "plain é 中 😀");
  EXPECT_EQ(Sanitized("\xff"), r);
  EXPECT_EQ(Sanitized("\xc0\xaf"), r + r);                  // over-long
  EXPECT_EQ(Sanitized("\xe0\x80\xaf"), r + r + r);          // over-long
  EXPECT_EQ(Sanitized("\xed\xa0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(Sanitized("\xf4\x90\x80\x80"), r + r + r + r);  // > U+10FFFF
  EXPECT_EQ(Sanitized("\xe2\x82"), r);                      // cut short
  EXPECT_EQ(Sanitized("\xf0\x9f\x92z"), r + "z");
  EXPECT_EQ(Sanitized("\xf0\x9f\xe2\x82\xac"), r + "\u20ac");
}

TEST(UnicodeTest, FindsTheFirstMalformedByteAtAnyPosition) {
  for (size_t at = 0; at < 40; ++at) {
    std::string text(40, 'a');
    EXPECT_EQ(ValidPrefix(text), 40);
    text[at] = '\x80';
    EXPECT_EQ(ValidPrefix(text), at);
  }
}

TEST(UnicodeTest, EncodesAndDecodesEveryCodePoint) {
  for (char32_t c = 0; c <= kMaxCodePoint; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    char bytes[4];
    const uint32_t size = EncodeUtf8(c, bytes);
    ASSERT_EQ(ValidPrefix({bytes, size}), size);
    ASSERT_EQ(DecodeValid(bytes).c, c);
    ASSERT_EQ(DecodeValid(bytes).size, size);
    ASSERT_EQ(DecodeLastValid({bytes, size}).c, c);
  }
}

TEST(UnicodeTest, DecomposesHangulByArithmetic) {
  const CodePoints lv = Decompose(U'가'), lvt = Decompose(U'힣');
  EXPECT_EQ(std::u32string(lv.begin(), lv.end()), U"\u1100\u1161");
  EXPECT_EQ(std::u32string(lvt.begin(), lvt.end()), U"\u1112\u1175\u11c2");
}

TEST(UnicodeTest, CallsOnlyBlocksUniformThatAre) {
  constexpr char32_t kSize = 128;
  int uniform = 0;
  for (char32_t first = 0; first <= kMaxCodePoint; first += kSize) {
    if (!IsUniform(first, first + kSize - 1)) continue;
    ++uniform;
    for (char32_t c = first; c < first + kSize; ++c) {
      ASSERT_EQ(Properties(c), Properties(first));
      ASSERT_EQ(CombiningRank(c), 0);
      ASSERT_EQ(Decompose(c).data[0], c);
      ASSERT_EQ(Lowercase(c).data[0], c);
    }
  }
  EXPECT_GT(uniform, 7000);  // or building a CharMap would be slow
}

}  // namespace
}  // namespace svdserve::unicode
