/* `starling up`: starts the node, watches it, and starts it again when it dies. Never on the way of a
 * message. */
#ifndef STARLING_SUPERVISOR_H
#define STARLING_SUPERVISOR_H

/* Arguments as config_parse() takes them. Returns the program's exit code when the bus has stopped. */
int supervisor_run(int argc, char **argv);

#endif
