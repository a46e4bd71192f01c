// A value for each code point in two stages: equal blocks are stored once.
//
// Immutable after construction.
//
//   CodePointTable<uint8_t> table([](char32_t c) { return ClassOf(c); });
//   uint8_t c = table[U'x'];
#ifndef SVDSERVE_ENGINE_TEXT_CODE_POINT_TABLE_H_
#define SVDSERVE_ENGINE_TEXT_CODE_POINT_TABLE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/text/unicode.h"

namespace svdserve {

template <typename Value>
class CodePointTable {
 public:
  CodePointTable() = default;
  template <typename ValueOf>
  explicit CodePointTable(ValueOf value_of) {
    std::array<Value, kBlockSize> block;
    uint32_t last = 0;
    for (uint32_t b = 0; b < blocks_.size(); ++b) {
      for (uint32_t i = 0; i < kBlockSize; ++i) {
        block[i] = value_of(static_cast<char32_t>(b * kBlockSize + i));
      }
      if (b == 0 ||
          !std::equal(block.begin(), block.end(), values_.begin() + last)) {
        last = static_cast<uint32_t>(values_.size());
        values_.insert(values_.end(), block.begin(), block.end());
      }
      blocks_[b] = last;
    }
  }

  Value operator[](char32_t c) const {
    return values_[blocks_[c / kBlockSize] + c % kBlockSize];
  }

 private:
  static constexpr uint32_t kBlockSize = 128;

  std::array<uint32_t, (unicode::kMaxCodePoint + 1) / kBlockSize> blocks_{};
  std::vector<Value> values_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_CODE_POINT_TABLE_H_
