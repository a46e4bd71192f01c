// XLM-R's normalizer: SentencePiece's map, stripping and replacing, in order.
//
// Immutable after Build and thread-safe.
//
//   absl::StatusOr<TextNormalizer> normalizer = TextNormalizer::Build(steps);
//   NormalizedText text, other;
//   normalizer->Normalize("ﬁne  x", 0, false, &text, &other);  // "fine x"
#ifndef SVDSERVE_ENGINE_TEXT_TEXT_NORMALIZER_H_
#define SVDSERVE_ENGINE_TEXT_TEXT_NORMALIZER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/charsmap.h"
#include "engine/text/text_scratch.h"
#include "engine/text/tokenizer_spec.h"

namespace svdserve {

class TextNormalizer {
 public:
  TextNormalizer() = default;
  static absl::StatusOr<TextNormalizer> Build(
      const std::vector<NormalizerStep>& steps);

  // Fills *out; *other is memory to work in. `text` is well-formed UTF-8 whose
  // first code point has index `position`.
  void Normalize(std::string_view text, uint32_t position, bool with_sources,
                 NormalizedText* out, NormalizedText* other) const;

 private:
  struct Step {
    NormalizerStep options;
    Charsmap map;  // of kCharsmap
  };
  static void Copy(std::string_view text, uint32_t position, bool with_sources,
                   NormalizedText* out);
  static void Strip(const NormalizerStep& step, NormalizedText* text);
  // True if *out now holds the text with something replaced.
  static bool Replace(const NormalizerStep& step, const NormalizedText& text,
                      NormalizedText* out);

  std::vector<Step> steps_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TEXT_NORMALIZER_H_
