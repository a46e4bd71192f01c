// The emulator runs what is right and stops at what is wrong.
#include "tests/kernels/cuda/emulator/emulator.h"

#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {
namespace {

struct Params {
  const uint16_t* a = nullptr;  // [16, 16]
  const uint16_t* b = nullptr;  // [8, 16]
  float* y = nullptr;
};

// ---- y [16, 8] = a · bᵀ by one warp ----

template <typename T>
__global__ void Multiply(const Params params) {
  unsigned char* a = SharedMemory();  // [16, 16]
  unsigned char* b = a + 512;         // [8, 16]
  const int lane = threadIdx.x;
  CopyAsync16(a + lane * 16, params.a + lane * 8);
  CopyAsync16(b + lane % 16 * 16, params.b + lane % 16 * 8);
  CopyCommit();
  CopyWait<0>();
  __syncwarp();
  uint32_t a_fragment[4];
  uint32_t b_fragment[4];
  LoadMatrix4(a_fragment, a + lane % 16 * 32 + lane / 16 * 16);
  LoadMatrix4(b_fragment, b + lane % 8 * 32 + lane / 8 % 2 * 16);
  float c[4] = {};
  Mma<T>(c, a_fragment, b_fragment[0], b_fragment[1]);
  for (int i = 0; i < 4; ++i) {
    params.y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = c[i];
  }
}

class MultiplyTest : public testing::TestWithParam<Type> {};

TEST_P(MultiplyTest, MatchesPlainLoops) {
  const Type type = GetParam();
  Random random;
  const auto a = Rounded(type, random.Normal(16 * 16));
  const auto b = Rounded(type, random.Normal(8 * 16));
  std::vector<double> exact(16 * 8);
  for (int i = 0; i < 16 * 8; ++i) {
    for (int k = 0; k < 16; ++k) {
      exact[i] += double{a[i / 8 * 16 + k]} * b[i % 8 * 16 + k];
    }
  }
  const DeviceBuffer<uint16_t> a_device(Encode(type, a));
  const DeviceBuffer<uint16_t> b_device(Encode(type, b));
  DeviceBuffer<float> y(16 * 8);
  const auto kernel =
      type == Type::kBF16 ? Multiply<__nv_bfloat16> : Multiply<__half>;
  ASSERT_TRUE(Ran(Launch(kernel, dim3(1), 32, 768, nullptr,
                         Params{a_device.data(), b_device.data(), y.data()})));
  EXPECT_LT(RelativeError(y.ToHost(), exact), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Types, MultiplyTest,
                         testing::Values(Type::kBF16, Type::kF16),
                         testing::PrintToStringParamName());

TEST(ConversionTest, AgreesWithTheToolkitOnAllPatterns) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = __half2float(__ushort_as_half(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(emulator::FloatFromF16(half)));
      continue;
    }
    EXPECT_EQ(emulator::FloatFromF16(half), value);
    EXPECT_EQ(emulator::Bf16FromFloat(value),
              __bfloat16_as_ushort(__float2bfloat16_rn(value)));
  }
}

// ---- Every thread of every block, in two orders ----

__global__ void SumOverThreads(const Params params) {
  float* shared = reinterpret_cast<float*>(SharedMemory());  // [threads]
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  float sum = 0;
  for (int i = threadIdx.x % 32; i < blockDim.x; i += 32) sum += shared[i];
  for (int mask = 1; mask < 32; mask *= 2) sum += ShuffleXor(sum, mask);
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + 3 * blockIdx.z);
  params.y[block * blockDim.x + threadIdx.x] = sum;
}

TEST(EmulatorTest, RunsAllThreadsOfAllBlocks) {
  DeviceBuffer<float> y(2 * 3 * 4 * 128);
  ASSERT_TRUE(Ran(Launch(SumOverThreads, dim3(2, 3, 4), 128, 512, nullptr,
                         Params{nullptr, nullptr, y.data()})));
  for (float sum : y.ToHost()) EXPECT_EQ(sum, 127 * 128 / 2);
}

TEST(EmulatorTest, RefusesWhatADeviceRefuses) {
  const Params params;
  emulator::SetSharedLimit(99 << 10);
  EXPECT_EQ(
      Launch(SumOverThreads, dim3(1), 32, (99 << 10) + 1, nullptr, params),
      cudaErrorInvalidValue);
  emulator::SetSharedLimit(227 << 10);
  EXPECT_EQ(Launch(SumOverThreads, dim3(0), 32, 0, nullptr, params),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(Launch(SumOverThreads, dim3(1), 2048, 0, nullptr, params),
            cudaErrorInvalidConfiguration);
}

// ---- What is wrong ----

__global__ void ReadBeforeWait(const Params params) {
  float* shared = reinterpret_cast<float*>(SharedMemory());
  CopyAsync16(shared + threadIdx.x * 4, params.a + threadIdx.x * 8);
  CopyCommit();
  params.y[threadIdx.x] = shared[threadIdx.x * 4];
  CopyWait<0>();
}

TEST(EmulatorTest, ShowsNanBeforeACopyIsWaitedFor) {
  const DeviceBuffer<uint16_t> a(std::vector<uint16_t>(32 * 8));
  DeviceBuffer<float> y(std::vector<float>(32));
  ASSERT_TRUE(Ran(Launch(ReadBeforeWait, dim3(1), 32, 512, nullptr,
                         Params{a.data(), nullptr, y.data()})));
  for (float value : y.ToHost()) EXPECT_TRUE(std::isnan(value));
}

__global__ void NoBarrier(const Params params) {
  float* shared = reinterpret_cast<float*>(SharedMemory());
  shared[threadIdx.x] = 1;
  params.y[blockIdx.x * 64 + threadIdx.x] = shared[threadIdx.x ^ 32];
}

TEST(EmulatorTest, ShowsNanWhereABarrierIsMissing) {
  DeviceBuffer<float> y(std::vector<float>(2 * 64));
  ASSERT_TRUE(Ran(Launch(NoBarrier, dim3(2), 64, 256, nullptr,
                         Params{nullptr, nullptr, y.data()})));
  int nans = 0;
  for (float value : y.ToHost()) nans += std::isnan(value);
  EXPECT_EQ(nans, 64);  // one order each block
}

__global__ void HalfABarrier(const Params) {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void ExitsEarly(const Params params) {
  if (threadIdx.x == 7) return;
  params.y[0] = ShuffleXor(1, 1);
}
__global__ void BarrierAgainstShuffle(const Params params) {
  if (threadIdx.x % 32 == 3) {
    __syncthreads();
  } else {
    params.y[0] = ShuffleXor(1, 1);
  }
}
__global__ void ForgetsACopy(const Params params) {
  CopyAsync16(SharedMemory(), params.a);
}
__global__ void OddAddress(const Params params) {
  CopyAsync16(SharedMemory() + 8, params.a);
}
__global__ void WritesPastItsMemory(const Params) { SharedMemory()[512] = 1; }
__global__ void WaitsInOneWarp(const Params) {
  if (threadIdx.x >= 32) WaitForPriorKernels();
}
__global__ void WaitsTwice(const Params) {
  WaitForPriorKernels();
  WaitForPriorKernels();
}
__global__ void StartsTheNextTooEarly(const Params) {
  LetNextKernelStart();
  WaitForPriorKernels();
}

TEST(EmulatorDeathTest, NamesWhatDiverges) {
  const DeviceBuffer<uint16_t> a(std::vector<uint16_t>(8));
  DeviceBuffer<float> y(1);
  const Params params{a.data(), a.data(), y.data()};
  const auto run = [&params](void (*kernel)(Params)) {
    (void)Launch(kernel, dim3(1), 64, 512, nullptr, params);
  };
  EXPECT_DEATH(run(HalfABarrier),
               "thread 32 is at the kernel's end.*"
               "this one is at __syncthreads");
  EXPECT_DEATH(run(ExitsEarly),
               "thread 7 is at the kernel's end.*"
               "this one is at ShuffleXor");
  EXPECT_DEATH(run(BarrierAgainstShuffle), "thread 3 is at __syncthreads");
  EXPECT_DEATH(run(ForgetsACopy), "copies that nobody waits for");
  EXPECT_DEATH(run(OddAddress), "no multiple of 16 in CopyAsync16");
  EXPECT_DEATH(run(WritesPastItsMemory),
               "outside its shared memory|AddressSanitizer");
}

TEST(EmulatorDeathTest, NamesDependentKernelsThatDoNotWait) {
  const auto run = [](void (*kernel)(Params)) {
    (void)LaunchDependent(kernel, dim3(1), 64, 0, nullptr, Params());
  };
  EXPECT_DEATH(run(WaitsInOneWarp),
               "did not wait for prior kernels is at the kernel's end");
  EXPECT_DEATH(run(WaitsTwice), "a second time");
  EXPECT_DEATH(run(StartsTheNextTooEarly), "too early");
}

}  // namespace
}  // namespace svdserve::cuda
