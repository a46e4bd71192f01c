#include "engine/schedule/admission.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/schedule/refusal.h"

namespace svdserve {
namespace {

// Both budgets hold at least one such input: the arena beside the fixed part,
// the queue its charge alone.
int LongestByMemory(const CostFunction& cost, const AdmissionLimits& limits) {
  return std::min(
      cost.LongestThatFits(limits.arena_bytes),
      cost.LongestThatFits(limits.queue_budget_bytes + cost.fixed_bytes()));
}

}  // namespace

Admission::Admission(CostFunction cost, const AdmissionLimits& limits)
    : cost_(cost),
      limits_(limits),
      longest_by_memory_(LongestByMemory(cost, limits)),
      longest_input_(std::min(limits.model_max_tokens, longest_by_memory_)),
      queue_(limits.queue_budget_bytes) {}

absl::Status Admission::CheckFits(int tokens) const {
  if (tokens > limits_.model_max_tokens) {
    return MakeRefusal(
        absl::StatusCode::kInvalidArgument,
        absl::StrFormat("the input has %d tokens, the longest that can run has "
                        "%d (the model's limit is %d): shorten it or set "
                        "truncate",
                        tokens, longest_input_, limits_.model_max_tokens),
        {.reason = RefusalReason::kInvalid, .subject = "input_tokens"});
  }
  if (tokens <= longest_by_memory_) return absl::OkStatus();
  const uint64_t charge = cost_.ChargeFor(tokens);
  const uint64_t needed = cost_.fixed_bytes() + charge;
  const bool arena = needed > limits_.arena_bytes;
  const RefusalDetail detail = {
      .reason = RefusalReason::kTooLarge,
      .subject = arena ? "arena_bytes" : "queue_activation_bytes",
      .needed_bytes = arena ? needed : charge,
      .available_bytes = arena ? limits_.arena_bytes : queue_.limit(),
      .limit_bytes = arena ? limits_.arena_bytes : queue_.limit()};
  return MakeRefusal(
      absl::StatusCode::kInvalidArgument,
      absl::StrFormat("an input of %d tokens needs %d activation bytes, the "
                      "%s allows %d; the longest input that fits has %d "
                      "tokens",
                      tokens, detail.needed_bytes,
                      arena ? "arena" : "queue budget", detail.limit_bytes,
                      longest_input_),
      detail);
}

absl::StatusOr<Reservation> Admission::Reserve(int tokens) {
  if (absl::Status fits = CheckFits(tokens); !fits.ok()) return fits;
  const uint64_t charge = cost_.ChargeFor(tokens);
  if (std::optional<Reservation> taken = queue_.TryReserve(charge)) {
    return *std::move(taken);
  }
  const uint64_t available = queue_.available();
  const RefusalDetail detail = {
      .reason = RefusalReason::kQueueBudget,
      .subject = "queue_activation_bytes",
      .needed_bytes = charge,
      .available_bytes = available,
      .limit_bytes = queue_.limit(),
      .retry_after = rate_.TimeFor(queue_.limit() - available)};
  return MakeRefusal(
      absl::StatusCode::kResourceExhausted,
      absl::StrFormat("an input of %d tokens needs %d activation bytes of the "
                      "queue budget, %d of %d are free now; retry in %s",
                      tokens, charge, available, queue_.limit(),
                      absl::FormatDuration(detail.retry_after)),
      detail);
}

}  // namespace svdserve
