// Encode allocates nothing once its memory has grown to what texts need.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>

#include "tests/engine/text/tiny_subwords.h"
#include "tests/engine/text/tiny_tokenizer.h"

namespace {
std::atomic<int> allocations{0};
}  // namespace

// Not inlined, or else g++ takes them for a mismatched pair.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size)) return p;
  std::abort();
}
// std::stable_sort asks for its buffer in this way.
[[gnu::noinline]] void* operator new(size_t size,
                                     const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace svdserve {
namespace {

// Encodes a text three times, the second and third without allocations.
void ExpectNoAllocations(TokenizerSpec spec, const std::string& text) {
  spec.added_tokens.push_back({.content = "New York", .normalized = true});
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EncodeOptions options;
  options.with_offsets = true;
  options.truncate = true;
  options.max_tokens = 64;
  Encoding encoding;
  for (int round = 0; round < 3; ++round) {
    const int before = allocations;
    const absl::Status status =
        tokenizer->Encode(text, text, options, &encoding);
    const int after = allocations;
    ASSERT_TRUE(status.ok());
    if (round == 0) {
      EXPECT_GT(after, before);  // the count counts
    } else {
      EXPECT_EQ(after, before);
    }
  }
}

TEST(EncodeAllocationTest, WordPieceAllocatesNothingInTheSteadyState) {
  ExpectNoAllocations(
      TinySpec({"a", "##b", "new"}),
      "ab zz NEW YORK é 中 e\u0301\u1b44\u0301 bad \xff [MASK] ab ab ab");
}

TEST(EncodeAllocationTest, BpeAllocatesNothingInTheSteadyState) {
  TokenizerSpec spec = BpeSpec({{"a", "b"}});
  spec.bpe.add_prefix_space = spec.bpe.trim_offsets = true;
  ExpectNoAllocations(std::move(spec), "ab New York 中 bad \xff don't " +
                                           std::string(90, 'a') + " ab");
}

TEST(EncodeAllocationTest, UnigramAllocatesNothingInTheSteadyState) {
  TokenizerSpec spec = UnigramSpec({{"▁", -1}, {"a", -1}, {"▁b", -2}});
  spec.unigram.normalizer = {
      {.kind = NormalizerStep::kCharsmap,
       .content = MakeCharsmap({{"Ⅳ", "a"}, {"e", "bbb"}})},
      {.kind = NormalizerStep::kReplaceSpaces, .content = " "},
      {.kind = NormalizerStep::kStrip, .left = true, .right = true}};
  ExpectNoAllocations(std::move(spec), "  aⅣe New York  中 bad \xff e\u0301 " +
                                           std::string(90, 'a') + " b ");
}

}  // namespace
}  // namespace svdserve
