// Requests of the API -> work for the engine.
//
// What is wrong with a request as a whole (its task, counts, options) is an
// error of Read(); what is wrong with one input is an error in its place.
//
// Immutable; thread-safe. `engine` must outlive it.
#ifndef SVDSERVE_SERVER_REQUEST_H_
#define SVDSERVE_SERVER_REQUEST_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "svdserve/v1/svdserve.pb.h"

namespace svdserve {

struct RequestLimits {
  uint64_t max_request_bytes = 0;
  int max_inputs = 0;
};

struct Work {
  std::vector<absl::StatusOr<Input>> inputs;  // at least one
  InputOptions options;
};

class RequestReader {
 public:
  RequestReader(const Engine& engine, RequestLimits limits)
      : config_(engine.model_config()),
        shape_(engine.model_shape()),
        limits_(limits) {}

  absl::StatusOr<Work> Read(const v1::EmbedRequest& request) const;
  absl::StatusOr<Work> Read(const v1::ClassifyRequest& request) const;
  absl::StatusOr<Work> Read(const v1::RerankRequest& request) const;
  absl::StatusOr<Work> Read(const v1::EstimateRequest& request) const;

  const RequestLimits& limits() const { return limits_; }

 private:
  absl::Status CheckSize(const google::protobuf::Message& request, int inputs,
                         const char* field) const;
  absl::Status CheckTask(Task wanted) const;
  absl::StatusOr<InputOptions> ReadOptions(
      const v1::TokenizeOptions& options) const;

  const ModelConfig& config_;
  const ModelShape& shape_;
  const RequestLimits limits_;
};

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_REQUEST_H_
