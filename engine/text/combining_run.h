// Canonical ordering of a run of combining characters, with the source of each.
//
// BERT's accent stripping first decomposes and orders (NFD), then drops marks.
// What is left of a run, which is rare, takes the offsets that Hugging Face
// `tokenizers` gives it: the n-th first-of-a-decomposition of the ordered run
// belongs to the n-th code point of the run. Linear time.
//
//   run.Clear();
//   run.Add(U'\u1B44', 7);  // code point and its index in the text
//   for (const CombiningRun::Item& item : run.Order()) ...
#ifndef SVDSERVE_ENGINE_TEXT_COMBINING_RUN_H_
#define SVDSERVE_ENGINE_TEXT_COMBINING_RUN_H_

#include <cstdint>
#include <vector>

namespace svdserve {

class CombiningRun {
 public:
  struct Item {
    char32_t c;
    uint8_t rank;  // of the combining class
    bool first;    // of its code point's decomposition
    bool mark;     // to be dropped
    uint32_t source;
  };

  void Clear();
  void Add(char32_t c, uint32_t source);
  // Sorts, and sets every item's source.
  const std::vector<Item>& Order();

 private:
  std::vector<Item> items_;
  std::vector<Item> sorted_;
  std::vector<uint32_t> sources_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_COMBINING_RUN_H_
