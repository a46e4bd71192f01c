// Runs a kernel on the CPU: one fiber per thread of a block, block after block,
// always in the same order. README.md says what is checked.
//
// Launches of several host threads run one after another.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_EMULATOR_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_EMULATOR_H_

#include <cuda_runtime_api.h>

#include <bit>
#include <cstdint>
#include <functional>

#include "tests/kernels/cuda/emulator/device.h"

namespace svdserve::cuda::emulator {

// ---- On the host ----

// Calls `body` as every thread of the grid. `name` is for messages. `waits`:
// ends the process where a thread does not wait for prior kernels.
cudaError_t Run(const char* name, dim3 grid, int threads, int shared_bytes,
                const std::function<void()>& body, bool waits = false);

// What a launch may ask for, 227 KB at first: a launch of more fails.
void SetSharedLimit(int bytes);

// Most shared bytes that a launch has asked for since the last call.
int TakeSharedPeak();

// ---- In device code ----

unsigned char* SharedMemory();

// The first is called once, the second after it.
void WaitForPriorKernels();
void LetNextKernelStart();

// Copies when it is waited for; until then `shared` holds NaN. Null: zeros.
void CopyAsync16(void* shared, const void* global);
void CopyCommit();
void CopyWait(int pending);

// What a warp does in step: the last of its lanes to arrive does the work of
// all. `lanes` are what each of the 32 handed in.
struct Operation {
  const char* name;
  void (*run)(void* const* lanes);
};
void Collective(const Operation& operation, void* lane);

struct MatrixLane {
  uint32_t* r;      // [4]
  const void* row;  // 16 bytes
};
extern const Operation kLoadMatrix4;
extern const Operation kLoadMatrix4Transposed;

struct MmaLane {
  float* c;           // [4]
  const uint32_t* a;  // [4]
  uint32_t b[2];
};
extern const Operation kMmaBf16;
extern const Operation kMmaF16;

struct ShuffleLane {
  float value;
  int mask;
  float result;
};
extern const Operation kShuffleXor;

// Ends the process: a message, the kernel, the block and the thread.
[[noreturn]] void Die(const char* message);
// Dies unless these bytes lie in the block's shared memory, aligned to 16.
void CheckShared(const void* pointer, int bytes, const char* what);

// To nearest even.
inline uint16_t Bf16FromFloat(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float FloatFromBf16(uint16_t x) {
  return std::bit_cast<float>(uint32_t{x} << 16);
}
inline float FloatFromF16(uint16_t x) {
  const uint32_t magnitude = uint32_t{x} << 13 & 0x0fffe000u;
  const uint32_t sign = uint32_t{x} << 16 & 0x80000000u;
  // 2^112 moves the exponent's bias; infinity and NaN keep all ones.
  const uint32_t finite =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;
  return std::bit_cast<float>(sign |
                              (magnitude >= 0x0f800000u ? special : finite));
}

}  // namespace svdserve::cuda::emulator

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_EMULATOR_H_
