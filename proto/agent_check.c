/* What makes sense in a record from an agent, beyond its layout; and the table of codes. */
#include "agent.h"
#include "err.h"
#include "json.h"
#include "sio.h"

static bool no(struct agent_record *r, enum agent_code *code, enum agent_code why, const char *wrong)
{
    *code = why;
    r->wrong = wrong;
    return false;
}

static bool check_json(struct agent_record *r, enum agent_code *code)
{
    if (r->user.n > 0 && json_check(r->user, LIMIT_JSON_DEPTH) != 0)
        return no(r, code, AGENT_E_JSON, "user");
    return r->data.n == 0 || json_check(r->data, LIMIT_JSON_DEPTH) == 0 || no(r, code, AGENT_E_JSON, "data");
}

static bool check_args(struct agent_record *r, enum agent_code *code)
{
    int err = sio_check_args(r->args_array, r->n_attachments);
    if (err == ERR_SIO_PLACEHOLDER)
        return no(r, code, AGENT_E_ARGUMENT, "attachments");
    return err == 0 || no(r, code, AGENT_E_JSON, "args");
}

static bool check_event(struct agent_record *r, enum agent_code *code)
{
    char quoted[JSON_QUOTED_MAX(LIMIT_EVENT_NAME_BYTES)];
    if (r->event.n >= 4 && memcmp(r->event.p, "bus:", 4) == 0)
        return no(r, code, AGENT_E_RESERVED, "event");
    size_t n = json_quote(quoted, r->event);
    return !sio_reserved((struct span){quoted, n}) || no(r, code, AGENT_E_RESERVED, "event");
}

static bool check_emit(struct agent_record *r, enum agent_code *code)
{
    if (r->nsp.p[0] != '/')
        return no(r, code, AGENT_E_ARGUMENT, "nsp");
    if (r->ack_ms > LIMIT_AGENT_DEADLINE_MS)
        return no(r, code, AGENT_E_LIMIT, "ack_ms");
    return check_event(r, code) && check_args(r, code);
}

static bool check_patterns(struct agent_record *r, enum agent_code *code)
{
    for (unsigned i = 0; i < r->n_namespaces; i++)
        if (r->namespaces[i].p[0] != '/' && !span_eq(r->namespaces[i], SPAN("*")))
            return no(r, code, AGENT_E_ARGUMENT, "namespaces");
    for (unsigned i = 0; i < r->n_events; i++)
        if (!agent_pattern_valid(r->events[i]))
            return no(r, code, AGENT_E_ARGUMENT, "events");
    return true;
}

static bool check_subscribe(struct agent_record *r, enum agent_code *code)
{
    if (agent_has(r, AGENT_F_ROOMS) && r->n_rooms == 0)
        return no(r, code, AGENT_E_ARGUMENT, "rooms");
    return check_patterns(r, code);
}

static bool check_handle(struct agent_record *r, enum agent_code *code)
{
    if (r->n_events == 0 && r->life == 0)
        return no(r, code, AGENT_E_ARGUMENT, "events");
    if (r->deadline_ms > LIMIT_AGENT_DEADLINE_MS)
        return no(r, code, AGENT_E_LIMIT, "deadline_ms");
    return check_patterns(r, code);
}

static bool check_address(struct agent_record *r, enum agent_code *code)
{
    bool bad = r->address.n >= 4 && memcmp(r->address.p, "bus:", 4) == 0;
    for (size_t i = 0; i < r->address.n; i++)
        bad = bad || (unsigned char)r->address.p[i] < 0x20 || r->address.p[i] == 0x7f;
    return !bad || no(r, code, AGENT_E_ARGUMENT, "address");
}

static bool check_answer(struct agent_record *r, enum agent_code *code)
{
    return (!agent_has(r, AGENT_F_ANSWER_ARGS) || check_args(r, code)) && check_json(r, code);
}

bool agent_check(struct agent_record *r, enum agent_code *code)
{
    switch (r->kind) {
    case AGENT_EMIT:
        return check_emit(r, code);
    case AGENT_SUBSCRIBE:
        return (r->id != 0 || no(r, code, AGENT_E_ID, "id")) && check_subscribe(r, code);
    case AGENT_HANDLE:
        return (r->id != 0 || no(r, code, AGENT_E_ID, "id")) && check_handle(r, code);
    case AGENT_REGISTER:
    case AGENT_WATCH:
        return (r->id != 0 || no(r, code, AGENT_E_ID, "id")) && check_address(r, code);
    case AGENT_JOIN:
    case AGENT_LEAVE:
    case AGENT_DISCONNECT:
    case AGENT_MEMBERS:
    case AGENT_SET:
        return (r->nsp.p[0] == '/' || no(r, code, AGENT_E_ARGUMENT, "nsp")) && check_json(r, code);
    case AGENT_ASK:
        if (r->deadline_ms > LIMIT_AGENT_DEADLINE_MS)
            return no(r, code, AGENT_E_LIMIT, "deadline_ms");
        return r->id != 0 || no(r, code, AGENT_E_ID, "id");
    case AGENT_OK:
    case AGENT_ERROR:
        return check_answer(r, code);
    default:
        return true;
    }
}

static const struct {
    const char *code, *text;
} codes[AGENT_CODES] = {
#define X(name, code, text) [AGENT_E_##name] = {code, text},
#include "agent_code.def"
#undef X
};

const char *agent_code(enum agent_code code)
{
    return codes[code].code;
}

const char *agent_code_text(enum agent_code code)
{
    return codes[code].text;
}

enum agent_code agent_code_of(struct span code)
{
    unsigned i = 0;
    while (i < AGENT_CODES && !span_eq(code, span_of(codes[i].code)))
        i++;
    return (enum agent_code)i;
}

/* ---- patterns ---- */

/* Cuts the next token off; *rest begins behind its dot, or p is NULL behind the last one. */
static struct span next_token(struct span *rest)
{
    const char *dot = memchr(rest->p, '.', rest->n);
    struct span token = {rest->p, dot ? (size_t)(dot - rest->p) : rest->n};
    *rest = dot ? (struct span){dot + 1, rest->n - token.n - 1} : (struct span){NULL, 0};
    return token;
}

bool agent_pattern_valid(struct span pattern)
{
    if (pattern.n == 0)
        return false;
    while (pattern.p) {
        struct span token = next_token(&pattern);
        if (span_eq(token, SPAN(">")) && pattern.p)
            return false;
    }
    return true;
}

bool agent_pattern_fits(struct span pattern, struct span name)
{
    while (pattern.p && name.p) {
        struct span token = next_token(&pattern);
        if (span_eq(token, SPAN(">")))
            return true;
        struct span part = next_token(&name);
        if (!span_eq(token, SPAN("*")) && !span_eq(token, part))
            return false;
    }
    return !pattern.p && !name.p;
}
