// Where grapheme clusters end (UAX 29), as SentencePiece's normalizer in
// Hugging Face `tokenizers` needs them: it looks at clusters of less than six
// bytes as a whole. Two regional indicators have eight bytes, so they are not
// joined here; all else is the standard's.
//
//   GraphemeBreaker breaker(class_of_first);
//   if (breaker.Breaks(class_of_next)) ...  // a cluster ends between them
#ifndef SVDSERVE_ENGINE_TEXT_GRAPHEME_H_
#define SVDSERVE_ENGINE_TEXT_GRAPHEME_H_

#include "engine/text/unicode.h"

namespace svdserve {

class GraphemeBreaker {
 public:
  using Class = unicode::GraphemeClass;

  explicit GraphemeBreaker(Class first) { Start(first); }

  // Moves on to `next`; true if a cluster starts there.
  bool Breaks(Class next) {
    if (!IsBoundary(next)) {
      Continue(next);
      return false;
    }
    Start(next);
    return true;
  }

 private:
  // Of an emoji sequence, or of a conjunct.
  enum Chain { kNoChain, kStarted, kLinked };

  static bool IsControl(Class c) {
    return c == Class::kControl || c == Class::kCr || c == Class::kLf;
  }
  // Extend and ZWJ of the standard.
  static bool IsExtend(Class c) {
    return c == Class::kExtend || c == Class::kConjunctExtend ||
           c == Class::kLinker || c == Class::kZwj;
  }

  bool IsBoundary(Class next) const {
    if (last_ == Class::kCr && next == Class::kLf) return false;  // GB3
    if (IsControl(last_) || IsControl(next)) return true;         // GB4, 5
    if (IsHangulPair(next)) return false;                         // GB6, 7, 8
    if (IsExtend(next) || next == Class::kSpacingMark) return false;  // GB9, 9a
    if (last_ == Class::kPrepend) return false;                       // GB9b
    if (next == Class::kConsonant && conjunct_ == kLinked) return false;  // 9c
    return !(next == Class::kPictograph && emoji_ == kLinked);  // GB11
  }

  bool IsHangulPair(Class next) const {
    switch (last_) {
      case Class::kHangulL:
        return next == Class::kHangulL || next == Class::kHangulV ||
               next == Class::kHangulLv || next == Class::kHangulLvt;
      case Class::kHangulLv:
      case Class::kHangulV:
        return next == Class::kHangulV || next == Class::kHangulT;
      case Class::kHangulLvt:
      case Class::kHangulT:
        return next == Class::kHangulT;
      default:
        return false;
    }
  }

  void Start(Class c) {
    last_ = c;
    emoji_ = c == Class::kPictograph ? kStarted : kNoChain;
    conjunct_ = c == Class::kConsonant ? kStarted : kNoChain;
  }

  void Continue(Class c) {
    if (c == Class::kPictograph || c == Class::kConsonant) {
      Start(c);
      return;
    }
    last_ = c;
    if (emoji_ != kNoChain) {
      // Extend* and one ZWJ, after which only a pictograph may follow.
      if (c == Class::kZwj && emoji_ == kStarted) {
        emoji_ = kLinked;
      } else if (!IsExtend(c) || emoji_ == kLinked) {
        emoji_ = kNoChain;
      }
    }
    if (conjunct_ != kNoChain) {
      if (c == Class::kLinker) {
        conjunct_ = kLinked;
      } else if (c != Class::kConjunctExtend && c != Class::kZwj) {
        conjunct_ = kNoChain;
      }
    }
  }

  Class last_ = Class::kOther;
  Chain emoji_ = kNoChain;
  Chain conjunct_ = kNoChain;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_GRAPHEME_H_
