#include "engine/device/cpu_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/layer_norm.h"
#include "kernels/normalize.h"

namespace svdserve {
namespace {

using kernels::KernelStatus;
using kernels::PackedMatmul;

constexpr int kRowTile = PackedMatmul::kRowTile;
// Rows of one piece when workers share work that has no columns to split.
constexpr int kSharedRows = 16;
// Queries of one piece when workers share the attention of few heads.
constexpr int kSharedQueries = 64;

int CeilDiv(int a, int b) { return (a + b - 1) / b; }
int TileUp(int rows) { return CeilDiv(rows, kRowTile) * kRowTile; }

}  // namespace

// Neighbouring rows of the residual stream.
struct CpuEncoder::Chunk {
  int first_row = 0;
  int rows = 0;
  int first_sequence = 0;  // attention: whole sequences
  int last_sequence = 0;   // one past the last
  std::byte* x = nullptr;  // [rows, hidden] in the residual stream
};

// Q, K or V of a group of heads, in panels of heads, each [rows, columns].
struct CpuEncoder::HeadPanels {
  std::byte* first = nullptr;
  int head_dim = 0;
  int columns = 0;    // of a panel
  int64_t bytes = 0;  // of a panel
};

// Buffers of the chunk in work, and who works on it: one worker, or all.
class CpuEncoder::Lane {
 public:
  Lane(CpuEncoder* encoder, const Plan& plan, const Step& step, int index)
      : team_(step.lanes == 1 ? &encoder->team_ : nullptr), worker_(index) {
    const auto at = [&](Role role) {
      return encoder->At(plan.Find(step, role), index);
    };
    factors = at(Role::kFactors);
    qkv = at(Role::kQkv);
    context = at(Role::kContext);
    narrow = at(Role::kNarrow);
    inner = at(Role::kInner);
    update = at(Role::kUpdate);
  }
  // The whole team, without buffers.
  explicit Lane(CpuEncoder* encoder) : team_(&encoder->team_) {}

  // Workers that share the chunk.
  int workers() const { return team_ == nullptr ? 1 : team_->size(); }

  // fn(worker, index) for each index in [0, count), in any order.
  template <typename Fn>
  void For(int count, Fn&& fn) const {
    if (team_ != nullptr) {
      team_->ParallelFor(count, fn);
      return;
    }
    for (int index = 0; index < count; ++index) fn(worker_, index);
  }

  std::byte* factors = nullptr;  // [rows, ranks]
  std::byte* qkv = nullptr;      // HeadPanels of Q, K and V
  std::byte* context = nullptr;  // [rows, heads * value_dim]
  std::byte* narrow = nullptr;   // [rows, rank]
  std::byte* inner = nullptr;    // [rows, intermediate]
  std::byte* update = nullptr;   // [rows, hidden], fp32

 private:
  kernels::Team* team_ = nullptr;
  int worker_ = 0;
};

// ---- The batch ----

KernelStatus CpuEncoder::Run(const Plan& plan, const PackedBatch& batch) {
  status_ = KernelStatus::kOk;
  sequences_ = batch.sequences();
  for (const Step& step : plan.steps) {
    if (status_ != KernelStatus::kOk) return status_;
    switch (step.kind) {
      case StepKind::kEmbed:
        CopyIn(plan, step, batch);
        Embed(plan, step);
        break;
      case StepKind::kAttention:
        AttentionStep(plan, step);
        break;
      case StepKind::kFeedForward:
        FeedForwardStep(plan, step);
        break;
      case StepKind::kPool:
        Pool(plan, step);
        break;
      case StepKind::kHead:
        Head(plan, step);
        break;
    }
  }
  if (status_ != KernelStatus::kOk) return status_;
  for (int i = 0; i < sequences_; ++i) {
    FinishRow(batch.options[i],
              output_ + int64_t{1} * i * shape_.output_width());
  }
  return KernelStatus::kOk;
}

void CpuEncoder::CopyIn(const Plan& plan, const Step& step,
                        const PackedBatch& batch) {
  std::memcpy(At(plan.Find(step, Role::kIds)), batch.ids.data(),
              batch.ids.size() * sizeof(int32_t));
  std::memcpy(At(plan.Find(step, Role::kTypeIds)), batch.type_ids.data(),
              batch.type_ids.size());
  std::byte* offsets = At(plan.Find(step, Role::kOffsets));
  std::memcpy(offsets, batch.cu_seqlens.data(),
              batch.cu_seqlens.size() * sizeof(int32_t));
  offsets_ = reinterpret_cast<const int32_t*>(offsets);
  hidden_ = At(plan.Find(step, Role::kHidden));
  // Steps after this one have the kernels' scratch.
  for (const Buffer& buffer : plan.buffers) {
    if (buffer.role != Role::kKernelScratch) continue;
    scratch_ = At(&buffer);
    scratch_stride_ = buffer.lane_stride;
  }
}

void CpuEncoder::Embed(const Plan& plan, const Step& step) {
  const auto* ids =
      reinterpret_cast<const int32_t*>(At(plan.Find(step, Role::kIds)));
  const auto* types =
      reinterpret_cast<const uint8_t*>(At(plan.Find(step, Role::kTypeIds)));
  team_.ParallelFor(sequences_, [&](int, int sequence) {
    const int first = offsets_[sequence];
    Note(kernels::Embed({.tokens = offsets_[sequence + 1] - first,
                         .width = shape_.hidden,
                         .ids = ids + first,
                         .types = types + first,
                         .table_type = weights_.type,
                         .word = weights_.word.data(),
                         .position = weights_.position.data(),
                         .type = weights_.token_type.data(),
                         .vocab = weights_.word.rows,
                         .max_positions = weights_.position.rows,
                         .type_vocab = weights_.token_type.rows,
                         .gamma = weights_.embedding_norm.gamma.data(),
                         .beta = weights_.embedding_norm.beta.data(),
                         .eps = weights_.norm_eps,
                         .y_type = weights_.type,
                         .y = HiddenRow(first),
                         .y_stride = shape_.hidden}));
  });
}

// ---- x = LayerNorm(x + Attention(x)·W_o) ----

void CpuEncoder::AttentionStep(const Plan& plan, const Step& step) {
  const CpuLayer& layer = weights_.layers[step.layer];
  next_sequence_ = 0;
  const auto run_chunks = [&](const Lane& lane) {
    Chunk chunk;
    while (TakeChunk(step.rows_per_chunk, &chunk)) {
      Attention(lane, layer, chunk, step.heads_per_group);
    }
  };
  if (step.lanes == 1) {
    run_chunks(Lane(this, plan, step, 0));
    return;
  }
  team_.ParallelFor(step.lanes, [&](int worker, int) {
    run_chunks(Lane(this, plan, step, worker));
  });
}

// The next whole sequences that fit into `rows`; false if none is left.
bool CpuEncoder::TakeChunk(int rows, Chunk* chunk) {
  int first = next_sequence_.load();
  int last = 0;
  do {
    if (first == sequences_) return false;
    last = first + 1;
    while (last < sequences_ && offsets_[last + 1] - offsets_[first] <= rows) {
      ++last;
    }
  } while (!next_sequence_.compare_exchange_weak(first, last));
  *chunk = {.first_row = offsets_[first],
            .rows = offsets_[last] - offsets_[first],
            .first_sequence = first,
            .last_sequence = last,
            .x = HiddenRow(offsets_[first])};
  return true;
}

void CpuEncoder::Attention(const Lane& lane, const CpuLayer& layer,
                           const Chunk& chunk, int heads_per_group) {
  // P = x·[U_q U_k U_v]
  if (layer.qkv_factors) {
    Apply(lane, layer.qkv_factors, chunk.rows, chunk.x, lane.factors);
  }
  // context = softmax(Q·Kᵀ / √head_dim)·V, a few heads at a time
  for (int head = 0; head < shape_.heads; head += heads_per_group) {
    const int heads = std::min(heads_per_group, shape_.heads - head);
    ProjectHeads(lane, layer, chunk, head, heads);
    AttendHeads(lane, layer, chunk, head, heads);
  }
  // x = LayerNorm(x + context·W_o)
  const CpuLinear& output = layer.attention_output;
  const std::byte* from = lane.context;
  if (output.first) {
    Apply(lane, output.first, chunk.rows, lane.context, lane.narrow);
    from = lane.narrow;
  }
  Apply(lane, output.second, chunk.rows, from, lane.update);
  AddAndNormalize(lane, layer.attention_norm, chunk);
}

// Those of Q (projection 0), K (1) and V (2) lie one after the other.
CpuEncoder::HeadPanels CpuEncoder::PanelsOf(const Lane& lane,
                                            const CpuLayer& layer,
                                            const Chunk& chunk, int heads,
                                            int projection) const {
  const int64_t column_bytes =
      int64_t{1} * chunk.rows * kernels::BytesOf(weights_.type);
  const int query_dim = layer.projections[0].head_dim;
  const int head_dim = layer.projections[projection].head_dim;
  const int columns = weights_.heads_per_panel * head_dim;
  return {.first = lane.qkv + projection * heads * query_dim * column_bytes,
          .head_dim = head_dim,
          .columns = columns,
          .bytes = columns * column_bytes};
}

// Q, K and V of some heads, from the factors, or from x where they are dense.
void CpuEncoder::ProjectHeads(const Lane& lane, const CpuLayer& layer,
                              const Chunk& chunk, int first_head, int heads) {
  const int element = kernels::BytesOf(weights_.type);
  const int panels = heads / weights_.heads_per_panel;
  const int first_panel = first_head / weights_.heads_per_panel;
  lane.For(3 * panels, [&](int worker, int index) {
    const CpuProjection& projection = layer.projections[index / panels];
    const HeadPanels to = PanelsOf(lane, layer, chunk, heads, index / panels);
    const int panel = index % panels;
    const std::byte* x = projection.factored
                             ? lane.factors + projection.factor_column * element
                             : chunk.x;
    Note(projection.matrix.matmul->Run(worker, first_panel + panel, chunk.rows,
                                       x, to.first + panel * to.bytes,
                                       to.columns, Scratch(worker)));
  });
}

void CpuEncoder::AttendHeads(const Lane& lane, const CpuLayer& layer,
                             const Chunk& chunk, int first_head, int heads) {
  const int element = kernels::BytesOf(weights_.type);
  const int per_panel = weights_.heads_per_panel;
  const HeadPanels q = PanelsOf(lane, layer, chunk, heads, 0);
  const HeadPanels k = PanelsOf(lane, layer, chunk, heads, 1);
  const HeadPanels v = PanelsOf(lane, layer, chunk, heads, 2);
  const int width = shape_.heads * v.head_dim;
  const int sequences = chunk.last_sequence - chunk.first_sequence;
  // Few heads for many workers: cut the queries too.
  const bool cut = sequences * heads < 2 * lane.workers();
  const int pieces = cut ? CeilDiv(chunk.rows, kSharedQueries) : 1;

  lane.For(sequences * heads * pieces, [&](int worker, int index) {
    const int piece = index % pieces;
    const int head = index / pieces % heads;
    const int sequence = chunk.first_sequence + index / pieces / heads;
    const int first = offsets_[sequence] - chunk.first_row;
    const int length = offsets_[sequence + 1] - offsets_[sequence];
    const int query = piece * kSharedQueries;
    if (query >= length) return;
    const int queries = cut ? std::min(kSharedQueries, length - query) : length;
    const int row = first + query;
    // This head's columns.
    const auto at = [&](const HeadPanels& panels, int of_row) {
      return panels.first + head / per_panel * panels.bytes +
             (int64_t{1} * of_row * panels.columns +
              head % per_panel * panels.head_dim) *
                 element;
    };
    Note(kernels::Attention(
        {.queries = queries,
         .keys = length,
         .qk_dim = q.head_dim,
         .v_dim = v.head_dim,
         .type = weights_.type,
         .q = at(q, row),
         .k = at(k, first),
         .v = at(v, first),
         .out = lane.context +
                (int64_t{1} * row * width + (first_head + head) * v.head_dim) *
                    element,
         .q_stride = q.columns,
         .k_stride = k.columns,
         .v_stride = v.columns,
         .out_stride = width,
         .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))},
        Scratch(worker)));
  });
}

// ---- x = LayerNorm(x + act(x·W_1)·W_2) ----

void CpuEncoder::FeedForwardStep(const Plan& plan, const Step& step) {
  const CpuLayer& layer = weights_.layers[step.layer];
  const int rows = offsets_[sequences_];
  const auto chunk_at = [&](int index) {
    const int first = index * step.rows_per_chunk;
    return Chunk{.first_row = first,
                 .rows = std::min(step.rows_per_chunk, rows - first),
                 .x = HiddenRow(first)};
  };
  const int chunks = CeilDiv(rows, step.rows_per_chunk);
  if (step.lanes == 1) {
    const Lane lane(this, plan, step, 0);
    for (int i = 0; i < chunks; ++i) FeedForward(lane, layer, chunk_at(i));
    return;
  }
  team_.ParallelFor(chunks, [&](int worker, int index) {
    FeedForward(Lane(this, plan, step, worker), layer, chunk_at(index));
  });
}

void CpuEncoder::FeedForward(const Lane& lane, const CpuLayer& layer,
                             const Chunk& chunk) {
  // inner = act(x·W_1)
  const std::byte* from = chunk.x;
  if (layer.ffn_in.first) {
    Apply(lane, layer.ffn_in.first, chunk.rows, chunk.x, lane.factors);
    from = lane.factors;
  }
  Apply(lane, layer.ffn_in.second, chunk.rows, from, lane.inner);
  // x = LayerNorm(x + inner·W_2)
  from = lane.inner;
  if (layer.ffn_out.first) {
    Apply(lane, layer.ffn_out.first, chunk.rows, lane.inner, lane.narrow);
    from = lane.narrow;
  }
  Apply(lane, layer.ffn_out.second, chunk.rows, from, lane.update);
  AddAndNormalize(lane, layer.ffn_norm, chunk);
}

// ---- Outputs ----

void CpuEncoder::Pool(const Plan& plan, const Step& step) {
  const Buffer& to = plan.buffers[step.writes[0]];
  output_ = reinterpret_cast<float*>(At(&to));
  team_.ParallelFor(sequences_, [&](int, int sequence) {
    const int first = offsets_[sequence];
    Note(kernels::Pool({.kind = pooling_,
                        .rows = offsets_[sequence + 1] - first,
                        .width = shape_.hidden,
                        .type = weights_.type,
                        .x = HiddenRow(first),
                        .x_stride = shape_.hidden,
                        .y = output_ + int64_t{1} * sequence * shape_.hidden}));
  });
}

void CpuEncoder::Head(const Plan& plan, const Step& step) {
  std::byte* from = At(&plan.buffers[step.reads[0]]);
  std::byte* to = At(&plan.buffers[step.writes[0]]);
  Apply(Lane(this), weights_.head[step.layer], sequences_, from, to);
  output_ = reinterpret_cast<float*>(to);
}

// Keeps the first dimensions, then normalises.
void CpuEncoder::FinishRow(const OutputOptions& options, float* row) const {
  const int width = shape_.output_width();
  const int kept = options.dimensions > 0 ? options.dimensions : width;
  std::fill(row + kept, row + width, 0.0f);
  if (options.normalize) kernels::Normalize(row, kept);
}

// ---- What the steps share ----

void CpuEncoder::Apply(const Lane& lane, const PackedMatrix& matrix, int rows,
                       const std::byte* x, std::byte* y) {
  const PackedMatmul& matmul = *matrix.matmul;
  const int panels = matmul.panels();
  // All rows of a panel at once, unless workers would go idle.
  const bool even = panels % lane.workers() == 0;
  const int pieces =
      even ? 1 : std::min(CeilDiv(rows, kRowTile), lane.workers());
  const int piece_rows = TileUp(CeilDiv(rows, pieces));
  lane.For(panels * pieces, [&](int worker, int index) {
    const int panel = index / pieces;
    const int row = index % pieces * piece_rows;
    if (row >= rows) return;
    std::byte* to =
        y + (int64_t{1} * row * matmul.out() + matmul.PanelBegin(panel)) *
                matrix.y_element_bytes;
    Note(matmul.Run(worker, panel, std::min(piece_rows, rows - row),
                    x + row * matrix.x_row_bytes, to, matmul.out(),
                    Scratch(worker)));
  });
}

// x = LayerNorm(x + update), in place.
void CpuEncoder::AddAndNormalize(const Lane& lane, const CpuNorm& norm,
                                 const Chunk& chunk) {
  const int step = lane.workers() == 1 ? chunk.rows : kSharedRows;
  const int64_t x_row =
      int64_t{1} * shape_.hidden * kernels::BytesOf(weights_.type);
  lane.For(CeilDiv(chunk.rows, step), [&](int, int index) {
    const int row = index * step;
    std::byte* x = chunk.x + row * x_row;
    Note(kernels::ResidualLayerNorm(
        {.rows = std::min(step, chunk.rows - row),
         .width = shape_.hidden,
         .x_type = kernels::DataType::kF32,
         .residual_type = weights_.type,
         .y_type = weights_.type,
         .x = reinterpret_cast<const float*>(lane.update) +
              int64_t{1} * row * shape_.hidden,
         .residual = x,
         .y = x,
         .x_stride = shape_.hidden,
         .residual_stride = shape_.hidden,
         .y_stride = shape_.hidden,
         .gamma = norm.gamma.data(),
         .beta = norm.beta.data(),
         .eps = weights_.norm_eps}));
  });
}

std::byte* CpuEncoder::At(const Buffer* buffer, int lane) {
  if (buffer == nullptr) return nullptr;
  return arena_.data() + buffer->offset + lane * buffer->lane_stride;
}

std::byte* CpuEncoder::HiddenRow(int row) {
  return hidden_ +
         int64_t{1} * row * shape_.hidden * kernels::BytesOf(weights_.type);
}

void* CpuEncoder::Scratch(int worker) {
  return scratch_ == nullptr ? nullptr : scratch_ + worker * scratch_stride_;
}

void CpuEncoder::Note(KernelStatus status) {
  if (status == KernelStatus::kOk) return;
  KernelStatus none = KernelStatus::kOk;
  status_.compare_exchange_strong(none, status);
}

}  // namespace svdserve
