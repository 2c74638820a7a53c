/* The records of machine.h as tables: machine.c writes and reads by them and machine_json.c prints by them, so that the
 * three cannot differ. For these two files only. */
#ifndef STARLING_MACHINE_LAYOUT_H
#define STARLING_MACHINE_LAYOUT_H

#include "machine.h"

enum machine_type {
    MACHINE_TEXT,
    MACHINE_UINT,
    MACHINE_TENTHS, /* signed; printed as a decimal fraction, as are the next three */
    MACHINE_CENTI,
    MACHINE_MILLI,
    MACHINE_SHARE, /* hundredths of a percent, at most MACHINE_WHOLE */
    MACHINE_FLAG,
    MACHINE_HIDDEN, /* a number that JSON has in another form */
};

/* A member of a record: a span, an int64_t for MACHINE_TENTHS, else a uint64_t. In the order of the wire. */
struct machine_field {
    const char *key; /* in JSON */
    enum machine_type type;
    size_t offset;
};

struct machine_layout {
    const struct machine_field *fields;
    unsigned n;
    size_t size; /* of the struct */
};

/* A list of records within a message: where its count and its items are. */
struct machine_list {
    const char *key;
    const struct machine_layout *layout;
    size_t count, items;
    unsigned max;
};

extern const struct machine_layout machine_about_layout, machine_cpu_layout, machine_load_layout,
    machine_memory_layout, machine_pressure_layout;

enum { MACHINE_DESCRIPTION_LISTS = 2, MACHINE_TICK_LISTS = 5 };
extern const struct machine_list machine_description_lists[MACHINE_DESCRIPTION_LISTS];
extern const struct machine_list machine_tick_lists[MACHINE_TICK_LISTS];

#endif
