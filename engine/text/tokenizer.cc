#include "engine/text/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer_base.h"
#include "engine/text/tokenizer_files.h"

namespace svdserve {

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(
    const std::string& directory) {
  absl::StatusOr<TokenizerSpec> spec = ReadTokenizerFiles(directory);
  if (!spec.ok()) return spec.status();
  auto tokenizer = CreateTokenizer(*std::move(spec));
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat("tokenizer of ", directory, ": ",
                                   tokenizer.status().message()));
}

}  // namespace svdserve
