#include "engine/text/double_array.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace svdserve {
namespace {

std::string RandomString(std::mt19937* random, int letters) {
  std::string out(1 + (*random)() % 9, '\0');
  for (char& c : out) c = static_cast<char>((*random)() % letters);
  return out;
}

TEST(ByteTrieTest, AgreesWithAMap) {
  std::mt19937 random(5);
  for (const int letters : {2, 20, 256}) {
    std::map<std::string, uint32_t> map;
    for (uint32_t i = 0; i < 3000; ++i) map[RandomString(&random, letters)] = i;
    std::vector<ByteTrie::Key> keys;
    for (const auto& [text, value] : map) keys.push_back({text, value});
    const ByteTrie trie = ByteTrie::Build(keys);
    for (const auto& [text, value] : map) EXPECT_EQ(trie.Find(text), value);
    for (int i = 0; i < 3000; ++i) {
      const std::string text = RandomString(&random, letters);
      const auto it = map.find(text);
      EXPECT_EQ(trie.Find(text),
                it == map.end() ? ByteTrie::kNone : it->second);
    }
  }
}

TEST(ByteTrieTest, LeavesEmptyKeysOutAndTakesTheLastOfEqualOnes) {
  const ByteTrie trie = ByteTrie::Build({{"", 1}, {"a", 2}, {"a", 3}});
  EXPECT_EQ(trie.Find(""), ByteTrie::kNone);
  EXPECT_EQ(trie.Find("a"), 3);
  EXPECT_EQ(ByteTrie::Build({}).Find("a"), ByteTrie::kNone);
}

}  // namespace
}  // namespace svdserve
