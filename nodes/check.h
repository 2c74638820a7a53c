/* Which texts an option takes, as config.def names them for each: a value, or one item of a list. Pure functions. */
#ifndef STARLING_CHECK_H
#define STARLING_CHECK_H

#include <stdbool.h>

bool check_bind(const char *text);
bool check_path(const char *text);
bool check_base_path(const char *text);
bool check_namespaces(const char *item);
bool check_recovery(const char *text);
bool check_cors(const char *item);
bool check_transports(const char *item);
bool check_cookie(const char *text);
bool check_name(const char *text);
bool check_mesh(const char *path);
bool check_peer(const char *text);
bool check_redis(const char *text);
bool check_watchdog(const char *text);

#endif
