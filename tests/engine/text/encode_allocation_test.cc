// Encode allocates nothing once its memory has grown to what texts need.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

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

TEST(EncodeAllocationTest, AllocatesNothingInTheSteadyState) {
  TokenizerSpec spec = TinySpec({"a", "##b", "new"});
  spec.added_tokens.push_back({.content = "New York", .normalized = true});
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EncodeOptions options;
  options.with_offsets = true;
  options.truncate = true;
  options.max_tokens = 64;
  Encoding encoding;
  const std::string text =
      "ab zz NEW YORK é 中 e\u0301\u1b44\u0301 bad \xff [MASK] ab ab ab";
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

}  // namespace
}  // namespace svdserve
