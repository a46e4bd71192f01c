#include "tools/compress/factoring.h"

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tools/compress/convert.h"

namespace svdserve {
namespace {

struct Place {
  const char* name;  // within "encoder.layer.N."
  Linear EncoderLayer::*linear;
};

constexpr std::array<Place, kMatrixKinds> kPlaces = {{
    {"attention.self.query", &EncoderLayer::query},
    {"attention.self.key", &EncoderLayer::key},
    {"attention.self.value", &EncoderLayer::value},
    {"attention.output.dense", &EncoderLayer::attention_output},
    {"intermediate.dense", &EncoderLayer::ffn_in},
    {"output.dense", &EncoderLayer::ffn_out},
}};

absl::StatusOr<RawTensor> RoundFactor(const std::vector<float>& values,
                                      std::vector<int64_t> shape, DType dtype,
                                      const std::string& name) {
  absl::StatusOr<RawTensor> rounded = Round(values, std::move(shape), dtype);
  if (rounded.ok()) return rounded;
  return absl::Status(rounded.status().code(),
                      absl::StrCat("tensor \"", name, "\": ",
                                   std::string(rounded.status().message())));
}

absl::Status Factor(const Method& method, std::optional<DType> dtype,
                    Factoring* matrix) {
  MatrixReport& report = matrix->report;
  if (report.rank == 0) return absl::OkStatus();
  const Linear& linear = *matrix->linear;
  absl::StatusOr<Factors> factors =
      method.Factor({.name = report.name,
                     .in = linear.in,
                     .out = linear.out,
                     .values = linear.weight.ToF32()},
                    report.rank);
  if (!factors.ok()) return factors.status();
  const DType stored = dtype.value_or(linear.weight.dtype());
  absl::StatusOr<RawTensor> u =
      RoundFactor(factors->u, {linear.in, report.rank}, stored,
                  absl::StrCat(report.name, ".U"));
  if (!u.ok()) return u.status();
  absl::StatusOr<RawTensor> v =
      RoundFactor(factors->v, {report.rank, linear.out}, stored,
                  absl::StrCat(report.name, ".V"));
  if (!v.ok()) return v.status();
  matrix->u = *std::move(u);
  matrix->v = *std::move(v);
  report.relative_error = factors->relative_error;
  return absl::OkStatus();
}

// The time that gesdd takes, in some unit.
double Cost(const Factoring& matrix) {
  const MatrixSize& size = matrix.report.size;
  if (matrix.report.rank == 0) return 0;
  return static_cast<double>(std::min(size.in, size.out)) * size.in * size.out;
}

// The state that the threads of one FactorAll() share.
class Work {
 public:
  Work(const Method& method, const FactoringOptions& options,
       std::vector<Factoring>& matrices)
      : method_(method), options_(options), matrices_(matrices) {
    for (const Factoring& matrix : matrices_) total_cost_ += Cost(matrix);
  }

  void Run() {
    while (Factoring* matrix = Next()) {
      const absl::Status status = Factor(method_, options_.dtype, matrix);
      Finish(*matrix, status);
    }
  }

  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  Factoring* Next() {
    absl::MutexLock lock(&mutex_);
    const bool stop = !status_.ok() || next_ == matrices_.size();
    return stop ? nullptr : &matrices_[next_++];
  }

  void Finish(const Factoring& matrix, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    status_.Update(status);  // keeps the first error
    done_cost_ += Cost(matrix);
    const double share = total_cost_ > 0 ? done_cost_ / total_cost_ : 1;
    if (options_.progress && !options_.progress(share)) {
      status_.Update(absl::CancelledError("interrupted; nothing was written"));
    }
  }

  const Method& method_;
  const FactoringOptions& options_;
  std::vector<Factoring>& matrices_;  // each is one thread's at a time
  double total_cost_ = 0;

  absl::Mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  double done_cost_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

LayerSizes SizesOf(const EncoderLayer& layer) {
  LayerSizes sizes;
  for (int k = 0; k < kMatrixKinds; ++k) {
    const Linear& linear = layer.*kPlaces[k].linear;
    sizes[k] = {.in = linear.in, .out = linear.out};
  }
  return sizes;
}

const Linear& LinearOf(const EncoderLayer& layer, MatrixKind kind) {
  return layer.*kPlaces[static_cast<int>(kind)].linear;
}

Linear& LinearOf(EncoderLayer& layer, MatrixKind kind) {
  return layer.*kPlaces[static_cast<int>(kind)].linear;
}

std::vector<Factoring> ListMatrices(const Model& model,
                                    const KindRanks& ranks) {
  std::vector<Factoring> matrices;
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    const LayerSizes sizes = SizesOf(model.layers[layer]);
    for (int k = 0; k < kMatrixKinds; ++k) {
      Factoring matrix;
      matrix.report = {
          .name = absl::StrCat("encoder.layer.", layer, ".", kPlaces[k].name),
          .layer = static_cast<int>(layer),
          .kind = static_cast<MatrixKind>(k),
          .dense_size = sizes[k],
          .size = sizes[k],
          .rank = ranks[k]};
      matrix.linear = &(model.layers[layer].*kPlaces[k].linear);
      matrices.push_back(std::move(matrix));
    }
  }
  return matrices;
}

absl::Status FactorAll(const Method& method, const FactoringOptions& options,
                       std::vector<Factoring>* matrices) {
  int count = options.threads > 0
                  ? options.threads
                  : static_cast<int>(std::thread::hardware_concurrency());
  count = std::clamp<int>(count, 1, std::max<int>(1, matrices->size()));
  Work work(method, options, *matrices);
  std::vector<std::thread> threads;
  for (int i = 1; i < count; ++i) threads.emplace_back([&] { work.Run(); });
  work.Run();
  for (std::thread& thread : threads) thread.join();
  return work.status();
}

}  // namespace svdserve
