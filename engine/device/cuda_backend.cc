#include "engine/device/cuda_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/plan/cuda_shape.h"
#include "kernels/cuda/ffn_layer.h"
#include "kernels/cuda/fused_ffn.h"
#include "kernels/cuda/gemm_norm.h"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/row_chain.h"

namespace svdserve {
namespace {

// The default arena, and pinned memory at first, are for batches of this size.
constexpr int kBatchTokens = 16384;
constexpr int kBatchInputs = 512;

// A batch of so many tokens fills the largest GPU; its kernels take so long
// that launching them costs nothing.
constexpr int kFullSpeedTokens = 16384;

// Larger batches run for longer than it takes to launch their kernels.
constexpr int kMostGraphTokens = 4096;
// Graphs of 1 to 2 MiB each on the device.
constexpr int kGraphsKept = 64;
// A capture takes as long as ten launches of the batch's kernels. While another
// batch runs these cost nothing, but a capture may leave the device idle: then
// it is worth it only for a shape that came as often.
constexpr int kSeenBeforeCapture = 1;
constexpr int kSeenBeforeBusyCapture = 10;

// Up to so many rows two kernels end a half-layer sooner than one, which has a
// block for each 16 rows or more.
constexpr int kUpdateRows = 512;

constexpr int kLeastSm = 80;
constexpr int kMaxHidden = 1024;

absl::Status CheckDevice(const CudaDevice& device) {
  if (device.limits.sm >= kLeastSm) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrFormat(
      "GPU %d, %s, is sm_%d; the kernels need sm_%d (Ampere) or later",
      device.index, device.name, device.limits.sm, kLeastSm));
}

absl::Status CheckModel(const ModelShape& shape) {
  if (shape.hidden % 32 != 0 || shape.hidden > kMaxHidden) {
    return absl::UnimplementedError(absl::StrFormat(
        "the CUDA kernels take hidden widths up to %d in steps of 32; the "
        "model has %d",
        kMaxHidden, shape.hidden));
  }
  for (const LayerShape& layer : shape.layers) {
    for (const int dim : {shape.query_dim(layer), shape.value_dim(layer)}) {
      if (dim % kHeadDimStep == 0 && dim <= kMaxHeadDim) continue;
      return absl::UnimplementedError(absl::StrFormat(
          "the CUDA kernels take heads up to %d in steps of %d; the model has "
          "heads of %d",
          kMaxHeadDim, kHeadDimStep, dim));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<cuda::Type> TypeOf(ComputeType compute) {
  switch (compute) {
    case ComputeType::kAuto:
    case ComputeType::kBF16:
      return cuda::Type::kBF16;
    case ComputeType::kF16:
      return cuda::Type::kF16;
    case ComputeType::kF32:
      break;
  }
  return absl::UnimplementedError(
      "float32 is for the CPU; a GPU computes in bfloat16 or float16");
}

// Whether one kernel can end attention and make the feed-forward's factors.
bool TakesChain(const ModelShape& shape, const LayerShape& layer,
                const cuda::DeviceLimits& limits) {
  return layer.attention_output > 0 && layer.ffn_in > 0 &&
         cuda::RowChainTakes({.in = shape.heads * shape.value_dim(layer),
                              .rank = layer.attention_output,
                              .hidden = shape.hidden,
                              .out = layer.ffn_in},
                             limits);
}

// The longest sequence that fused attention takes: of factored Q, K and V, all
// as wide.
int AttentionMaxTokens(const ModelShape& shape, const LayerShape& layer,
                       const cuda::DeviceLimits& limits) {
  const auto [least, most] = std::minmax({layer.query, layer.key, layer.value});
  const int head_dim = shape.query_dim(layer);
  if (least == 0 || head_dim != shape.value_dim(layer)) return 0;
  return cuda::LowRankAttentionMaxTokens(head_dim, most, limits);
}

// What the fused kernels take of each layer.
std::vector<LayerFusion> FusionOf(const ModelShape& shape,
                                  const cuda::DeviceLimits& limits) {
  std::vector<LayerFusion> fusion;
  for (const LayerShape& layer : shape.layers) {
    fusion.push_back(
        {.attention_max_tokens = AttentionMaxTokens(shape, layer, limits),
         .feed_forward =
             layer.ffn_in > 0 && layer.ffn_out > 0 &&
             cuda::FusedFfnTakes(layer.ffn_in, layer.ffn_out, false, limits),
         .feed_forward_whole =
             cuda::FfnLayerTakes(shape.hidden, layer.ffn_in, layer.ffn_out,
                                 CudaActivation(shape.activation), limits),
         .chain_rows =
             TakesChain(shape, layer, limits) ? cuda::kRowChainRows : 0});
  }
  return fusion;
}

// Up to so many rows the feed-forward's long sums are split.
int SplitSumRows(const ModelShape& shape, Mode mode,
                 const cuda::DeviceLimits& limits) {
  if (mode != Mode::kFast) return 0;
  const bool splits = std::any_of(
      shape.layers.begin(), shape.layers.end(), [&](const LayerShape& ranks) {
        return ranks.ffn_out > 0 && cuda::SplitsSum({.in = shape.intermediate,
                                                     .out = ranks.ffn_out,
                                                     .split_sum = true},
                                                    limits);
      });
  return splits ? cuda::kSplitSumRows : 0;
}

PlanTarget TargetOf(const ModelShape& shape, Mode mode,
                    const cuda::DeviceLimits& limits) {
  return {.element_bytes = cuda::kElementBytes,
          .row_tile = 1,
          .device = Device::kCuda,
          .sm = limits.sm,
          .multiprocessors = limits.multiprocessors,
          .update_rows =
              cuda::GemmNormTakesUpdate(shape.hidden, limits) ? kUpdateRows : 0,
          .split_sum_rows = SplitSumRows(shape, mode, limits),
          .fusion = FusionOf(shape, limits)};
}

// As configured, or what suits the model and leaves the reserve free.
absl::StatusOr<uint64_t> ArenaBytes(const Planner& planner,
                                    const ModelShape& shape,
                                    const BackendOptions& options,
                                    CudaRuntime* runtime) {
  size_t free = 0;
  size_t total = 0;
  const cudaError_t error = runtime->MemoryInfo(&free, &total);
  if (error != cudaSuccess) {
    return CudaStatus(*runtime, "asking for free memory", error);
  }
  const uint64_t room = free > options.memory_reserve_bytes
                            ? free - options.memory_reserve_bytes
                            : 0;
  const uint64_t least = planner.MinimumArenaBytes();
  if (options.arena_bytes > 0 && options.arena_bytes < least) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "an arena of %d bytes is too small: an input of %d tokens needs %d",
        options.arena_bytes, shape.max_tokens, least));
  }
  const uint64_t wanted =
      options.arena_bytes > 0
          ? options.arena_bytes
          : std::min(room, planner.ArenaBytesFor(kBatchTokens, kBatchInputs));
  if (wanted >= least && wanted <= room) return wanted;
  return absl::ResourceExhaustedError(absl::StrFormat(
      "GPU %d has %d bytes free, %d of them reserved; the arena needs %d",
      runtime->device().index, free, options.memory_reserve_bytes,
      std::max(options.arena_bytes, least)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Create(
    const Model& model, const BackendOptions& options,
    std::unique_ptr<CudaRuntime> runtime) {
  const ModelShape shape = CudaShape(model.shape);
  absl::Status status =
      CudaStatus(*runtime, "choosing the device", runtime->Use());
  if (status.ok()) status = CheckDevice(runtime->device());
  if (status.ok()) status = CheckModel(shape);
  if (!status.ok()) return status;
  const absl::StatusOr<cuda::Type> type = TypeOf(options.compute);
  if (!type.ok()) return type.status();
  absl::StatusOr<CudaWeights> weights =
      PackForCuda(model, *type, runtime.get());
  if (!weights.ok()) return weights.status();

  PlanTarget target = TargetOf(shape, options.mode, runtime->device().limits);
  const Planner planner(shape, target, options.arena_bytes);
  const absl::StatusOr<uint64_t> bytes =
      ArenaBytes(planner, shape, options, runtime.get());
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<CudaArena> arena = CudaArena::Create(runtime.get(), *bytes);
  if (!arena.ok()) return arena.status();
  std::unique_ptr<CudaBackend> backend(
      new CudaBackend(model, std::move(runtime), *std::move(weights),
                      *std::move(arena), std::move(target)));
  status = backend->PrepareSlots();
  if (!status.ok()) return status;
  backend->MeasureMemory();
  return backend;
}

CudaBackend::CudaBackend(const Model& model,
                         std::unique_ptr<CudaRuntime> runtime,
                         CudaWeights weights, CudaArena arena,
                         PlanTarget target)
    : shape_(CudaShape(model.shape)),
      limits_({.vocab = shape_.vocab,
               .type_vocab =
                   static_cast<int>(model.embeddings.token_type.shape()[0]),
               .max_positions =
                   static_cast<int>(model.embeddings.position.shape()[0]),
               .output_width = shape_.output_width()}),
      target_(std::move(target)),
      runtime_(std::move(runtime)),
      weights_(std::move(weights)),
      arena_(std::move(arena)),
      encoder_(shape_, model.config.pooling, weights_, target_.split_sum_rows,
               runtime_.get(), arena_.data()),
      graphs_(kGraphsKept) {
  const CudaDevice& device = runtime_->device();
  info_ = {.name = "cuda",
           .reason = absl::StrFormat("%s, sm_%d, is GPU %d", device.name,
                                     device.limits.sm, device.index),
           .dtype = weights_.type == cuda::Type::kBF16 ? "bfloat16" : "float16",
           .mode = target_.split_sum_rows > 0 ? "fast" : "strict",
           .weight_bytes = weights_.memory.bytes(),
           .arena_bytes = arena_.bytes(),
           .full_speed_tokens = kFullSpeedTokens};
}

CudaBackend::~CudaBackend() {
  static_cast<void>(runtime_->Use());
  static_cast<void>(runtime_->Synchronize());
  for (Slot& slot : slots_) {
    if (slot.done != nullptr) runtime_->DestroyEvent(slot.done);
  }
}

absl::Status CudaBackend::PrepareSlots() {
  constexpr uint64_t kInputBytes =
      kBatchTokens * (sizeof(int32_t) + sizeof(uint8_t)) +
      2 * kBatchInputs * sizeof(int32_t) + 1024;
  const uint64_t output_bytes =
      uint64_t{kBatchInputs} * shape_.output_width() * sizeof(float);
  for (Slot& slot : slots_) {
    absl::Status status =
        slot.staging.Reserve(runtime_.get(), kInputBytes, output_bytes);
    if (!status.ok()) return status;
    status = CudaStatus(*runtime_, "creating an event",
                        runtime_->CreateEvent(&slot.done));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool CudaBackend::IsMine(const Plan& plan) const {
  const int layers = weights_.layers.size();
  const int heads = weights_.head.size();
  if (plan.steps.size() != 2 + 2 * layers + heads) return false;
  for (const Step& step : plan.steps) {
    const bool in_head = step.kind == StepKind::kHead;
    if (step.layer >= (in_head ? heads : layers) || step.lanes != 1) {
      return false;
    }
  }
  const Buffer* hidden = plan.Find(plan.steps.front(), Role::kHidden);
  return hidden != nullptr &&
         plan.Find(plan.steps.back(), Role::kOptions) != nullptr &&
         hidden->bytes == uint64_t{1} * plan.shape.tokens * shape_.hidden *
                              cuda::kElementBytes;
}

absl::Status CudaBackend::Validate(const Plan& plan,
                                   const PackedBatch& batch) const {
  if (plan.peak_bytes > arena_.bytes()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the plan needs %d bytes; the arena has %d",
                        plan.peak_bytes, arena_.bytes()));
  }
  if (!IsMine(plan)) {
    return absl::InvalidArgumentError(
        "the plan was made for another model or another backend");
  }
  return CheckBatch(plan, batch, limits_);
}

absl::Status CudaBackend::Launch(int slot, const Plan& plan,
                                 const PackedBatch& batch) {
  if (slot < 0 || slot >= kSlots) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d; there are %d", slot, kSlots));
  }
  slots_[slot].sequences = 0;
  if (lost()) {
    return absl::UnavailableError(
        absl::StrCat("GPU ", runtime_->device().index, " was lost"));
  }
  if (absl::Status status = Validate(plan, batch); !status.ok()) return status;
  absl::Status status = Note("choosing the device", runtime_->Use());
  if (status.ok()) status = Enqueue(&slots_[slot], plan, batch);
  if (status.ok()) {
    slots_[slot].sequences = batch.sequences();
    return status;
  }
  // What was put into the stream still reads the slot's memory.
  static_cast<void>(Note("after a failed launch", runtime_->Synchronize()));
  return status;
}

absl::Status CudaBackend::Enqueue(Slot* slot, const Plan& plan,
                                  const PackedBatch& batch) {
  const CudaInputRange inputs = InputRange(plan);
  const uint64_t output_bytes =
      uint64_t{1} * batch.sequences() * shape_.output_width() * sizeof(float);
  CudaStaging& staging = slot->staging;
  absl::Status status =
      staging.Reserve(runtime_.get(), inputs.bytes, output_bytes);
  if (!status.ok()) return status;
  staging.WriteInputs(plan, batch);
  status = Note("copying the inputs",
                runtime_->CopyIn(arena_.data() + inputs.offset,
                                 staging.inputs(), inputs.bytes));
  if (status.ok()) status = RunPlan(plan, batch);
  if (status.ok()) {
    status = Note("copying the outputs",
                  runtime_->CopyOut(staging.outputs(), encoder_.Output(plan),
                                    output_bytes));
  }
  if (status.ok())
    status = Note("marking the end", runtime_->Record(slot->done));
  return status;
}

absl::Status CudaBackend::RunPlan(const Plan& plan, const PackedBatch& batch) {
  const bool small =
      plan.shape.tokens <= kMostGraphTokens && plan.IsSingleChunk();
  CudaGraph* graph = small ? graphs_.Find(plan) : nullptr;
  if (graph == nullptr && small) {
    const int enough = Idle() ? kSeenBeforeCapture : kSeenBeforeBusyCapture;
    if (graphs_.TimesSeen(plan) >= enough) {
      absl::Status status = CaptureGraph(plan, &graph);
      if (!status.ok()) return status;
    }
  }
  if (graph == nullptr) return RunKernels(plan, batch);
  return Note("launching a graph", runtime_->Run(graph));
}

bool CudaBackend::Idle() const {
  return std::ranges::all_of(slots_,
                             [](const Slot& s) { return s.sequences == 0; });
}

absl::Status CudaBackend::RunKernels(const Plan& plan,
                                     const PackedBatch& batch) {
  const BatchShape shape = batch.Shape();
  const cudaError_t error =
      encoder_.Run(plan, {.rows = shape.tokens,
                          .sequences = shape.sequences,
                          .max_tokens = shape.max_tokens,
                          .offsets = batch.cu_seqlens.data()});
  if (error == cudaSuccess) return absl::OkStatus();
  return Note(encoder_.FailedStep().c_str(), error);
}

// The graph runs the whole bucket, whatever part of it a batch fills.
absl::Status CudaBackend::CaptureGraph(const Plan& plan, CudaGraph** graph) {
  std::unique_ptr<CudaGraph> captured;
  const auto launches = [this, plan] {
    return encoder_.Run(plan, {.rows = plan.shape.tokens,
                               .sequences = plan.shape.sequences,
                               .max_tokens = plan.shape.max_tokens});
  };
  const cudaError_t error = runtime_->Capture(launches, &captured);
  if (error != cudaSuccess) {
    return Note(encoder_.error() == error ? encoder_.FailedStep().c_str()
                                          : "capturing a graph",
                error);
  }
  *graph = graphs_.Keep(plan, std::move(captured));
  MeasureMemory();
  return absl::OkStatus();
}

absl::Status CudaBackend::Collect(int slot, BatchOutput* output) {
  if (slot < 0 || slot >= kSlots || slots_[slot].sequences == 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("no batch was launched in slot %d", slot));
  }
  Slot& from = slots_[slot];
  absl::Status status = Note("choosing the device", runtime_->Use());
  if (status.ok()) status = Note("running a batch", runtime_->Wait(from.done));
  if (status.ok()) {
    output->width = shape_.output_width();
    const auto* values = reinterpret_cast<const float*>(from.staging.outputs());
    output->values.assign(values,
                          values + int64_t{1} * from.sequences * output->width);
  }
  from.sequences = 0;
  return status;
}

uint64_t CudaBackend::TouchedBytes() {
  static_cast<void>(Note("choosing the device", runtime_->Use()));
  return arena_.TouchedBytes();
}

absl::Status CudaBackend::Note(const char* what, cudaError_t error) {
  if (LosesDevice(error)) lost_.store(true, std::memory_order_relaxed);
  return CudaStatus(*runtime_, what, error);
}

void CudaBackend::MeasureMemory() {
  size_t free = 0;
  size_t total = 0;
  if (runtime_->MemoryInfo(&free, &total) != cudaSuccess) return;
  const uint64_t ours = weights_.memory.bytes() + arena_.bytes();
  const uint64_t used = total - free;
  other_bytes_.store(used > ours ? used - ours : 0, std::memory_order_relaxed);
}

}  // namespace svdserve
