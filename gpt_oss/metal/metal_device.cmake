# The extension's device on macOS: metal_device.m, with the kernels as MSL text that Metal compiles at run time, or as a
# metallib where Xcode's compiler is installed (the Command Line Tools alone have none).

enable_language(OBJC)

file(GLOB metal_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/*.metal)
file(GLOB kernel_headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/*.h)
set(embed ${CMAKE_CURRENT_SOURCE_DIR}/embed_kernels.py)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/kernels.generated.c)

set(flat ${CMAKE_CURRENT_BINARY_DIR}/kernels.metal)
add_custom_command(
  OUTPUT ${flat}
  COMMAND Python3::Interpreter ${embed} ${metal_sources} ${flat}
  DEPENDS ${embed} ${metal_sources} ${kernel_headers})

set(kernels ${flat})
option(GPTOSS_METALLIB "compile the kernels at build time where there is a compiler" ON)
if(GPTOSS_METALLIB)
  execute_process(COMMAND xcrun -find metal RESULT_VARIABLE no_compiler OUTPUT_QUIET ERROR_QUIET)
endif()
if(GPTOSS_METALLIB AND NOT no_compiler)
  set(kernels ${CMAKE_CURRENT_BINARY_DIR}/kernels.metallib)
  add_custom_command(
    OUTPUT ${kernels}
    COMMAND xcrun metal -std=metal3.1 -fno-fast-math -Wall -Wextra ${flat} -o ${kernels}
    DEPENDS ${flat})
  target_compile_definitions(_metal PRIVATE GPTOSS_METALLIB)
endif()
add_custom_command(
  OUTPUT ${generated}
  COMMAND Python3::Interpreter ${embed} ${kernels} ${generated}
  DEPENDS ${embed} ${kernels})

target_sources(_metal PRIVATE metal_device.m ${generated})
set_source_files_properties(metal_device.m PROPERTIES COMPILE_OPTIONS "-fno-objc-arc;-fblocks")
target_link_libraries(_metal PRIVATE "-framework Foundation" "-framework Metal")
