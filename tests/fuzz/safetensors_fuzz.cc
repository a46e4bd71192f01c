// Any bytes as a safetensors file: opened and read whole, or refused.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "engine/model/safetensors.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

// What Open() promises of each entry.
void ReadAll(const svdserve::SafetensorsFile& file, size_t file_size) {
  size_t total = 0;
  for (const auto& [name, entry] : file.entries()) {
    const absl::StatusOr<svdserve::RawTensor> raw = file.Read(name);
    Require(raw.ok());
    Require(raw->byte_size == entry.end - entry.begin);
    total += raw->byte_size;
    const absl::StatusOr<svdserve::Tensor> tensor = svdserve::ToTensor(*raw);
    if (!tensor.ok()) continue;
    Require(tensor->byte_size() == raw->byte_size);
    Require(tensor->ToF32().size() == tensor->size());
  }
  Require(total <= file_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = memfd_create("fuzz", MFD_CLOEXEC);
  Require(fd >= 0);
  Require(write(fd, data, size) == static_cast<ssize_t>(size));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const absl::StatusOr<svdserve::SafetensorsFile> file =
      svdserve::SafetensorsFile::Open(path);
  if (file.ok()) {
    ReadAll(*file, size);
  } else {
    Require(file.status().message().find(path) != std::string::npos);
  }
  close(fd);
  return 0;
}
