#include "kernels/packed_matmul.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "kernels/onednn_compat.h"

namespace svdserve::kernels {
namespace {

using dnnl::memory;

constexpr int kSmallTile = PackedMatmul::kRowTile;
// Rows of one call when there are many. 4 % faster than 16 in fp32 and 8 % in
// bf16 (README); only used where it proves to give the same bits.
constexpr int kBulkTile = 64;
// Columns of a panel, if the caller does not say: the weights of a panel stay
// in L2 and a lone tile still feeds several threads.
constexpr int kPanelColumns = 192;

size_t RoundUp(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int DefaultPanel(int out) {
  const int panels = std::max(2, (out + kPanelColumns - 1) / kPanelColumns);
  return static_cast<int>(RoundUp((out + panels - 1) / panels, 16));
}

memory::data_type DnnlType(DataType type) {
  return type == DataType::kF32 ? memory::data_type::f32
                                : memory::data_type::bf16;
}

// x [tile, in] · W [in, width] -> fp32 [tile, width], for one panel width.
struct Kernel {
  int tile = 0;
  int width = 0;
  size_t product_bytes = 0;  // rounded up to the alignment
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
};

// The argument list of one kernel on one panel for one worker, made once.
struct Call {
  memory x, y, scratch;
  std::array<dnnl_exec_arg_t, 4> args;
};

struct Panel {
  int begin = 0;
  int width = 0;
  Kernel small;
  Kernel bulk;  // tile 0: not used
  memory weights;
};

struct Worker {
  dnnl::stream stream;
  std::vector<Call> small;  // [panels]
  std::vector<Call> bulk;   // [panels]
};

bool IsValid(const PackedMatmulSpec& spec) {
  return spec.in >= 1 && spec.out >= 1 && spec.weight != nullptr &&
         spec.weight_in_stride >= 1 && spec.weight_out_stride >= 1 &&
         (spec.x_stride == 0 || spec.x_stride >= spec.in) && spec.panel >= 0 &&
         spec.workers >= 1;
}

}  // namespace

struct PackedMatmul::Impl {
  explicit Impl(const PackedMatmulSpec& spec);

  Kernel MakeKernel(int tile, int width, const memory::desc& weights) const;
  void PackPanel(const PackedMatmulSpec& spec, Panel* panel);
  Call MakeCall(const Kernel& kernel, const Panel& panel) const;
  void MakeWorkers(int count);
  bool SameRowSameBits(int panel);
  bool BulkGivesTheSameBits(int panel);
  std::vector<std::byte> ProductOf(int panel, bool bulk,
                                   const std::vector<std::byte>& x);
  std::vector<std::byte> TestRows(bool all_the_same) const;
  bool Product(const Worker& worker, const Call& call, const Kernel& kernel,
               const void* x, std::byte* scratch) const;

  int in, out;
  DataType type, out_type;
  Activation activation;
  bool accumulate;
  int64_t x_stride;
  dnnl::engine engine;
  std::vector<float> bias;
  std::vector<Panel> panels;
  std::vector<Worker> workers;
  uint64_t weight_bytes = 0;
  size_t scratch_bytes = 0;
};

PackedMatmul::Impl::Impl(const PackedMatmulSpec& spec)
    : in(spec.in),
      out(spec.out),
      type(spec.type),
      out_type(spec.out_type),
      activation(spec.activation),
      accumulate(spec.accumulate),
      x_stride(spec.x_stride == 0 ? spec.in : spec.x_stride),
      engine(dnnl::engine::kind::cpu, 0) {
  if (spec.bias != nullptr) bias.assign(spec.bias, spec.bias + out);
  weight_bytes = bias.size() * sizeof(float);
  const int step = spec.panel == 0 ? DefaultPanel(out) : spec.panel;
  for (int begin = 0; begin < out; begin += step) {
    Panel panel;
    panel.begin = begin;
    panel.width = std::min(step, out - begin);
    PackPanel(spec, &panel);
    panels.push_back(std::move(panel));
  }
  MakeWorkers(spec.workers);
}

Kernel PackedMatmul::Impl::MakeKernel(int tile, int width,
                                      const memory::desc& weights) const {
  const memory::desc x({tile, in}, DnnlType(type), memory::dims{x_stride, 1});
  const memory::desc y({tile, width}, memory::data_type::f32,
                       memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  Kernel kernel;
  kernel.tile = tile;
  kernel.width = width;
  kernel.product_bytes = RoundUp(sizeof(float) * tile * width, kAlignment);
  kernel.desc = MatmulPrimitiveDesc(engine, x, weights, y, attributes);
  kernel.primitive = dnnl::matmul(kernel.desc);
  return kernel;
}

void PackedMatmul::Impl::PackPanel(const PackedMatmulSpec& spec, Panel* panel) {
  const memory::desc any({in, panel->width}, DnnlType(type),
                         memory::format_tag::any);
  panel->small = MakeKernel(kSmallTile, panel->width, any);
  const memory::desc packed = panel->small.desc.weights_desc();
  try {
    panel->bulk = MakeKernel(kBulkTile, panel->width, packed);
  } catch (const dnnl::error&) {
    panel->bulk = Kernel();  // this layout suits the small tile only
  }
  const memory::desc plain(
      {in, panel->width}, memory::data_type::f32,
      memory::dims{spec.weight_in_stride, spec.weight_out_stride});
  // oneDNN does not write through the pointer.
  memory from(
      plain, engine,
      const_cast<float*>(spec.weight + panel->begin * spec.weight_out_stride));
  panel->weights = memory(packed, engine);
  dnnl::stream stream(engine);
  dnnl::reorder(from, panel->weights).execute(stream, from, panel->weights);
  stream.wait();
  weight_bytes += packed.get_size();
}

Call PackedMatmul::Impl::MakeCall(const Kernel& kernel,
                                  const Panel& panel) const {
  Call call;
  if (kernel.tile == 0) return call;
  call.x = memory(kernel.desc.src_desc(), engine, DNNL_MEMORY_NONE);
  call.y = memory(kernel.desc.dst_desc(), engine, DNNL_MEMORY_NONE);
  call.scratch =
      memory(kernel.desc.scratchpad_desc(), engine, DNNL_MEMORY_NONE);
  call.args = {{{DNNL_ARG_SRC, call.x.get()},
                {DNNL_ARG_WEIGHTS, panel.weights.get()},
                {DNNL_ARG_DST, call.y.get()},
                {DNNL_ARG_SCRATCHPAD, call.scratch.get()}}};
  return call;
}

void PackedMatmul::Impl::MakeWorkers(int count) {
  for (int i = 0; i < count; ++i) {
    Worker worker;
    worker.stream = dnnl::stream(engine);
    for (const Panel& panel : panels) {
      worker.small.push_back(MakeCall(panel.small, panel));
      worker.bulk.push_back(MakeCall(panel.bulk, panel));
    }
    workers.push_back(std::move(worker));
  }
  for (const Panel& panel : panels) {
    for (const Kernel* kernel : {&panel.small, &panel.bulk}) {
      if (kernel->tile == 0) continue;
      scratch_bytes = std::max(
          scratch_bytes,
          kernel->product_bytes + kernel->desc.scratchpad_desc().get_size());
    }
  }
  scratch_bytes = RoundUp(scratch_bytes, kAlignment);
}

// x [tile, in] · panel -> the start of `scratch`.
bool PackedMatmul::Impl::Product(const Worker& worker, const Call& call,
                                 const Kernel& kernel, const void* x,
                                 std::byte* scratch) const {
  std::byte* library_scratch = scratch + kernel.product_bytes;
  return dnnl_memory_set_data_handle(call.x.get(), const_cast<void*>(x)) ==
             dnnl_success &&
         dnnl_memory_set_data_handle(call.y.get(), scratch) == dnnl_success &&
         dnnl_memory_set_data_handle(call.scratch.get(), library_scratch) ==
             dnnl_success &&
         dnnl_primitive_execute(kernel.primitive.get(), worker.stream.get(),
                                call.args.size(),
                                call.args.data()) == dnnl_success;
}

// The checks below run once, at load: the promise that a row's bits depend on
// the row alone rests on how oneDNN orders its sums, so it is not taken on
// trust.

// kBulkTile rows of x, deterministic values of all magnitudes near one.
std::vector<std::byte> PackedMatmul::Impl::TestRows(bool all_the_same) const {
  const size_t size = BytesOf(type);
  std::vector<std::byte> x(kBulkTile * x_stride * size + kAlignment);
  uint32_t state = 1;
  for (int64_t i = 0; i < kBulkTile * x_stride; ++i) {
    if (all_the_same && i % x_stride == 0) state = 1;
    state = state * 1664525u + 1013904223u;
    const float value = static_cast<float>(state >> 8) / (1 << 23) - 1.0f;
    const uint16_t narrow = Bf16FromFloat(value);
    std::memcpy(&x[i * size],
                type == DataType::kF32 ? static_cast<const void*>(&value)
                                       : static_cast<const void*>(&narrow),
                size);
  }
  return x;
}

// The product of kBulkTile rows, by bulk or by small calls.
std::vector<std::byte> PackedMatmul::Impl::ProductOf(
    int panel, bool bulk, const std::vector<std::byte>& x) {
  const Kernel& kernel = bulk ? panels[panel].bulk : panels[panel].small;
  const Call& call = bulk ? workers[0].bulk[panel] : workers[0].small[panel];
  const size_t bytes = sizeof(float) * kernel.tile * kernel.width;
  std::vector<std::byte> result;
  std::vector<std::byte> scratch(scratch_bytes + kAlignment);
  void* aligned = scratch.data();
  size_t space = scratch.size();
  std::align(kAlignment, scratch_bytes, aligned, space);
  for (int row = 0; row < kBulkTile; row += kernel.tile) {
    const std::byte* rows = x.data() + row * x_stride * BytesOf(type);
    auto* product = static_cast<std::byte*>(aligned);
    if (!Product(workers[0], call, kernel, rows, product)) return {};
    result.insert(result.end(), product, product + bytes);
  }
  return result;
}

bool PackedMatmul::Impl::SameRowSameBits(int panel) {
  const std::vector<std::byte> y = ProductOf(panel, false, TestRows(true));
  if (y.empty()) return false;
  const size_t row = y.size() / kBulkTile;
  for (int i = 1; i < kBulkTile; ++i) {
    if (std::memcmp(y.data(), y.data() + i * row, row) != 0) return false;
  }
  return true;
}

bool PackedMatmul::Impl::BulkGivesTheSameBits(int panel) {
  const std::vector<std::byte> x = TestRows(false);
  const std::vector<std::byte> small = ProductOf(panel, false, x);
  return !small.empty() && small == ProductOf(panel, true, x);
}

PackedMatmul::PackedMatmul(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}
PackedMatmul::~PackedMatmul() = default;

bool PackedMatmul::Supports(DataType type) {
  constexpr int kSize = 16;
  const std::vector<float> weight(kSize * kSize, 1.0f);
  std::unique_ptr<PackedMatmul> matmul;
  return Create({.in = kSize,
                 .out = kSize,
                 .type = type,
                 .weight = weight.data(),
                 .weight_in_stride = kSize,
                 .weight_out_stride = 1},
                &matmul) == KernelStatus::kOk;
}

KernelStatus PackedMatmul::Create(const PackedMatmulSpec& spec,
                                  std::unique_ptr<PackedMatmul>* matmul) {
  if (!IsValid(spec)) return KernelStatus::kInvalidArgument;
  KeepOneDnnToThisThread();
  try {
    auto impl = std::make_unique<Impl>(spec);
    for (int i = 0; i < impl->panels.size(); ++i) {
      if (!impl->SameRowSameBits(i)) return KernelStatus::kUnsupported;
      Kernel& bulk = impl->panels[i].bulk;
      if (bulk.tile != 0 && !impl->BulkGivesTheSameBits(i)) bulk.tile = 0;
    }
    matmul->reset(new PackedMatmul(std::move(impl)));
  } catch (const dnnl::error& error) {
    return error.status == dnnl_unimplemented   ? KernelStatus::kUnsupported
           : error.status == dnnl_out_of_memory ? KernelStatus::kOutOfMemory
                                                : KernelStatus::kInternal;
  } catch (const std::bad_alloc&) {
    return KernelStatus::kOutOfMemory;
  }
  return KernelStatus::kOk;
}

int PackedMatmul::in() const { return impl_->in; }
int PackedMatmul::out() const { return impl_->out; }
int PackedMatmul::panels() const {
  return static_cast<int>(impl_->panels.size());
}
int PackedMatmul::PanelBegin(int panel) const {
  return impl_->panels[panel].begin;
}
int PackedMatmul::PanelWidth(int panel) const {
  return impl_->panels[panel].width;
}
bool PackedMatmul::PanelHasBulkTile(int panel) const {
  return impl_->panels[panel].bulk.tile != 0;
}
uint64_t PackedMatmul::weight_bytes() const { return impl_->weight_bytes; }
size_t PackedMatmul::scratch_bytes() const { return impl_->scratch_bytes; }

KernelStatus PackedMatmul::Run(int worker, int panel, int rows, const void* x,
                               void* y, int64_t y_stride, void* scratch) const {
  const Impl& impl = *impl_;
  if (worker < 0 || worker >= impl.workers.size() || panel < 0 ||
      panel >= impl.panels.size() || rows < 0 || x == nullptr || y == nullptr ||
      scratch == nullptr) {
    return KernelStatus::kInvalidArgument;
  }
  KeepOneDnnToThisThread();
  const Worker& context = impl.workers[worker];
  const Panel& p = impl.panels[panel];
  auto* product = static_cast<std::byte*>(scratch);
  EpilogueParams epilogue{
      .columns = p.width,
      .c = reinterpret_cast<const float*>(product),
      .c_stride = p.width,
      .bias = impl.bias.empty() ? nullptr : &impl.bias[p.begin],
      .activation = impl.activation,
      .accumulate = impl.accumulate,
      .y_type = impl.out_type,
      .y_stride = y_stride};
  const int64_t x_row_bytes = impl.x_stride * BytesOf(impl.type);
  const int64_t y_row_bytes = y_stride * BytesOf(impl.out_type);
  for (int row = 0; row < rows;) {
    const bool bulk = p.bulk.tile != 0 && rows - row > kBulkTile - kSmallTile;
    const Kernel& kernel = bulk ? p.bulk : p.small;
    const Call& call = (bulk ? context.bulk : context.small)[panel];
    const auto* x_rows = static_cast<const std::byte*>(x) + row * x_row_bytes;
    if (!impl.Product(context, call, kernel, x_rows, product)) {
      return KernelStatus::kInternal;
    }
    epilogue.rows = std::min(kernel.tile, rows - row);
    epilogue.y = static_cast<std::byte*>(y) + row * y_row_bytes;
    const KernelStatus status = Epilogue(epilogue);
    if (status != KernelStatus::kOk) return status;
    row += kernel.tile;
  }
  return KernelStatus::kOk;
}

}  // namespace svdserve::kernels
