#include "engine/device/batch_check.h"

#include "absl/strings/str_format.h"

namespace svdserve {
namespace {

absl::Status CheckSizes(const PackedBatch& batch) {
  const int sequences = batch.sequences();
  if (sequences == 0) {
    return absl::InvalidArgumentError("the batch has no sequence");
  }
  if (batch.cu_seqlens.size() != sequences + 1 || batch.cu_seqlens[0] != 0 ||
      batch.cu_seqlens[sequences] != batch.tokens() ||
      batch.type_ids.size() != batch.ids.size()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the batch has %d options, %d offsets, %d ids and %d type ids; wanted "
        "n, n + 1 from 0 to the number of ids, and as many types as ids",
        sequences, batch.cu_seqlens.size(), batch.tokens(),
        batch.type_ids.size()));
  }
  return absl::OkStatus();
}

absl::Status CheckSequence(const PackedBatch& batch, int sequence,
                           const BatchLimits& limits) {
  const int first = batch.cu_seqlens[sequence];
  const int last = batch.cu_seqlens[sequence + 1];
  if (first < 0 || last <= first || last > batch.tokens()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("sequence %d is empty: its tokens are [%d, %d)",
                        sequence, first, last));
  }
  if (last - first > limits.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrFormat("sequence %d has %d tokens; the model takes up to %d",
                        sequence, last - first, limits.max_positions));
  }
  for (int i = first; i < last; ++i) {
    if (batch.ids[i] < 0 || batch.ids[i] >= limits.vocab) {
      return absl::InvalidArgumentError(
          absl::StrFormat("sequence %d: id %d at position %d; ids are 0 to %d",
                          sequence, batch.ids[i], i - first, limits.vocab - 1));
    }
    if (batch.type_ids[i] >= limits.type_vocab) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "sequence %d: type id %d at position %d; type ids are 0 to %d",
          sequence, batch.type_ids[i], i - first, limits.type_vocab - 1));
    }
  }
  const int dimensions = batch.options[sequence].dimensions;
  if (dimensions < 0 || dimensions > limits.output_width) {
    return absl::InvalidArgumentError(
        absl::StrFormat("sequence %d: %d dimensions; 0 (all) to %d are there",
                        sequence, dimensions, limits.output_width));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatch(const Plan& plan, const PackedBatch& batch,
                        const BatchLimits& limits) {
  if (absl::Status status = CheckSizes(batch); !status.ok()) return status;
  for (int i = 0; i < batch.sequences(); ++i) {
    if (absl::Status status = CheckSequence(batch, i, limits); !status.ok()) {
      return status;
    }
  }
  const BatchShape shape = batch.Shape();
  if (shape.sequences > plan.shape.sequences ||
      shape.tokens > plan.shape.tokens ||
      shape.max_tokens > plan.shape.max_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%d sequences of %d tokens, the longest %d, do not fit a plan for %d, "
        "%d and %d",
        shape.sequences, shape.tokens, shape.max_tokens, plan.shape.sequences,
        plan.shape.tokens, plan.shape.max_tokens));
  }
  return absl::OkStatus();
}

}  // namespace svdserve
