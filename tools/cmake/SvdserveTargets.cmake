# One CMake target per folder. A target sees what it links and nothing else,
# so an include against the direction of the architecture fails the build.

# svdserve_library(NAME SRCS ... PUBLIC ... PRIVATE ...)
function(svdserve_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;PUBLIC;PRIVATE" ${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
    svdserve_compile_options(${name})
  else()  # headers only
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${ARG_PUBLIC} ${ARG_PRIVATE})
  endif()
endfunction()

# svdserve_executable(NAME SRCS ... LINK ...)
function(svdserve_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;LINK" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  svdserve_compile_options(${name})
endfunction()

# svdserve_test(NAME SRCS ... LINK ... [LABELS ...] [TIMEOUT seconds])
function(svdserve_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;LINK;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  svdserve_executable(${name} SRCS ${ARG_SRCS} LINK ${ARG_LINK} GTest::gmock_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
    ENVIRONMENT "${SVDSERVE_TEST_ENVIRONMENT}")
endfunction()

# svdserve_fuzzer(NAME SRCS ... LINK ... CORPUS folder): a libFuzzer target with
# SVDSERVE_FUZZ=ON; otherwise a test that runs it once over its corpus.
#   build/fuzz/.../NAME -max_total_time=60 OWN_FOLDER CORPUS
function(svdserve_fuzzer name)
  cmake_parse_arguments(ARG "" "CORPUS" "SRCS;LINK" ${ARGN})
  if(SVDSERVE_FUZZ)
    svdserve_executable(${name} SRCS ${ARG_SRCS} LINK ${ARG_LINK})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    svdserve_executable(${name}
      SRCS ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.cc
      LINK ${ARG_LINK})
    add_test(NAME ${name} COMMAND ${name} ${ARG_CORPUS})
    set_tests_properties(${name} PROPERTIES TIMEOUT 60
      ENVIRONMENT "${SVDSERVE_TEST_ENVIRONMENT}")
  endif()
endfunction()

function(svdserve_compile_options name)
  target_compile_options(${name} PRIVATE
    -Wall -Wextra -Wno-sign-compare
    # g++ 12 sees overlaps in plain string assignments (GCC bug 105329).
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
    $<$<BOOL:${SVDSERVE_WERROR}>:-Werror>
    $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)
  if(SVDSERVE_SANITIZE)
    target_compile_options(${name} PRIVATE
      -fsanitize=${SVDSERVE_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${name} PUBLIC -fsanitize=${SVDSERVE_SANITIZE})
  endif()
endfunction()
