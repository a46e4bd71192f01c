# LAPACK and BLAS by their C interfaces. The distribution chooses who implements it behind
# liblapack.so.3 (OpenBLAS, BLIS, reference LAPACK): nothing here depends on it.
find_path(Lapacke_INCLUDE_DIR lapacke.h)
find_library(Lapacke_LIBRARY lapacke)
find_path(Lapacke_CBLAS_INCLUDE_DIR cblas.h)
find_library(Lapacke_BLAS_LIBRARY blas)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Lapacke
  REQUIRED_VARS Lapacke_LIBRARY Lapacke_INCLUDE_DIR Lapacke_BLAS_LIBRARY
                Lapacke_CBLAS_INCLUDE_DIR)
if(Lapacke_FOUND AND NOT TARGET Lapacke::lapacke)
  add_library(Lapacke::lapacke UNKNOWN IMPORTED)
  set_target_properties(Lapacke::lapacke PROPERTIES
    IMPORTED_LOCATION ${Lapacke_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES
      "${Lapacke_INCLUDE_DIR};${Lapacke_CBLAS_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES ${Lapacke_BLAS_LIBRARY})
endif()
