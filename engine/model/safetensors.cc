#include "engine/model/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/strict_json.h"

namespace svdserve {
namespace {

using nlohmann::json;

absl::Status Damaged(const std::string& path, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", std::string(what)));
}

absl::Status Damaged(const std::string& path, const std::string& tensor,
                     std::string_view what) {
  return Damaged(path,
                 absl::StrCat("tensor \"", tensor, "\": ", std::string(what)));
}

// Bytes of one element; 0 for a dtype that is not known.
int ElementBytes(const std::string& dtype) {
  static constexpr std::pair<std::string_view, int> kTable[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8},
  };
  for (const auto& [name, bytes] : kTable) {
    if (name == dtype) return bytes;
  }
  return 0;
}

// A JSON array of non-negative integers that fit int64_t.
std::optional<std::vector<int64_t>> Integers(const json& array) {
  if (!array.is_array()) return std::nullopt;
  std::vector<int64_t> values;
  for (const json& item : array) {
    if (!item.is_number_unsigned()) return std::nullopt;
    const uint64_t value = item.get<uint64_t>();
    if (value > INT64_MAX) return std::nullopt;
    values.push_back(static_cast<int64_t>(value));
  }
  return values;
}

// Product of shape and element size; nullopt if it overflows.
std::optional<uint64_t> ByteSize(const std::vector<int64_t>& shape,
                                 int element_bytes) {
  uint64_t size = element_bytes;
  for (const int64_t extent : shape) {
    if (__builtin_mul_overflow(size, static_cast<uint64_t>(extent), &size)) {
      return std::nullopt;
    }
  }
  return size;
}

absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& path,
                                            const std::string& name,
                                            const json& item,
                                            uint64_t data_bytes) {
  if (!item.is_object() || item.size() != 3 || !item.contains("dtype") ||
      !item.contains("shape") || !item.contains("data_offsets")) {
    return Damaged(path, name,
                   "its header entry must hold dtype, shape and data_offsets");
  }
  SafetensorsEntry entry;
  if (!item["dtype"].is_string()) {
    return Damaged(path, name, "dtype is not a string");
  }
  entry.dtype = item["dtype"].get<std::string>();
  const int element_bytes = ElementBytes(entry.dtype);
  if (element_bytes == 0) {
    return Damaged(path, name,
                   absl::StrCat("dtype \"", entry.dtype, "\" is not known"));
  }
  auto shape = Integers(item["shape"]);
  if (!shape.has_value()) {
    return Damaged(path, name, "shape is not a list of sizes");
  }
  entry.shape = *std::move(shape);
  const auto offsets = Integers(item["data_offsets"]);
  if (!offsets.has_value() || offsets->size() != 2) {
    return Damaged(path, name, "data_offsets is not a pair of offsets");
  }
  entry.begin = (*offsets)[0];
  entry.end = (*offsets)[1];
  if (entry.begin > entry.end || entry.end > data_bytes) {
    return Damaged(path, name,
                   absl::StrCat("data_offsets [", entry.begin, ", ", entry.end,
                                "] do not lie within the ", data_bytes,
                                " bytes of data that the file holds"));
  }
  const auto bytes = ByteSize(entry.shape, element_bytes);
  if (bytes != entry.end - entry.begin) {
    return Damaged(
        path, name,
        absl::StrCat("data_offsets [", entry.begin, ", ", entry.end,
                     "] do not have the size that shape and dtype need"));
  }
  return entry;
}

// Every byte of data belongs to exactly one tensor.
absl::Status CheckCoverage(const std::string& path,
                           const std::map<std::string, SafetensorsEntry>& all,
                           uint64_t data_bytes) {
  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> order;
  order.reserve(all.size());
  for (const auto& [name, entry] : all) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) <
           std::pair(b.second->begin, b.second->end);
  });
  uint64_t covered = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin < covered) {
      return Damaged(path, *name, "its bytes overlap another tensor's");
    }
    if (entry->begin > covered) {
      return Damaged(path, *name,
                     absl::StrCat("the ", entry->begin - covered,
                                  " bytes before it belong to no tensor"));
    }
    covered = entry->end;
  }
  if (covered == data_bytes) return absl::OkStatus();
  return Damaged(path, absl::StrCat("the last ", data_bytes - covered,
                                    " bytes belong to no tensor"));
}

absl::StatusOr<SafetensorsMetadata> ParseMetadata(const std::string& path,
                                                  const json& item) {
  SafetensorsMetadata metadata;
  if (!item.is_object()) return Damaged(path, "__metadata__ is not an object");
  for (const auto& [key, value] : item.items()) {
    if (!value.is_string()) {
      return Damaged(path,
                     absl::StrCat("__metadata__.", key, " is not a string"));
    }
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

}  // namespace

class SafetensorsFile::Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(fd_); }

  // False if the file ends before `size` bytes or cannot be read.
  bool ReadAt(uint64_t offset, uint64_t size, void* out) const {
    char* cursor = static_cast<char*>(out);
    while (size > 0) {
      const ssize_t got = pread(fd_, cursor, size, offset);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      cursor += got;
      offset += got;
      size -= got;
    }
    return true;
  }

  // Size of a regular file.
  std::optional<uint64_t> FileSize() const {
    struct stat info = {};
    if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
    return info.st_size;
  }

 private:
  const int fd_;
};

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  // O_NONBLOCK: a FIFO in a file's place must not hang the start.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string reason = std::strerror(errno);  // NOLINT(concurrency-*)
    return errno == ENOENT
               ? absl::NotFoundError(absl::StrCat(path, ": no such file"))
               : Damaged(path, absl::StrCat("cannot be opened: ", reason));
  }
  SafetensorsFile file;
  file.path_ = path;
  file.descriptor_ = std::make_shared<const Descriptor>(fd);
  const std::optional<uint64_t> size = file.descriptor_->FileSize();
  if (!size.has_value()) return Damaged(path, "not a regular file");

  unsigned char length[8];
  if (*size < 8 || !file.descriptor_->ReadAt(0, 8, length)) {
    return Damaged(path, "too short for a safetensors file");
  }
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | length[i];
  if (header_bytes > *size - 8) {
    return Damaged(path, absl::StrCat("claims a header of ", header_bytes,
                                      " bytes, but ", *size - 8, " follow"));
  }
  if (header_bytes > kMaxSafetensorsHeader) {
    return Damaged(path, absl::StrCat("its header of ", header_bytes,
                                      " bytes is longer than the allowed ",
                                      kMaxSafetensorsHeader));
  }
  std::string header(header_bytes, '\0');
  if (!file.descriptor_->ReadAt(8, header_bytes, header.data())) {
    return Damaged(path, "cannot be read");
  }
  file.data_offset_ = 8 + header_bytes;
  const uint64_t data_bytes = *size - file.data_offset_;

  absl::StatusOr<json> parsed = ParseStrictJson(header, path + ": header");
  if (!parsed.ok()) return parsed.status();
  if (!parsed->is_object()) return Damaged(path, "header is not an object");
  for (const auto& [name, item] : parsed->items()) {
    if (name == "__metadata__") {
      absl::StatusOr<SafetensorsMetadata> metadata = ParseMetadata(path, item);
      if (!metadata.ok()) return metadata.status();
      file.metadata_ = *std::move(metadata);
      continue;
    }
    absl::StatusOr<SafetensorsEntry> entry =
        ParseEntry(path, name, item, data_bytes);
    if (!entry.ok()) return entry.status();
    file.entries_.emplace(name, *std::move(entry));
  }
  absl::Status covered = CheckCoverage(path, file.entries_, data_bytes);
  if (!covered.ok()) return covered;
  return file;
}

absl::StatusOr<RawTensor> SafetensorsFile::Read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor \"", name, "\""));
  }
  const SafetensorsEntry& entry = found->second;
  RawTensor tensor{.dtype = entry.dtype,
                   .shape = entry.shape,
                   .bytes = nullptr,
                   .byte_size = entry.end - entry.begin};
  // The size is at most that of the file, see Open().
  std::shared_ptr<std::byte[]> bytes(new (std::nothrow)
                                         std::byte[tensor.byte_size]);
  if (bytes == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, ": tensor \"", name, "\": no memory for its ",
                     tensor.byte_size, " bytes"));
  }
  if (!descriptor_->ReadAt(data_offset_ + entry.begin, tensor.byte_size,
                           bytes.get())) {
    return Damaged(path_, name, "cannot be read: the file changed or failed");
  }
  tensor.bytes = std::move(bytes);
  return tensor;
}

RawTensor ToRawTensor(const Tensor& tensor) {
  return {.dtype = DTypeName(tensor.dtype()),
          .shape = tensor.shape(),
          .bytes = tensor.bytes(),
          .byte_size = tensor.byte_size()};
}

absl::StatusOr<Tensor> ToTensor(const RawTensor& raw) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (raw.dtype == DTypeName(dtype)) {
      return Tensor(dtype, raw.shape, raw.bytes);
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype is ", raw.dtype, ", expected F32, F16 or BF16"));
}

}  // namespace svdserve
