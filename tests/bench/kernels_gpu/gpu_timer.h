// Times kernels by CUDA events around replays of a graph, on buffers of random
// values that rotate, so that inputs come from memory and not from L2.
#ifndef SVDSERVE_TESTS_BENCH_KERNELS_GPU_GPU_TIMER_H_
#define SVDSERVE_TESTS_BENCH_KERNELS_GPU_GPU_TIMER_H_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

namespace svdserve {

// A failed call ends the program: its figures would mean nothing.
inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Device memory that lives as long as the object.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t bytes) {
    void* data = nullptr;
    Check(cudaMalloc(&data, std::max<size_t>(bytes, 16)), "cudaMalloc");
    data_.reset(data);
  }
  void* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(void* data) const { cudaFree(data); }
  };
  std::unique_ptr<void, Free> data_;
};

// Normally distributed values: drawn once on the host, then tiled over a buffer
// by copies on the device.
class RandomSource {
 public:
  explicit RandomSource(float deviation)
      : bf16_(kPeriod * 2), f32_(kPeriod * 4) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> values(kPeriod);
    std::vector<uint16_t> halves(kPeriod);
    for (size_t i = 0; i < kPeriod; ++i) {
      values[i] = normal(random);
      uint32_t bits;
      std::memcpy(&bits, &values[i], sizeof(bits));
      halves[i] = static_cast<uint16_t>((bits + 0x8000u) >> 16);
    }
    Check(cudaMemcpy(f32_.get(), values.data(), kPeriod * 4,
                     cudaMemcpyHostToDevice),
          "cudaMemcpy");
    Check(cudaMemcpy(bf16_.get(), halves.data(), kPeriod * 2,
                     cudaMemcpyHostToDevice),
          "cudaMemcpy");
  }
  std::shared_ptr<DeviceBuffer> BF16(size_t count) {
    return Tiled(bf16_, 2, count);
  }
  std::shared_ptr<DeviceBuffer> F32(size_t count) {
    return Tiled(f32_, 4, count);
  }

 private:
  static constexpr size_t kPeriod =
      (1 << 22) - 3;  // no row's length divides it

  static std::shared_ptr<DeviceBuffer> Tiled(const DeviceBuffer& source,
                                             size_t element, size_t count) {
    auto buffer = std::make_shared<DeviceBuffer>(count * element);
    for (size_t at = 0; at < count; at += kPeriod) {
      Check(cudaMemcpy(static_cast<char*>(buffer->get()) + at * element,
                       source.get(), std::min(kPeriod, count - at) * element,
                       cudaMemcpyDeviceToDevice),
            "cudaMemcpy");
    }
    return buffer;
  }

  DeviceBuffer bf16_;
  DeviceBuffer f32_;
};

// Copies of a call's buffers: enough to exceed the L2, 16 at most.
inline int SetsFor(size_t set_bytes) {
  constexpr size_t kColdBytes = size_t{128} << 20;
  return static_cast<int>(std::clamp<size_t>(
      (kColdBytes + set_bytes - 1) / std::max<size_t>(set_bytes, 1), 1, 16));
}

// One launch on a stream.
using Call = std::function<cudaError_t(cudaStream_t)>;

struct Timing {
  cudaError_t error = cudaSuccess;  // of a launch: the shape is not taken, say
  double median_ms = 0;             // of one call
  int replays = 0;
};

// The median over replays of a graph of `calls` in turn, at least 8, for about
// `seconds` of device time.
inline Timing TimeCalls(const std::vector<Call>& calls, double seconds) {
  Timing timing;
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "cudaStreamCreate");
  for (const Call& call : calls) {
    if (timing.error == cudaSuccess) timing.error = call(stream);
  }
  Check(cudaStreamSynchronize(stream), "first launches");
  if (timing.error != cudaSuccess) {
    cudaStreamDestroy(stream);
    return timing;
  }
  const int rounds = (8 + calls.size() - 1) / calls.size();
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  for (int i = 0; i < rounds; ++i) {
    for (const Call& call : calls) Check(call(stream), "captured launch");
  }
  cudaGraph_t graph;
  Check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t replay;
  Check(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  cudaEvent_t start, end;
  Check(cudaEventCreate(&start), "cudaEventCreate");
  Check(cudaEventCreate(&end), "cudaEventCreate");
  const auto once = [&] {
    Check(cudaEventRecord(start, stream), "cudaEventRecord");
    Check(cudaGraphLaunch(replay, stream), "cudaGraphLaunch");
    Check(cudaEventRecord(end, stream), "cudaEventRecord");
    Check(cudaEventSynchronize(end), "replay");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, start, end), "cudaEventElapsedTime");
    return static_cast<double>(ms);
  };
  once();
  const double estimate = std::max(once(), 1e-3);
  timing.replays =
      static_cast<int>(std::clamp(seconds * 1e3 / estimate, 7.0, 500.0));
  std::vector<double> times;
  for (int i = 0; i < timing.replays; ++i) times.push_back(once());
  std::sort(times.begin(), times.end());
  timing.median_ms = times[times.size() / 2] / (rounds * calls.size());
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return timing;
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_BENCH_KERNELS_GPU_GPU_TIMER_H_
