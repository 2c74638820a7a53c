/* The Lua scripts of store_redis.c, which alone includes this: what proto/redis.md says happens in one step. Those that
 * shall work when Redis is full begin with a write that needs no memory. */
#ifndef STARLING_STORE_REDIS_SCRIPTS_H
#define STARLING_STORE_REDIS_SCRIPTS_H

/* KEYS: origins, lease, mirror, sessions. ARGV: origin, prefix of leases, lease_ms, keep_ms, name_ms, name, host, pub,
 * router. The answer: the origin that has the tag; or whether the mirror is there, and origins with their
 * leases and the time that is left until they are forgotten. */
static const char renew_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local function text(n) return string.format('%.0f', n) end\n"
    "for _, o in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf')) do\n"
    "  if o ~= ARGV[1] and o:sub(1, 6) == ARGV[1]:sub(1, 6) then return o end\n"
    "end\n"
    "local lasts = redis.call('PEXPIRE', KEYS[3], ARGV[4])\n"
    "redis.call('PEXPIRE', KEYS[4], ARGV[4])\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))\n"
    "redis.call('ZADD', KEYS[1], text(now + ARGV[5]), ARGV[1])\n"
    "redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])\n"
    "redis.call('HSET', KEYS[2], 'name', ARGV[6], 'host', ARGV[7], 'pub', ARGV[8], 'router', ARGV[9])\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[3])\n"
    "local out = {lasts}\n"
    "local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')\n"
    "for i = 1, #all, 2 do\n"
    "  out[#out + 1] = {all[i], redis.call('HMGET', ARGV[2] .. all[i], 'name', 'host', 'pub', 'router'),\n"
    "                   text(all[i + 1] - now)}\n"
    "end\n"
    "return out\n";

/* KEYS: as above. ARGV: origin, keep_ms, name_ms. */
static const char resign_script[] =
    "redis.call('DEL', KEYS[2])\n"
    "redis.call('PEXPIRE', KEYS[3], ARGV[2])\n"
    "redis.call('PEXPIRE', KEYS[4], ARGV[2])\n"
    "local t = redis.call('TIME')\n"
    "local till = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3]\n"
    "redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', till), ARGV[1])\n"
    "return redis.status_reply('OK')\n";

/* KEYS: mirror. ARGV: id, least id to keep, records, keep_ms. A plain XADD does when the key is known to have an expiry. */
static const char append_script[] =
    "local id = redis.call('XADD', KEYS[1], 'MINID', '=', ARGV[2], ARGV[1], 'r', ARGV[3])\n"
    "if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end\n"
    "return id\n";

/* KEYS[1]: sessions. ARGV: pid, epoch. Ends the script with 0 when somebody has it under a higher epoch. */
#define CHECK_EPOCH                                                                                          \
    "local v = redis.call('HGET', KEYS[1], ARGV[1])\n"                                                       \
    "if v then\n"                                                                                            \
    "  local kind, epoch = v:match('^([=>])(%d+):')\n"                                                       \
    "  local have, mine = tonumber(epoch), tonumber(ARGV[2])\n"                                              \
    "  if have and (have > mine or kind == '>' and have == mine) then return 0 end\n"                        \
    "end\n"

/* ARGV: …, entry, keep_ms. */
static const char put_script[] =
    CHECK_EPOCH "redis.call('HSET', KEYS[1], ARGV[1], '=' .. ARGV[2] .. ':' .. ARGV[3])\n"
                "if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end\n"
                "return 1\n";

static const char drop_script[] = CHECK_EPOCH "redis.call('HDEL', KEYS[1], ARGV[1])\n"
                                              "return 1\n";

/* KEYS: the owner's sessions, the claimer's. ARGV: pid, the claimer's tag, keep_ms. */
static const char claim_script[] =
    "local v = redis.call('HGET', KEYS[1], ARGV[1])\n"
    "local kind, epoch, rest = (v or ''):match('^([=>])(%d+):(.*)$')\n"
    "if not kind then return false end\n"
    "if kind == '>' then return {kind, epoch, rest} end\n"
    "epoch = string.format('%.0f', epoch + 1)\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[3])\n"
    "redis.call('HSET', KEYS[1], ARGV[1], '>' .. epoch .. ':' .. ARGV[2])\n"
    "redis.call('HSET', KEYS[2], ARGV[1], '=' .. epoch .. ':' .. rest)\n"
    "if redis.call('PTTL', KEYS[2]) < 0 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end\n"
    "return {kind, epoch, rest}\n";

#undef CHECK_EPOCH

#endif
