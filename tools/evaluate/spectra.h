// Singular values of a model's matrices: how fast they fall says what a low
// rank must lose.
#ifndef SVDSERVE_TOOLS_EVALUATE_SPECTRA_H_
#define SVDSERVE_TOOLS_EVALUATE_SPECTRA_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace svdserve {

struct Spectrum {
  int layer = 0;
  const char* kind = "";       // as in MatrixFacts
  std::vector<double> values;  // [min(in, out)] falling, to four digits
};

// Of every dense matrix of the encoder; by layer, then kind. By LAPACK, in
// single precision, one matrix a thread: the values do not depend on `threads`.
// INTERNAL if LAPACK does not converge.
absl::StatusOr<std::vector<Spectrum>> SpectraOf(const std::string& directory,
                                                int threads);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_SPECTRA_H_
