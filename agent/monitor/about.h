/* What a machine is called and made of. One thread. */
#ifndef STARLING_ABOUT_H
#define STARLING_ABOUT_H

#include "machine.h"

struct about;

struct about *about_new(int root);
void about_free(struct about **a);

/* Fills the texts, mhz and memory_bytes. Texts live until the next call. name: NULL for the host's. */
void about_describe(struct about *a, const char *name, struct machine_about *out);

#endif
