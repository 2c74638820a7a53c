/* starling-node: one peer of the bus. */
#include "config.h"
#include "node.h"

int main(int argc, char **argv)
{
    struct config config;
    int code = config_parse(argc, argv, CONFIG_NODE, &config);
    if (code == 0)
        code = node_run(&config, NULL);
    config_free(&config);
    return code == CONFIG_SHOWN ? 0 : code;
}
