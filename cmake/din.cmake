# Options that every target of ours gets, and one way to add a test.

add_library(din_options INTERFACE)
target_include_directories(din_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
# g++ 12 sees overlaps in std::string that are not there (GCC bug 105651).
target_compile_options(din_options INTERFACE -Wall -Wextra -Wno-missing-field-initializers -fno-math-errno
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(DIN_WERROR)
  target_compile_options(din_options INTERFACE -Werror)
endif()
if(DIN_SANITIZE)
  target_compile_options(din_options INTERFACE -fsanitize=${DIN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(din_options INTERFACE -fsanitize=${DIN_SANITIZE})
endif()

# din_test(NAME source... LIBS lib... [LABELS label...]): a GoogleTest binary under ctest.
function(din_test name)
  cmake_parse_arguments(ARG "" "" "LIBS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} din_options GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600
    ENVIRONMENT "OMP_NUM_THREADS=1;DIN_SOURCE_DIR=${PROJECT_SOURCE_DIR}")
endfunction()
