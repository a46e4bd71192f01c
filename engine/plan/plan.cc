#include "engine/plan/plan.h"

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace svdserve {
namespace {

const char* StepName(StepKind kind) {
  switch (kind) {
    case StepKind::kEmbed:
      return "embed";
    case StepKind::kAttention:
      return "attention";
    case StepKind::kFeedForward:
      return "feed_forward";
    case StepKind::kPool:
      return "pool";
    case StepKind::kHead:
      return "head";
  }
  return "?";
}

const char* WayName(Way way) {
  switch (way) {
    case Way::kNone:
      return "";
    case Way::kFactoredWhole:
      return " whole";
    case Way::kFactoredFused:
      return " fused";
    case Way::kFactored:
      return " factored";
    case Way::kDense:
      return " dense";
    case Way::kMixed:
      return " mixed";
  }
  return "?";
}

std::string Ids(const std::vector<int>& buffers) {
  return absl::StrJoin(buffers, " ", [](std::string* out, int index) {
    absl::StrAppendFormat(out, "b%d", index);
  });
}

std::string StepLine(const Step& step) {
  std::string line = StepName(step.kind);
  if (step.layer >= 0) absl::StrAppendFormat(&line, " %d", step.layer);
  line += WayName(step.way);
  if (step.rows_per_chunk > 0) {
    absl::StrAppendFormat(&line, ", chunks of %d rows", step.rows_per_chunk);
    if (step.heads_per_group > 0) {
      absl::StrAppendFormat(&line, " and %d heads", step.heads_per_group);
    }
    absl::StrAppendFormat(&line, ", %d side by side", step.lanes);
  }
  if (step.rows_at_ends > 0) {
    absl::StrAppendFormat(&line, ", %d rows at both ends", step.rows_at_ends);
  }
  if (step.chained) line += ", chained";
  absl::StrAppendFormat(&line, ": reads [%s] writes [%s]", Ids(step.reads),
                        Ids(step.writes));
  if (!step.scratch.empty()) {
    absl::StrAppendFormat(&line, " scratch [%s]", Ids(step.scratch));
  }
  return line;
}

}  // namespace

const char* RoleName(Role role) {
  switch (role) {
    case Role::kKernelScratch:
      return "kernel_scratch";
    case Role::kIds:
      return "ids";
    case Role::kTypeIds:
      return "type_ids";
    case Role::kOffsets:
      return "offsets";
    case Role::kOptions:
      return "options";
    case Role::kHidden:
      return "hidden";
    case Role::kFactors:
      return "factors";
    case Role::kNextFactors:
      return "next_factors";
    case Role::kQkv:
      return "qkv";
    case Role::kContext:
      return "context";
    case Role::kNarrow:
      return "narrow";
    case Role::kInner:
      return "inner";
    case Role::kUpdate:
      return "update";
    case Role::kPooled:
      return "pooled";
    case Role::kOutput:
      return "output";
  }
  return "?";
}

const Buffer* Plan::Find(const Step& step, Role role) const {
  for (const std::vector<int>* list :
       {&step.reads, &step.writes, &step.scratch}) {
    for (int index : *list) {
      if (buffers[index].role == role) return &buffers[index];
    }
  }
  return nullptr;
}

bool Plan::IsSingleChunk() const {
  for (const Step& step : steps) {
    const bool chunked = step.kind == StepKind::kAttention ||
                         step.kind == StepKind::kFeedForward;
    if (chunked && step.rows_per_chunk < shape.tokens) return false;
  }
  return true;
}

std::string Plan::ToString() const {
  std::string text = absl::StrFormat(
      "plan for up to %d sequences, %d tokens, the longest %d: peak %d bytes "
      "(%.0f a token), predicted %.3g ms\n",
      shape.sequences, shape.tokens, shape.max_tokens, peak_bytes,
      static_cast<double>(peak_bytes) / shape.tokens, predicted_seconds * 1e3);
  for (const Step& step : steps) {
    absl::StrAppendFormat(&text, "  %s\n", StepLine(step));
  }
  for (int i = 0; i < buffers.size(); ++i) {
    const Buffer& buffer = buffers[i];
    absl::StrAppendFormat(&text, "  b%d %s: [%d, %d)", i, RoleName(buffer.role),
                          buffer.offset, buffer.offset + buffer.bytes);
    if (buffer.lanes > 1) {
      absl::StrAppendFormat(&text, ", %d lanes %d apart", buffer.lanes,
                            buffer.lane_stride);
    }
    text += "\n";
  }
  return text;
}

}  // namespace svdserve
