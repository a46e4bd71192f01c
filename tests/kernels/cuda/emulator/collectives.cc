// What a warp does in step: ldmatrix, mma and shuffles of all 32 lanes at once.
#include <cstring>

#include "tests/kernels/cuda/emulator/emulator.h"

namespace svdserve::cuda::emulator {
namespace {

constexpr int kLanes = 32;

uint16_t ElementAt(const void* row, int column) {
  uint16_t value;
  std::memcpy(&value, static_cast<const unsigned char*>(row) + 2 * column, 2);
  return value;
}

template <bool kTransposed>
void LoadMatrices(void* const* lanes) {
  const void* rows[kLanes];  // [4 matrices, 8]
  for (int t = 0; t < kLanes; ++t) {
    rows[t] = static_cast<const MatrixLane*>(lanes[t])->row;
    CheckShared(rows[t], 16,
                kTransposed ? "LoadMatrix4Transposed()" : "LoadMatrix4()");
  }
  for (int t = 0; t < kLanes; ++t) {
    uint32_t* r = static_cast<const MatrixLane*>(lanes[t])->r;
    const int major = t / 4;
    const int minor = t % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      const void* const* matrix = rows + 8 * i;
      const uint32_t low = kTransposed ? ElementAt(matrix[minor], major)
                                       : ElementAt(matrix[major], minor);
      const uint32_t high = kTransposed ? ElementAt(matrix[minor + 1], major)
                                        : ElementAt(matrix[major], minor + 1);
      r[i] = low | high << 16;
    }
  }
}

// Places of fragments: kernels/cuda/ptx.cuh. Sums in fp32, k ascending.
template <float (*kToFloat)(uint16_t)>
void MultiplyAdd(void* const* lanes) {
  float a[16][16];  // [row, k]
  float b[16][8];   // [k, column]
  float c[16][8];   // [row, column]
  for (int t = 0; t < kLanes; ++t) {
    const MmaLane& lane = *static_cast<const MmaLane*>(lanes[t]);
    const int major = t / 4;
    const int minor = t % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      float* pair = &a[major + i % 2 * 8][minor + i / 2 * 8];
      pair[0] = kToFloat(static_cast<uint16_t>(lane.a[i]));
      pair[1] = kToFloat(static_cast<uint16_t>(lane.a[i] >> 16));
    }
    for (int i = 0; i < 2; ++i) {
      b[minor + i * 8][major] = kToFloat(static_cast<uint16_t>(lane.b[i]));
      b[minor + i * 8 + 1][major] =
          kToFloat(static_cast<uint16_t>(lane.b[i] >> 16));
    }
    std::memcpy(&c[major][minor], lane.c, 8);
    std::memcpy(&c[major + 8][minor], lane.c + 2, 8);
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) {
        c[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (int t = 0; t < kLanes; ++t) {
    const MmaLane& lane = *static_cast<const MmaLane*>(lanes[t]);
    std::memcpy(lane.c, &c[t / 4][t % 4 * 2], 8);
    std::memcpy(lane.c + 2, &c[t / 4 + 8][t % 4 * 2], 8);
  }
}

void Shuffle(void* const* lanes) {
  const int mask = static_cast<const ShuffleLane*>(lanes[0])->mask;
  if (mask < 0 || mask >= kLanes) Die("a mask out of range in ShuffleXor();");
  for (int t = 0; t < kLanes; ++t) {
    ShuffleLane& lane = *static_cast<ShuffleLane*>(lanes[t]);
    if (lane.mask != mask) Die("masks differ in ShuffleXor();");
    lane.result = static_cast<const ShuffleLane*>(lanes[t ^ mask])->value;
  }
}

}  // namespace

const Operation kLoadMatrix4{"LoadMatrix4()", LoadMatrices<false>};
const Operation kLoadMatrix4Transposed{"LoadMatrix4Transposed()",
                                       LoadMatrices<true>};
const Operation kMmaBf16{"Mma<__nv_bfloat16>()", MultiplyAdd<FloatFromBf16>};
const Operation kMmaF16{"Mma<__half>()", MultiplyAdd<FloatFromF16>};
const Operation kShuffleXor{"ShuffleXor()", Shuffle};

}  // namespace svdserve::cuda::emulator
