/* The browser bundle of Socket.IO's client and the files of the dashboard, embedded at build time from webui/node_modules (bundle.cmake
 * writes the data). Constant; any thread. */
#ifndef STARLING_BUNDLE_H
#define STARLING_BUNDLE_H

#include "span.h"

struct bundle_file {
    const char *name; /* as "socket.io.min.js", or, of the dashboard, with its path, as "/app.js" */
    const char *etag; /* without quotes */
    const char *content_type;
    const unsigned char *data, *gzip;
    size_t n, gzip_n;
};

extern const struct bundle_file bundle_files[];
extern const size_t bundle_files_n;

/* NULL when no file has this name. */
const struct bundle_file *bundle_find(struct span name);

/* Of the client library, without quotes. */
extern const char bundle_version[];

#endif
