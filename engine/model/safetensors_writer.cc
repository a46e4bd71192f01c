#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/model/safetensors.h"
#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

absl::Status WriteError(const std::string& path, const char* action) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", action));
}

// The length and the header, padded with blanks so that data is aligned.
std::string Header(const std::map<std::string, RawTensor>& tensors,
                   const SafetensorsMetadata& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {offset, offset + tensor.byte_size}}};
    offset += tensor.byte_size;
  }
  std::string text =
      header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 63) / 64 * 64 - 8 + 64, ' ');
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(text.size() >> (8 * i)));
  }
  return bytes + text;
}

bool WriteAll(int fd, const void* data, uint64_t size) {
  const char* cursor = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = write(fd, cursor, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    cursor += written;
    size -= written;
  }
  return true;
}

absl::Status WriteAndSync(const std::string& path, const std::string& header,
                          const std::map<std::string, RawTensor>& tensors) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                      S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH);
  if (fd < 0) return WriteError(path, "be created");
  bool ok = WriteAll(fd, header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    ok = ok && WriteAll(fd, tensor.bytes.get(), tensor.byte_size);
  }
  ok = ok && fsync(fd) == 0;
  absl::Status status = ok ? absl::OkStatus() : WriteError(path, "be written");
  close(fd);
  return status;
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path,
                              const std::map<std::string, RawTensor>& tensors,
                              const SafetensorsMetadata& metadata) {
  const std::string temporary = absl::StrCat(path, ".tmp", getpid());
  absl::Status status =
      WriteAndSync(temporary, Header(tensors, metadata), tensors);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = WriteError(path, "be renamed to");
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  // The directory too, or a crash could lose the name.
  const std::string parent =
      std::filesystem::absolute(path).parent_path().string();
  const int directory = open(parent.c_str(), O_RDONLY | O_CLOEXEC);
  if (directory < 0) return WriteError(parent, "be opened");
  const bool synced = fsync(directory) == 0;
  close(directory);
  return synced ? absl::OkStatus() : WriteError(parent, "be synced");
}

}  // namespace svdserve
