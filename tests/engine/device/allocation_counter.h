// Counts every allocation of the process, on all threads: linked into a program
// it takes the place of malloc() and of operator new.
//
//   const long before = Allocations();
//   ...
//   EXPECT_EQ(Allocations(), before);
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_ALLOCATION_COUNTER_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_ALLOCATION_COUNTER_H_

namespace svdserve {

// So far, but for those of a library that is counted apart.
long Allocations();

// From now on, what the code of the shared library allocates whose file name
// has this in it is counted apart; told by return addresses. One library.
void CountApart(const char* library);
long AllocationsApart();

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_ALLOCATION_COUNTER_H_
