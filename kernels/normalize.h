// y = x / max(|x|, 1e-12), in place, and the check that every output passes.
#ifndef SVDSERVE_KERNELS_NORMALIZE_H_
#define SVDSERVE_KERNELS_NORMALIZE_H_

namespace svdserve::kernels {

// The squares are summed in fp64, so that no length overflows or vanishes.
void Normalize(float* x, int count);

// False if x holds NaN or an infinity.
bool AllFinite(const float* x, int count);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_NORMALIZE_H_
