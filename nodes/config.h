/* The options of starling-node and of `starling up`, from the command line and a configuration file.
 * config.def is the table from which the struct, the parser, --help and the reference page come. Used by the
 * main thread before anything runs; read-only afterwards. */
#ifndef STARLING_CONFIG_H
#define STARLING_CONFIG_H

#include "log.h"
#include "span.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum config_program {
    CONFIG_NODE = 1, /* starling-node */
    CONFIG_UP = 2,   /* starling up */
};

enum config_option {
#define X(kind, field, ...) CONFIG_OPTION_##field,
#include "config.def"
#undef X
    CONFIG_OPTION_COUNT
};

#define CONFIG_TYPE_UINT  uint32_t
#define CONFIG_TYPE_INT   int32_t
#define CONFIG_TYPE_FLAG  bool
#define CONFIG_TYPE_LEVEL enum log_level
/* Texts are never NULL: "" when not given. A list is its items with commas between them, without blanks. */
#define CONFIG_TYPE_TEXT char *
#define CONFIG_TYPE_LIST char *

struct config {
#define X(kind, field, ...) CONFIG_TYPE_##kind field;
#include "config.def"
#undef X
    uint8_t source[CONFIG_OPTION_COUNT]; /* private: who set it last */
};

/* --help or --version has been answered: the program ends with exit code 0. */
#define CONFIG_SHOWN (-1)

/* Fills *config, which needs config_free() whatever is returned. 0: go on; CONFIG_SHOWN; or the exit code of
 * the program, after a message on stderr. argv[0] is skipped. config_check() has been passed. */
int config_parse(int argc, char **argv, enum config_program program, struct config *config);
void config_free(struct config *config);

/* Whether the options fit together; 0, or an exit code after a message on stderr. */
int config_check(const struct config *config, enum config_program program);

/* True when the item, or "*", is in the list. An empty list has no items. */
bool config_list_has(const char *list, struct span item);

/* The key of the first option that differs and cannot take effect at a reload; NULL: there is none. */
const char *config_find_fixed(const struct config *now, const struct config *wanted,
                              enum config_program program);

/* The options that starling-node shares with `starling up` and that were given, as arguments ("--key=value")
 * that end with NULL: malloc()ed, each and all, or NULL without memory. Not redis, whose URL may hold a password: a node
 * gets it as $STARLING_REDIS. */
char **config_node_arguments(const struct config *config);

/* The options of a program as --help shows them. */
void config_print_options(FILE *to, enum config_program program);
/* All options of a program with their values, as lines of a file for --config. */
void config_print(FILE *to, const struct config *config, enum config_program program);
/* All options as a page of Markdown. */
void config_print_reference(FILE *to);

#endif
