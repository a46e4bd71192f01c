#include "engine/text/byte_level_split.h"

namespace svdserve {

ByteLevelSplit::ByteLevelSplit()
    : classes_([](char32_t c) -> uint8_t {
        const uint16_t properties = unicode::Properties(c);
        if (properties & unicode::kLetter) return kLetter;
        if (properties & unicode::kNumber) return kNumber;
        return properties & unicode::kWhitespace ? kSpace : kOther;
      }) {
  ascii_.fill(kNotAscii);
  for (uint8_t c = 0; c < 0x80; ++c) {
    ascii_[c] = static_cast<Class>(classes_[c]);
  }
}

}  // namespace svdserve
