/* `starling up`: starts the nodes, watches them, and starts them again when they die. Never on the way of a
 * message: when it is killed the nodes go on. */
#ifndef STARLING_SUPERVISOR_H
#define STARLING_SUPERVISOR_H

/* Arguments as config_parse() takes them. Returns the program's exit code when the bus has stopped. */
int supervisor_run(int argc, char **argv);

#endif
