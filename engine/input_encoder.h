// From what a caller sends to token ids that the model can run.
//
// Immutable and thread-safe; what it is built from must outlive it.
//
//   if (absl::Status s = encoder.Check(input, options); !s.ok()) refuse(s);
//   absl::Status s = encoder.Encode(input, options, &scratch, &encoding);
#ifndef SVDSERVE_ENGINE_INPUT_ENCODER_H_
#define SVDSERVE_ENGINE_INPUT_ENCODER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

class InputEncoder {
 public:
  // Texts that may be truncated are cut to `longest_input` tokens.
  InputEncoder(const Tokenizer* tokenizer, const ModelConfig* config,
               const ModelShape* shape, int type_vocab, int longest_input);

  // What can be told without tokenizing: INVALID_ARGUMENT for an empty input,
  // an id outside the vocabulary, an unknown prompt, more dimensions than there
  // are.
  absl::Status Check(const Input& input, const InputOptions& options) const;

  // Bytes that a text input holds while it waits for tokenization.
  static uint64_t TextBytes(const Input& input);

  // Tokenizes a text input that passed Check(). `scratch` is kept by the caller
  // so that it allocates nothing in the steady state. The result may be too
  // long if truncation was not asked for.
  absl::Status Encode(const Input& input, const InputOptions& options,
                      std::string* scratch, Encoding* out) const;

 private:
  absl::Status CheckIds(const Input& input) const;
  const std::string* PromptOf(const Input& input,
                              const InputOptions& options) const;

  const Tokenizer* const tokenizer_;
  const ModelConfig* const config_;
  const ModelShape* const shape_;
  const int type_vocab_;
  const int longest_input_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_INPUT_ENCODER_H_
