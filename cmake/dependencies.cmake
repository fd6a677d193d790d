# Everything is a Debian 12 package; setup.sh installs them.
find_package(Threads REQUIRED)
find_package(absl REQUIRED CONFIG)
find_package(Protobuf REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(nlohmann_json REQUIRED CONFIG)
find_package(PkgConfig REQUIRED)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
find_library(FARMHASH_LIBRARY farmhash REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)

# Debian's dnnl-config.cmake asks for OpenCL headers that a CPU build does not need.
find_path(DNNL_INCLUDE_DIR dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(din_dnnl INTERFACE)
target_include_directories(din_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(din_dnnl INTERFACE ${DNNL_LIBRARY})

if(DIN_RPC)
  find_package(gRPC REQUIRED CONFIG)
  find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
endif()
