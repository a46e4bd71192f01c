// The safetensors file format: eight bytes of header length, a JSON header,
// then the tensors' bytes back to back.
//
// SafetensorsFile is an open file whose header was read and verified: every
// entry has a known dtype, a size that its shape and dtype explain, and a range
// of its own; together they cover the file to the last byte. Tensors are read
// on demand with pread() into fresh memory, so a file that is truncated later
// gives an error, not a fault. Immutable after Open(); thread-safe.
//
//   auto file = SafetensorsFile::Open("model.safetensors");
//   absl::StatusOr<RawTensor> tensor = file->Read("pooler.dense.weight");
#ifndef SVDSERVE_ENGINE_MODEL_SAFETENSORS_H_
#define SVDSERVE_ENGINE_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/tensor.h"

namespace svdserve {

// A header longer than this is refused. The largest BERT needs some 60 KB.
inline constexpr uint64_t kMaxSafetensorsHeader = 8 << 20;

struct SafetensorsEntry {
  std::string dtype;  // "F32", "BF16", "I64", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes, from the end of the header
  uint64_t end = 0;
};

// The bytes of one tensor of any dtype, little-endian as in the file.
struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::shared_ptr<const std::byte[]> bytes;
  uint64_t byte_size = 0;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

class SafetensorsFile {
 public:
  // NOT_FOUND if there is no such file, INVALID_ARGUMENT if it is damaged.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  // The header's optional `__metadata__`.
  const SafetensorsMetadata& metadata() const { return metadata_; }
  const std::map<std::string, SafetensorsEntry>& entries() const {
    return entries_;
  }

  absl::StatusOr<RawTensor> Read(const std::string& name) const;

 private:
  class Descriptor;  // closes itself

  std::string path_;
  std::shared_ptr<const Descriptor> descriptor_;
  uint64_t data_offset_ = 0;  // of the first tensor's byte in the file
  SafetensorsMetadata metadata_;
  std::map<std::string, SafetensorsEntry> entries_;
};

// Writes a file that SafetensorsFile reads: under a temporary name beside
// `path`, then fsync() and rename(), so that `path` is never half a file.
absl::Status WriteSafetensors(const std::string& path,
                              const std::map<std::string, RawTensor>& tensors,
                              const SafetensorsMetadata& metadata);

RawTensor ToRawTensor(const Tensor& tensor);
// F32, F16 and BF16 only; the caller's error names the tensor.
absl::StatusOr<Tensor> ToTensor(const RawTensor& raw);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_SAFETENSORS_H_
