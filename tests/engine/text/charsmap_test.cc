#include "engine/text/charsmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/text/grapheme.h"
#include "tests/engine/text/tiny_subwords.h"

namespace svdserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

NormalizedText Normalize(const std::map<std::string, std::string>& map,
                         std::string_view text) {
  const auto charsmap = Charsmap::Build(MakeCharsmap(map));
  EXPECT_TRUE(charsmap.ok()) << charsmap.status();
  NormalizedText out, without_sources;
  charsmap->Normalize<true>(text, 0, nullptr, &out);
  charsmap->Normalize<false>(text, 0, nullptr, &without_sources);
  EXPECT_EQ(out.text, without_sources.text);
  return out;
}

TEST(CharsmapTest, ReplacesCharactersAndKeepsTheRest) {
  const NormalizedText out = Normalize({{"Ⅳ", "IV"}, {"b", "B"}}, "abⅣ中x");
  EXPECT_EQ(out.text, "aBIV中x");
  EXPECT_THAT(out.sources, ElementsAre(0, 1, 2, 2, 3, 4));
}

TEST(CharsmapTest, ReplacesAShortClusterByItsShortestKey) {
  EXPECT_EQ(Normalize({{"e\u0301", "é"}}, "xe\u0301x").text, "xéx");
  EXPECT_EQ(Normalize({{"ﬁ", "fi"}}, "ﬁ\u0301").text, "fi");  // no accent
  EXPECT_EQ(Normalize({{"e", "E"}, {"e\u0301", "é"}}, "e\u0301").text, "E");
}

TEST(CharsmapTest, LooksAtALongClusterByCharacters) {
  EXPECT_EQ(Normalize({{"e", "E"}}, "e\u0301\u0301").text, "E");  // five bytes
  EXPECT_EQ(Normalize({{"e", "E"}}, "e\u0301\u0301\u0301").text,
            "E\u0301\u0301\u0301");
}

TEST(CharsmapTest, CountsARemovalToTheCharacterBefore) {
  const NormalizedText inside = Normalize({{"-", ""}}, "a-b");
  EXPECT_EQ(inside.text, "ab");
  EXPECT_THAT(inside.sources, ElementsAre(0, 2));
  // At the beginning there is none: the sources stay one behind.
  EXPECT_THAT(Normalize({{"-", ""}}, "-ab").sources, ElementsAre(0, 1));
  // After an insertion it is a replacement.
  EXPECT_THAT(Normalize({{"-", ""}, {"™", "TM"}}, "™-g").sources,
              ElementsAre(0, 1, 2));
}

TEST(CharsmapTest, NamesWhatIsDamaged) {
  const auto error = [](std::string_view blob) {
    return std::string(Charsmap::Build(blob).status().message());
  };
  EXPECT_THAT(error("abc"), HasSubstr("has 3 bytes"));
  const std::string blob = MakeCharsmap({{"a", "b"}});
  EXPECT_THAT(error(blob.substr(0, 100)), HasSubstr("announces a trie of"));
  EXPECT_THAT(error(blob + "\xff"), HasSubstr("not UTF-8"));
}

TEST(CharsmapTest, SurvivesAnArrayThatLeadsAnywhere) {
  const std::string blob = MakeCharsmap({{"ab", "x"}, {"é", "e"}});
  int changed = 0;
  for (size_t i = 4; i < blob.size(); ++i) {
    if (blob[i] == '\0') continue;  // a unit that nothing leads to, mostly
    std::string damaged = blob;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x5A);
    const auto map = Charsmap::Build(damaged);
    if (!map.ok()) continue;
    NormalizedText out;
    map->Normalize<true>("abé a\u0301", 0, nullptr, &out);
    EXPECT_LE(out.sources.size(), out.text.size());
    ++changed;
  }
  EXPECT_GT(changed, 5);
}

// Sizes of the clusters, in code points.
std::vector<int> Clusters(std::u32string_view text) {
  std::vector<int> sizes = {1};
  GraphemeBreaker breaker(unicode::GraphemeClassOf(text[0]));
  for (const char32_t c : text.substr(1)) {
    if (breaker.Breaks(unicode::GraphemeClassOf(c))) {
      sizes.push_back(1);
    } else {
      ++sizes.back();
    }
  }
  return sizes;
}

TEST(GraphemeTest, FollowsTheRulesOfTheStandard) {
  EXPECT_THAT(Clusters(U"ae\u0301b"), ElementsAre(1, 2, 1));
  EXPECT_THAT(Clusters(U"\r\n\n\u0301"), ElementsAre(2, 1, 1));
  EXPECT_THAT(Clusters(U"\U0001d177\u0343\u030d"), ElementsAre(1, 2));
  EXPECT_THAT(Clusters(U"\u1100\u1161\u11a8\u1100각\u11a8"),
              ElementsAre(3, 1 + 2));
  EXPECT_THAT(Clusters(U"\u0600a\u0903"), ElementsAre(3));
  EXPECT_THAT(Clusters(U"😀\u0301\u200d😀\u200d😀"), ElementsAre(6));
  EXPECT_THAT(Clusters(U"a\u200d😀"), ElementsAre(2, 1));
  EXPECT_THAT(Clusters(U"😀\u200d\u200d😀"), ElementsAre(3, 1));
  EXPECT_THAT(Clusters(U"\u0915\u094d\u200d\u0915\u0915"), ElementsAre(4, 1));
  EXPECT_THAT(Clusters(U"\u0915\u0301\u0915"), ElementsAre(2, 1));
}

}  // namespace
}  // namespace svdserve
