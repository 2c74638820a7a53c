# Embeds the browser bundle of Socket.IO's client into the library `nodes`, each file as it is and compressed
# (bundle.h). The assembler copies the bytes in; as C arrays they would take the compiler longer than all the rest.
set(BUNDLE_PACKAGE ${CMAKE_SOURCE_DIR}/webui/node_modules/socket.io-client)
set(BUNDLE_FILES
    socket.io.js socket.io.js.map
    socket.io.min.js socket.io.min.js.map
    socket.io.esm.min.js socket.io.esm.min.js.map
    socket.io.msgpack.min.js socket.io.msgpack.min.js.map)

if(NOT EXISTS ${BUNDLE_PACKAGE}/package.json)
  message(STATUS "Fetching socket.io-client: npm ci --prefix webui")
  execute_process(COMMAND npm ci --prefix ${CMAKE_SOURCE_DIR}/webui RESULT_VARIABLE npm_result OUTPUT_QUIET)
  if(NOT npm_result EQUAL 0 OR NOT EXISTS ${BUNDLE_PACKAGE}/package.json)
    message(FATAL_ERROR "webui/node_modules/socket.io-client is missing and npm ci did not bring it: "
                        "run deploy/install-deps")
  endif()
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${BUNDLE_PACKAGE}/package.json)

file(READ ${BUNDLE_PACKAGE}/package.json bundle_json)
string(JSON BUNDLE_VERSION GET "${bundle_json}" version)

set(bundle_dir ${CMAKE_BINARY_DIR}/bundle)
file(MAKE_DIRECTORY ${bundle_dir})
set(bundle_symbols "")
set(bundle_rows "")
set(bundle_inputs "")
foreach(name IN LISTS BUNDLE_FILES)
  set(plain ${BUNDLE_PACKAGE}/dist/${name})
  set(gzip ${bundle_dir}/${name}.gz)
  execute_process(COMMAND gzip -9 -n -c ${plain} OUTPUT_FILE ${gzip} RESULT_VARIABLE gzip_result)
  if(NOT gzip_result EQUAL 0)
    message(FATAL_ERROR "gzip failed on ${plain}")
  endif()
  file(SIZE ${plain} plain_size)
  file(SIZE ${gzip} gzip_size)
  string(MAKE_C_IDENTIFIER "bundle_${name}" symbol)
  if(name MATCHES "[.]map$")
    set(type json)
  else()
    set(type javascript)
  endif()
  string(APPEND bundle_symbols "EMBED(${symbol}, \"${plain}\")\nEMBED(${symbol}_gzip, \"${gzip}\")\n")
  string(APPEND bundle_rows "    {\"${name}\", \"application/${type}; charset=utf-8\", ${symbol}, ${symbol}_gzip, "
                            "${plain_size}, ${gzip_size}},\n")
  list(APPEND bundle_inputs ${plain} ${gzip})
endforeach()

file(CONFIGURE OUTPUT ${bundle_dir}/bundle_data.c @ONLY CONTENT [[
/* Written by nodes/bundle.cmake. */
#include "bundle.h"

#define EMBED(symbol, file)                                                                                  \
    __asm__(".pushsection .rodata\n"                                                                         \
            ".global " #symbol "\n.hidden " #symbol "\n" #symbol ":\n.incbin \"" file "\"\n"               \
            ".popsection\n");                                                                                \
    extern const unsigned char symbol[] __attribute__((visibility("hidden")));

@bundle_symbols@
const char bundle_version[] = "@BUNDLE_VERSION@";

const struct bundle_file bundle_files[] = {
@bundle_rows@};
const size_t bundle_files_n = sizeof bundle_files / sizeof bundle_files[0];
]])
set_source_files_properties(${bundle_dir}/bundle_data.c PROPERTIES OBJECT_DEPENDS "${bundle_inputs}")
target_sources(nodes PRIVATE ${bundle_dir}/bundle_data.c)
