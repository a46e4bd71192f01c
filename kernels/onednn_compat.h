// The seam between oneDNN 2.x and 3.x, and how it is kept to one thread.
#ifndef SVDSERVE_KERNELS_ONEDNN_COMPAT_H_
#define SVDSERVE_KERNELS_ONEDNN_COMPAT_H_

#include <dlfcn.h>

#include <dnnl.hpp>

namespace svdserve::kernels {

inline dnnl::matmul::primitive_desc MatmulPrimitiveDesc(
    const dnnl::engine& engine, const dnnl::memory::desc& x,
    const dnnl::memory::desc& w, const dnnl::memory::desc& y,
    const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(engine, x, w, y, attributes);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(x, w, y), attributes,
                                      engine);
#endif
}

// The number of OpenMP threads is a property of the calling thread. Call this
// before creating and before running a primitive: it costs one flag after the
// first time. The runtime that oneDNN brought along is found by name, because
// the compiler's own may be another one.
inline void KeepOneDnnToThisThread() {
  thread_local const bool done = [] {
    using SetThreads = void (*)(int);
    void* symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (symbol != nullptr) reinterpret_cast<SetThreads>(symbol)(1);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_ONEDNN_COMPAT_H_
