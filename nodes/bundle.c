#include "bundle.h"

const struct bundle_file *bundle_find(struct span name)
{
    for (size_t i = 0; i < bundle_files_n; i++) {
        if (span_eq(span_of(bundle_files[i].name), name))
            return &bundle_files[i];
    }
    return NULL;
}
