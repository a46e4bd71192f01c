#!/usr/bin/env python3
"""Writes wgmma.cuh: an instruction's registers must be named one by one.

  kernels/cuda/hopper/make_wgmma.py           writes it beside this file
  kernels/cuda/hopper/make_wgmma.py --check   exits 1 if it is not what this writes
"""

import pathlib
import sys
import textwrap

COLUMNS = range(16, 257, 16)

HEAD = """\
// wgmma: products of a warpgroup (128 threads), issued and awaited in groups.
// Written by make_wgmma.py; change that.
//
//   WgmmaFence();                  // after registers were written
//   Wgmma<T>(d, a, b, false);      // d = a·bᵀ, in the background
//   Wgmma<T>(d, a, b, true);       // d += a·bᵀ
//   WgmmaCommit();
//   WgmmaWait<0>();                // now d may be read, a and b written
//
// d is [64, N], in fp32: N / 2 registers. Warp w of the warpgroup has rows 16w
// to 16w + 15; of each 8 columns thread t has d[0], d[1] = (t / 4, 2 (t % 4))
// and the next, d[2], d[3] = the same of row t / 4 + 8: as Mma() in ptx.cuh.
// a is [64, 16], b is [N, 16]: shared memory under descriptors, or a in
// registers as Mma() has it. Sums in the same order as mma.sync give its bits.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_WGMMA_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_WGMMA_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace svdserve::cuda::hopper {

// ---- Descriptors of operands in shared memory ----
//
// Swizzled tiles as TensorCopy() writes them, their rows 128 (64) bytes wide,
// at a multiple of 1024 bytes. Eight rows are 1024 (512) bytes: a row offset
// that is a multiple of 8 rows is added to the address. The next 16 columns of
// k are 32 bytes further, which is added to the address too, or, as 2 for each
// 32 bytes, to the descriptor.

// K-major: rows of the tile are rows of a or b, their 64 columns are k.
__device__ inline uint64_t Descriptor128(uint32_t shared_address) {
  return uint64_t{(shared_address & 0x3ffff) >> 4} | uint64_t{1} << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
__device__ inline uint64_t Descriptor128(const void* shared) {
  return Descriptor128(SharedAddress(shared));
}
// The same of rows of 32 columns.
__device__ inline uint64_t Descriptor64(uint32_t shared_address) {
  return uint64_t{(shared_address & 0x3ffff) >> 4} | uint64_t{1} << 16 |
         uint64_t{512 >> 4} << 32 | uint64_t{2} << 62;
}
__device__ inline uint64_t Descriptor64(const void* shared) {
  return Descriptor64(SharedAddress(shared));
}

// ---- Groups ----

__device__ inline void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending of the committed groups are under way.
template <int kPending>
__device__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The type's name in the instruction.
template <typename T>
inline constexpr char kTypes[] = "f16.f16";
template <>
inline constexpr char kTypes<__nv_bfloat16>[] = "bf16.bf16";

// ---- Products ----
//
// kTransposed: b lies in shared memory as [16, N], rows of k.
"""

TAIL = """
}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_WGMMA_CUH_
"""


def wrapped(items, indent, start="", end=""):
    text = start + ", ".join(items) + end
    return textwrap.wrap(text, 80 - indent, break_long_words=False)


def product(columns, a_in_registers):
    """One overload: %0 ... are d's registers, then a, b, and the immediates."""
    sums = columns // 2
    operands = iter(range(sums, sums + 9))
    if a_in_registers:
        a = "{" + ", ".join(f"%{next(operands)}" for _ in range(4)) + "}"
    else:
        a = f"%{next(operands)}"
    b, accumulate, transposed, types = (f"%{next(operands)}" for _ in range(4))
    flags = f"1, 1, {transposed}" if a_in_registers else f"1, 1, 0, {transposed}"
    a_type = "const uint32_t (&a)[4]" if a_in_registers else "uint64_t a"
    inputs = [f'"r"(a[{i}])' for i in range(4)] if a_in_registers else ['"l"(a)']
    inputs += ['"l"(b)', '"r"(int{accumulate})', '"n"(int{kTransposed})', '"C"(kTypes<T>)']
    lines = ["template <typename T, bool kTransposed = false>",
             f"__device__ __forceinline__ void Wgmma(float (&d)[{sums}], {a_type},",
             "    uint64_t b, bool accumulate) {",
             "  asm volatile("]
    text = ["{\\n.reg .pred p;\\n", f"setp.ne.b32 p, {accumulate}, 0;\\n",
            f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{types} "]
    text += [line + " " for line in wrapped([f"%{i}" for i in range(sums)], 10, "{", "},")]
    text.append(f"{a}, {b}, p, {flags};\\n}}")
    lines += [f'      "{line}"' for line in text]
    lines += ["      " + line for line in wrapped([f'"+f"(d[{i}])' for i in range(sums)], 6, ": ")]
    lines += ["      " + line for line in wrapped(inputs, 6, ": ", ");")]
    return "\n".join([*lines, "}"])


def main():
    products = [product(n, registers) for n in COLUMNS for registers in (False, True)]
    text = "// clang-format off\n" + HEAD + "\n" + "\n".join(products) + "\n" + TAIL
    path = pathlib.Path(__file__).with_name("wgmma.cuh")
    if sys.argv[1:] == ["--check"]:
        return int(path.read_text(encoding="utf-8") != text)
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
