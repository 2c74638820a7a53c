/* The Engine.IO layer alone, without Socket.IO: every message, text or binary, comes back to its sender. */
#include "config.h"
#include "engine.h"
#include "node.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int on_open(struct session *s)
{
    (void)s;
    return 0;
}

static int on_text(struct session *s, struct span text)
{
    session_send(s, SPAN("4"), text);
    return 0;
}

static int on_binary(struct session *s, struct span data)
{
    struct slice frame;
    uint8_t *payload;
    int err = engine_frame_alloc(s->engine, WS_BINARY, data.n, &frame, &payload);
    if (err)
        return err;
    if (data.n)
        memcpy(payload, data.p, data.n);
    session_push(s, &frame, 1, false);
    slice_unref(&frame);
    return 0;
}

static void on_close(struct session *s, enum close_reason reason)
{
    (void)s, (void)reason;
}

static const struct engine_app echo = {
    .on_open = on_open,
    .on_text = on_text,
    .on_binary = on_binary,
    .on_close = on_close,
};

int main(int argc, char **argv)
{
    struct config config;
    struct node_parts parts = {.app = &echo};
    char **args = calloc((size_t)argc + 2, sizeof(*args));
    if (!args)
        return 1;
    /* The path of bare Engine.IO comes first, so that one on the command line overrides it. */
    args[0] = argv[0];
    args[1] = "--path=/engine.io/";
    memcpy(args + 2, argv + 1, (size_t)argc * sizeof(*args));
    int code = config_parse(argc + 1, args, CONFIG_NODE, &config);
    if (code == 0)
        code = node_run(&config, &parts);
    config_free(&config);
    free(args);
    return code == CONFIG_SHOWN ? 0 : code;
}
