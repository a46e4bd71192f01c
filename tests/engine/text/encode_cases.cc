// Encodes cases from standard input with our tokenizer, for
// compare_with_hf.py. All numbers are little-endian uint32.
//
//   encode_cases DIRECTORY <cases >results
//
// A case: flags, max_tokens, size of text, size of pair, text, pair.
// A result: number of tokens, then id, type id, begin and end of each; or
// UINT32_MAX, the size of an error message and the message.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/text/tokenizer.h"

namespace svdserve {
namespace {

constexpr uint32_t kSpecial = 1, kTruncate = 2, kLeft = 4, kPair = 8;

class CaseReader {
 public:
  explicit CaseReader(std::string_view data) : data_(data) {}
  bool empty() const { return data_.empty(); }
  std::string_view Bytes(size_t size) {
    const std::string_view out = data_.substr(0, size);
    data_.remove_prefix(out.size());
    return out;
  }
  uint32_t Number() {
    uint32_t out = 0;
    int shift = 0;
    for (const char byte : Bytes(4)) {
      out |= static_cast<uint32_t>(static_cast<uint8_t>(byte)) << shift;
      shift += 8;
    }
    return out;
  }

 private:
  std::string_view data_;
};

void Write(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

void WriteResult(const absl::Status& status, const Encoding& encoding,
                 std::string* out) {
  if (!status.ok()) {
    Write(UINT32_MAX, out);
    Write(static_cast<uint32_t>(status.message().size()), out);
    out->append(status.message().data(), status.message().size());
    return;
  }
  Write(static_cast<uint32_t>(encoding.ids.size()), out);
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    Write(static_cast<uint32_t>(encoding.ids[i]), out);
    Write(encoding.type_ids[i], out);
    Write(encoding.offsets[i].begin, out);
    Write(encoding.offsets[i].end, out);
  }
}

int Run(const std::string& directory) {
  auto tokenizer = Tokenizer::Load(directory);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
  CaseReader reader(input);
  std::string out;
  Encoding encoding, without_offsets;
  while (!reader.empty()) {
    const uint32_t flags = reader.Number();
    EncodeOptions options;
    options.add_special_tokens = flags & kSpecial;
    options.truncate = flags & kTruncate;
    options.side =
        flags & kLeft ? TruncationSide::kLeft : TruncationSide::kRight;
    options.max_tokens = static_cast<int>(reader.Number());
    const uint32_t text_size = reader.Number(), pair_size = reader.Number();
    const std::string_view text = reader.Bytes(text_size);
    std::optional<std::string_view> pair;
    if (flags & kPair) pair = reader.Bytes(pair_size);
    absl::Status status =
        (*tokenizer)->Encode(text, pair, options, &without_offsets);
    options.with_offsets = true;
    status = (*tokenizer)->Encode(text, pair, options, &encoding);
    if (encoding.ids != without_offsets.ids) {
      std::cerr << "offsets change the ids of: " << text << "\n";
      return 1;
    }
    WriteResult(status, encoding, &out);
  }
  std::fwrite(out.data(), 1, out.size(), stdout);
  return 0;
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: encode_cases DIRECTORY <cases >results\n";
    return 2;
  }
  return svdserve::Run(argv[1]);
}
