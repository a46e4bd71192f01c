// Results of the engine -> responses of the API: scores, order, usage.
#ifndef SVDSERVE_SERVER_RESPONSE_H_
#define SVDSERVE_SERVER_RESPONSE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "svdserve/v1/svdserve.pb.h"

namespace svdserve {

using Results = std::vector<absl::StatusOr<InputResult>>;

// OK if the results can be answered in their places. The error of the whole
// call if all failed with one code that is not INVALID_ARGUMENT; of several
// refusals it is the one with the longest wait.
absl::Status StatusOfAll(const Results& results);

void FillEmbed(const Results& results, v1::EmbedResponse* response);
// Labels highest first; probabilities unless `raw`: softmax, or sigmoid for
// one label.
void FillClassify(const Results& results,
                  const std::vector<std::string>& labels, bool raw,
                  v1::ClassifyResponse* response);
// Texts highest first, equal scores in the order of the request.
void FillRerank(const Results& results, const v1::RerankRequest& request,
                v1::RerankResponse* response);
void FillEstimate(const std::vector<absl::StatusOr<InputEstimate>>& estimates,
                  v1::EstimateResponse* response);
void FillModelInfo(const Engine& engine, v1::GetModelInfoResponse* response);

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_RESPONSE_H_
