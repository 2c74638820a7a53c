# Embeds the browser bundle of Socket.IO's client and the dashboard into the library `nodes`, each file as it is and
# compressed (bundle.h). The assembler copies the bytes in; as C arrays they would take the compiler longer than all the rest.
set(BUNDLE_PACKAGE ${CMAKE_SOURCE_DIR}/webui/node_modules/socket.io-client)
set(BUNDLE_FILES
    socket.io.js socket.io.js.map
    socket.io.min.js socket.io.min.js.map
    socket.io.esm.min.js socket.io.esm.min.js.map
    socket.io.msgpack.min.js socket.io.msgpack.min.js.map)

set(BUNDLE_PAGE ${CMAKE_SOURCE_DIR}/webui)

if(NOT EXISTS ${BUNDLE_PACKAGE}/package.json OR NOT EXISTS ${BUNDLE_PAGE}/node_modules/uplot/package.json)
  message(STATUS "Fetching what the dashboard is made with: npm ci --prefix webui")
  execute_process(COMMAND npm ci --prefix ${BUNDLE_PAGE} RESULT_VARIABLE npm_result OUTPUT_QUIET)
  if(NOT npm_result EQUAL 0 OR NOT EXISTS ${BUNDLE_PAGE}/node_modules/uplot/package.json)
    message(FATAL_ERROR "webui/node_modules is not complete and npm ci did not bring it: run deploy/install-deps")
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

# The file `plain` under this name, with an ETag made of what is in it.
function(bundle_add name plain)
  string(MAKE_C_IDENTIFIER "bundle_${name}" symbol)
  set(gzip ${bundle_dir}/${symbol}.gz)
  execute_process(COMMAND gzip -9 -n -c ${plain} OUTPUT_FILE ${gzip} RESULT_VARIABLE gzip_result)
  if(NOT gzip_result EQUAL 0)
    message(FATAL_ERROR "gzip failed on ${plain}")
  endif()
  file(SIZE ${plain} plain_size)
  file(SIZE ${gzip} gzip_size)
  file(SHA1 ${plain} etag)
  string(REGEX REPLACE ".*[.]" "" suffix ${name})
  set(type_map application/json)
  set(type_js application/javascript)
  set(type_css text/css)
  set(type_html text/html)
  set(type_svg image/svg+xml)
  set(bundle_symbols "${bundle_symbols}EMBED(${symbol}, \"${plain}\")\nEMBED(${symbol}_gzip, \"${gzip}\")\n" PARENT_SCOPE)
  set(bundle_rows "${bundle_rows}    {\"${name}\", \"${etag}\", \"${type_${suffix}}; charset=utf-8\", ${symbol}, ${symbol}_gzip, ${plain_size}, ${gzip_size}},\n" PARENT_SCOPE)
  set(bundle_inputs ${bundle_inputs} ${plain} ${gzip} PARENT_SCOPE)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${plain})
endfunction()

foreach(name IN LISTS BUNDLE_FILES)
  bundle_add(${name} ${BUNDLE_PACKAGE}/dist/${name})
endforeach()
file(GLOB page_files CONFIGURE_DEPENDS RELATIVE ${BUNDLE_PAGE}
     ${BUNDLE_PAGE}/*.html ${BUNDLE_PAGE}/*.css ${BUNDLE_PAGE}/*.js ${BUNDLE_PAGE}/*.svg ${BUNDLE_PAGE}/views/*.js)
foreach(name IN LISTS page_files)
  bundle_add(/${name} ${BUNDLE_PAGE}/${name})
endforeach()
bundle_add(/vendor/socket.io.js ${BUNDLE_PACKAGE}/dist/socket.io.esm.min.js)
bundle_add(/vendor/uplot.js ${BUNDLE_PAGE}/node_modules/uplot/dist/uPlot.esm.js)
bundle_add(/vendor/uplot.css ${BUNDLE_PAGE}/node_modules/uplot/dist/uPlot.min.css)

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
