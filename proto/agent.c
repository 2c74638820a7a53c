#include "agent.h"
#include "agent_layout.h"
#include <stddef.h>

_Static_assert(ITEM_BYTES == LIMIT_ROOM_BYTES && ITEM_BYTES == LIMIT_NAMESPACE_BYTES &&
                   ITEM_BYTES == LIMIT_EVENT_NAME_BYTES,
               "items of lists have one limit");
_Static_assert(AGENT_OPTIONS <= 64, "has is 64 bits");

/* Where a list has its count; other types have none. */
#define COUNT_UINT(member)         0
#define COUNT_BOOL(member)         0
#define COUNT_TEXT(member)         0
#define COUNT_ARGS(member)         0
#define COUNT_BODY(member)         0
#define COUNT_CONFIRM(member)      0
#define COUNT_LIFE(member)         0
#define COUNT_STICKY(member)       0
#define COUNT_ROOMS(member)        offsetof(struct agent_record, n_##member)
#define COUNT_ROOMS_OR_ALL(member) offsetof(struct agent_record, n_##member)
#define COUNT_NAMESPACES(member)   offsetof(struct agent_record, n_##member)
#define COUNT_EVENTS(member)       offsetof(struct agent_record, n_##member)
#define COUNT_BINS(member)         offsetof(struct agent_record, n_##member)
#define COUNT_PEERS(member)        offsetof(struct agent_record, n_##member)

const struct agent_layout_field agent_fields[AGENT_FIELDS] = {
#define FIELD(name, member, type, least, most, key)                                                          \
    [AGENT_F_##name] =                                                                                       \
        {key, least, most, offsetof(struct agent_record, member), COUNT_##type(member), sizeof(key) - 1,     \
         type},
#define OPTION  FIELD
#define ELEMENT FIELD
#include "agent_field.def"
};

#define F(name) (AGENT_F_##name + 1)

static const struct agent_layout layouts[] = {
    [AGENT_HELLO] = {FROM_AGENT, {F(VERSION), F(NAME), F(INSTANCE), F(CREDIT)}, {F(ABOUT)}},
    [AGENT_WELCOME] = {FROM_NODE,
                       {F(VERSION), F(NODE_NAME), F(CREDIT)},
                       {F(CLUSTER), F(ORIGIN), F(HEARTBEAT_MS), F(TIMEOUT_MS), F(WINDOW_MS), F(TIME_MS),
                        F(MESSAGE_BYTES), F(MAX_CALLS), F(MAX_REGISTRATIONS), F(MAX_DEADLINE_MS), F(PEERS)}},
    [AGENT_CREDIT] = {FROM_BOTH, {F(CREDIT)}, {NONE}},
    [AGENT_NODE] = {FROM_NODE, {NONE}, {F(PEERS), F(DRAINING)}},
    [AGENT_BYE] = {FROM_BOTH, {F(CODE), F(TEXT)}, {NONE}},
    [AGENT_ERROR] = {FROM_BOTH, {F(ID), F(CODE), F(TEXT)}, {F(DATA), F(EMIT_ID), F(RETRY_MS), F(HIGHEST)}},
    [AGENT_OK] = {FROM_BOTH,
                  {F(ID)},
                  {F(ANSWER_ARGS), F(ATTACHMENTS), F(USER), F(DATA), F(ROOMS), F(ANSWER_BODY), F(EMIT_ID),
                   F(REPEATED), F(EXPECTED), F(ANSWERED), F(DROPPED), F(COUNT), F(OFFSET), F(RECOVERED),
                   F(ALIVE)}},
    [AGENT_EMIT] = {FROM_AGENT,
                    {F(ID), F(NSP), F(TO), F(EVENT), F(ARGS)},
                    {F(EXCEPT), F(ATTACHMENTS), F(VOLATILE), F(CONFIRM), F(KEY), F(ACK_MS), F(AGAIN)}},
    [AGENT_SUBSCRIBE] = {FROM_AGENT, {F(ID)}, {F(NAMESPACES), F(ROOMS), F(EVENTS), F(FROM)}},
    [AGENT_HANDLE] = {FROM_AGENT,
                      {F(ID)},
                      {F(NAMESPACES), F(EVENTS), F(LIFE), F(GROUP), F(STICKY), F(DEADLINE_MS), F(LIMIT),
                       F(OBSERVE)}},
    [AGENT_REGISTER] = {FROM_AGENT, {F(ID), F(ADDRESS)}, {F(SHARED)}},
    [AGENT_WATCH] = {FROM_AGENT, {F(ID), F(ADDRESS)}, {NONE}},
    [AGENT_UNDO] = {FROM_AGENT, {F(ID), F(REG)}, {NONE}},
    [AGENT_JOIN] = {FROM_AGENT, {F(ID), F(NSP), F(WHO), F(IN_ROOMS)}, {NONE}},
    [AGENT_LEAVE] = {FROM_AGENT, {F(ID), F(NSP), F(WHO), F(IN_ROOMS)}, {NONE}},
    [AGENT_DISCONNECT] = {FROM_AGENT, {F(ID), F(NSP), F(WHO)}, {F(CLOSE)}},
    [AGENT_MEMBERS] = {FROM_AGENT, {F(ID), F(NSP), F(WHO)}, {F(LIMIT)}},
    [AGENT_SET] = {FROM_AGENT, {F(ID), F(NSP), F(WHO)}, {F(USER), F(DATA)}},
    [AGENT_TELL] = {FROM_AGENT, {F(ID), F(ADDRESS), F(BODY)}, {NONE}},
    [AGENT_ASK] = {FROM_AGENT, {F(ID), F(ADDRESS), F(BODY)}, {F(DEADLINE_MS)}},
    [AGENT_EVENT] = {FROM_NODE,
                     {F(REG), F(NSP), F(TO), F(EVENT), F(ARGS)},
                     {F(ATTACHMENTS), F(EMIT_ID), F(OFFSET), F(VOLATILE), F(REPLAYED)}},
    [AGENT_LOST] = {FROM_NODE, {F(REG), F(LOST)}, {NONE}},
    [AGENT_CALL] = {FROM_NODE,
                    {F(ID), F(REG), F(NSP), F(SID), F(EVENT), F(ARGS)},
                    {F(ATTACHMENTS), F(USER), F(ACK), F(DEADLINE_MS)}},
    [AGENT_CONNECT] = {FROM_NODE, {F(ID), F(REG), F(NSP), F(SID), F(AUTH)}, {F(REMOTE), F(DEADLINE_MS)}},
    [AGENT_DISCONNECTED] = {FROM_NODE, {F(REG), F(NSP), F(SID), F(REASON)}, {F(USER)}},
    [AGENT_JOINED] = {FROM_NODE, {F(REG), F(NSP), F(SID), F(IN_ROOMS)}, {F(USER)}},
    [AGENT_LEFT] = {FROM_NODE, {F(REG), F(NSP), F(SID), F(IN_ROOMS)}, {F(USER)}},
    [AGENT_CANCEL] = {FROM_NODE, {F(ID)}, {NONE}},
    [AGENT_TOLD] = {FROM_NODE, {F(REG), F(BODY)}, {F(FROM)}},
    [AGENT_ASKED] = {FROM_NODE, {F(ID), F(REG), F(BODY)}, {F(FROM), F(DEADLINE_MS)}},
    [AGENT_GONE] = {FROM_NODE, {F(REG), F(REASON)}, {NONE}},
    [AGENT_BACK] = {FROM_NODE, {F(REG)}, {NONE}},
    [AGENT_ANSWER] = {FROM_NODE, {F(ID), F(SID), F(ARGS)}, {F(ATTACHMENTS)}},
    [AGENT_RECOVERED] = {FROM_NODE, {F(REG), F(NSP), F(SID)}, {F(USER), F(ROOMS)}},
    [AGENT_MEMBER] = {FROM_NODE, {F(ID), F(SID), F(NODE_NAME)}, {F(USER), F(DATA), F(ROOMS)}},
};

const struct agent_layout *agent_layout_of(uint64_t kind)
{
    return kind < sizeof(layouts) / sizeof(layouts[0]) && layouts[kind].from != 0 ? &layouts[kind] : NULL;
}

bool agent_from_agent(uint64_t kind)
{
    const struct agent_layout *l = agent_layout_of(kind);
    return l && (l->from & FROM_AGENT);
}

bool agent_from_node(uint64_t kind)
{
    const struct agent_layout *l = agent_layout_of(kind);
    return l && (l->from & FROM_NODE);
}

const char *const agent_confirm_words[] = {"none", "mesh", "mirror", NULL};
const char *const agent_life_words[] = {"connect", "disconnect", "join", "leave", NULL};
const char *const agent_sticky_words[] = {"session", NULL};

void agent_init(struct agent_record *r, enum agent_kind kind)
{
    memset(r, 0, offsetof(struct agent_record, to));
    r->kind = kind;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct span trim(struct span text)
{
    for (; text.n > 0 && is_blank(text.p[0]); text.n--)
        text.p++;
    while (text.n > 0 && is_blank(text.p[text.n - 1]))
        text.n--;
    return text;
}

bool agent_set_args(struct agent_record *r, struct span array)
{
    array = trim(array);
    if (array.n == 0)
        array = SPAN("[]");
    if (array.n < 2 || array.p[0] != '[' || array.p[array.n - 1] != ']')
        return false;
    r->args_array = array;
    r->args = trim((struct span){array.p + 1, array.n - 2});
    return true;
}
