#include "json.h"
#include "err.h"
#include "limit.h"
#include <endian.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ONES      UINT64_C(0x0101010101010101)
#define HIGH_BITS (ONES << 7)

/* What a byte may be to a scan, as bits. */
enum {
    BLANK = 1,
    DIGIT = 2,
    STOP = 4,  /* does not stand for itself in a string: quote, backslash, control character */
    BREAK = 8, /* ends a number or word in checked text */
    OPEN = 16,
    CLOSE = 32,
};

static const uint8_t kind[256] = {
    [0x00] = STOP,
    [0x01] = STOP,
    [0x02] = STOP,
    [0x03] = STOP,
    [0x04] = STOP,
    [0x05] = STOP,
    [0x06] = STOP,
    [0x07] = STOP,
    [0x08] = STOP,
    [0x0b] = STOP,
    [0x0c] = STOP,
    [0x0e] = STOP,
    [0x0f] = STOP,
    [0x10] = STOP,
    [0x11] = STOP,
    [0x12] = STOP,
    [0x13] = STOP,
    [0x14] = STOP,
    [0x15] = STOP,
    [0x16] = STOP,
    [0x17] = STOP,
    [0x18] = STOP,
    [0x19] = STOP,
    [0x1a] = STOP,
    [0x1b] = STOP,
    [0x1c] = STOP,
    [0x1d] = STOP,
    [0x1e] = STOP,
    [0x1f] = STOP,
    ['"'] = STOP,
    ['\\'] = STOP,

    ['\t'] = STOP | BLANK | BREAK,
    ['\n'] = STOP | BLANK | BREAK,
    ['\r'] = STOP | BLANK | BREAK,
    [' '] = BLANK | BREAK,
    [','] = BREAK,

    ['0'] = DIGIT,
    ['1'] = DIGIT,
    ['2'] = DIGIT,
    ['3'] = DIGIT,
    ['4'] = DIGIT,
    ['5'] = DIGIT,
    ['6'] = DIGIT,
    ['7'] = DIGIT,
    ['8'] = DIGIT,
    ['9'] = DIGIT,

    ['['] = OPEN,
    ['{'] = OPEN,
    [']'] = CLOSE | BREAK,
    ['}'] = CLOSE | BREAK,
};

static bool is(char c, unsigned bits)
{
    return (kind[(uint8_t)c] & bits) != 0;
}

/* The value of a hexadecimal digit, or above 15. */
static unsigned hex(char c)
{
    if (is(c, DIGIT))
        return (unsigned)(c - '0');
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

static const char *blanks(const char *p, const char *end)
{
    while (p < end && is(*p, BLANK))
        ++p;
    return p;
}

/* Past the bytes that stand for themselves in a string: to a quote, a backslash, a control character or the
 * end. */
static const char *plain(const char *p, const char *end)
{
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const void *)p);
        __m128i stops = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                     _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
        __m128i last_control = _mm_set1_epi8(0x1f);
        stops = _mm_or_si128(stops, _mm_cmpeq_epi8(_mm_max_epu8(bytes, last_control), last_control));
        int mask = _mm_movemask_epi8(stops);
        if (mask != 0)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    for (; end - p >= 8; p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word = le64toh(word);
        uint64_t quote = word ^ ONES * '"', backslash = word ^ ONES * '\\';
        /* Each term sets the high bit of a byte that stops; only bytes above the first such may be set
         * wrongly. */
        uint64_t stop =
            ((word - ONES * 0x20) & ~word) | ((quote - ONES) & ~quote) | ((backslash - ONES) & ~backslash);
        stop &= HIGH_BITS;
        if (stop != 0)
            return p + __builtin_ctzll(stop) / 8;
    }
    while (p < end && !is(*p, STOP))
        ++p;
    return p;
}

/* The scans of the check take the position and return the one past what they accept, or NULL. */

/* p is past the backslash. */
static const char *escape(const char *p, const char *end)
{
    if (p == end)
        return NULL;
    switch (*p++) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return p;
    case 'u':
        return end - p >= 4 && (hex(p[0]) | hex(p[1]) | hex(p[2]) | hex(p[3])) < 16 ? p + 4 : NULL;
    default:
        return NULL;
    }
}

/* p is past the opening quote. */
static const char *string(const char *p, const char *end)
{
    while ((p = plain(p, end)) < end) {
        char c = *p++;
        if (c == '"')
            return p;
        if (c != '\\' || (p = escape(p, end)) == NULL)
            return NULL;
    }
    return NULL;
}

static const char *digits(const char *p, const char *end)
{
    if (p == end || !is(*p, DIGIT))
        return NULL;
    do
        ++p;
    while (p < end && is(*p, DIGIT));
    return p;
}

static const char *number(const char *p, const char *end)
{
    if (*p == '-')
        ++p;
    if (p < end && *p == '0')
        ++p;
    else if ((p = digits(p, end)) == NULL)
        return NULL;
    if (p < end && *p == '.' && (p = digits(p + 1, end)) == NULL)
        return NULL;
    if (p < end && (*p | 0x20) == 'e') {
        ++p;
        if (p < end && (*p == '+' || *p == '-'))
            ++p;
        p = digits(p, end);
    }
    return p;
}

static const char *word(const char *p, const char *end, struct span expected)
{
    return (size_t)(end - p) >= expected.n && memcmp(p, expected.p, expected.n) == 0 ? p + expected.n : NULL;
}

static const char *scalar(const char *p, const char *end)
{
    switch (*p) {
    case '"':
        return string(p + 1, end);
    case 't':
        return word(p, end, SPAN("true"));
    case 'f':
        return word(p, end, SPAN("false"));
    case 'n':
        return word(p, end, SPAN("null"));
    default:
        return number(p, end);
    }
}

static const char *key(const char *p, const char *end)
{
    p = blanks(p, end);
    if (p == end || *p != '"' || (p = string(p + 1, end)) == NULL)
        return NULL;
    p = blanks(p, end);
    return p < end && *p == ':' ? p + 1 : NULL;
}

/* The containers that are open: bit i tells whether the one at depth i is an object. */
struct nest {
    unsigned depth, max_depth;
    uint64_t object[(LIMIT_JSON_DEPTH + 63) / 64];
};

static bool push(struct nest *nest, bool object)
{
    if (nest->depth == nest->max_depth)
        return false;
    uint64_t bit = UINT64_C(1) << nest->depth % 64, *bits = &nest->object[nest->depth / 64];
    *bits = object ? *bits | bit : *bits & ~bit;
    nest->depth++;
    return true;
}

static bool in_object(const struct nest *nest)
{
    unsigned i = nest->depth - 1;
    return (nest->object[i / 64] >> i % 64 & 1) != 0;
}

/* Behind a value: past what closes there, to the next value. The end of the text when the outermost is
 * closed. */
static const char *next_value(struct nest *nest, const char *p, const char *end)
{
    while (nest->depth > 0) {
        p = blanks(p, end);
        if (p == end)
            return NULL;
        bool object = in_object(nest);
        char c = *p++;
        if (c == ',')
            return object ? key(p, end) : p;
        if (c != (object ? '}' : ']'))
            return NULL;
        nest->depth--;
    }
    p = blanks(p, end);
    return p == end ? end : NULL;
}

int json_check(struct span text, unsigned max_depth)
{
    if (text.n == 0)
        return ERR_JSON;
    struct nest nest = {.max_depth = max_depth < LIMIT_JSON_DEPTH ? max_depth : LIMIT_JSON_DEPTH};
    const char *p = text.p, *end = p + text.n;
    do {
        p = blanks(p, end);
        if (p == end)
            return ERR_JSON;
        if (is(*p, OPEN)) {
            bool object = *p == '{';
            if (!push(&nest, object))
                return ERR_JSON_DEPTH;
            p = blanks(p + 1, end);
            bool empty = p < end && *p == (object ? '}' : ']');
            if (!empty) {
                if (object && (p = key(p, end)) == NULL)
                    return ERR_JSON;
                continue;
            }
        } else if ((p = scalar(p, end)) == NULL) {
            return ERR_JSON;
        }
        if ((p = next_value(&nest, p, end)) == NULL)
            return ERR_JSON;
    } while (nest.depth > 0);
    return 0;
}

/* From here on the text has passed the check. The bounds are looked at all the same: text that has not must
 * not lead out of its span. */

static struct span strip(struct span text)
{
    while (text.n > 0 && is(*text.p, BLANK)) {
        ++text.p;
        --text.n;
    }
    while (text.n > 0 && is(text.p[text.n - 1], BLANK))
        --text.n;
    return text;
}

/* p is past the opening quote; to past the closing one. */
static const char *skip_string(const char *p, const char *end)
{
    while ((p = plain(p, end)) < end) {
        if (*p == '"')
            return p + 1;
        p += *p == '\\' && end - p >= 2 ? 2 : 1;
    }
    return end;
}

/* Past the value that starts at p. */
static const char *skip(const char *p, const char *end)
{
    unsigned depth = 0;
    do {
        if (*p == '"') {
            p = skip_string(p + 1, end);
        } else if (is(*p, OPEN)) {
            ++depth;
            ++p;
        } else if (is(*p, CLOSE)) {
            if (depth == 0)
                return p;
            --depth;
            ++p;
        } else if (depth > 0) {
            ++p;
        } else {
            while (p < end && !is(*p, BREAK))
                ++p;
        }
    } while (depth > 0 && p < end);
    return p;
}

enum json_type json_type(struct span value)
{
    value = strip(value);
    if (value.n == 0)
        return JSON_NONE;
    switch (*value.p) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
    case 'f':
        return JSON_BOOL;
    case 'n':
        return JSON_NULL;
    default:
        return *value.p == '-' || is(*value.p, DIGIT) ? JSON_NUMBER : JSON_NONE;
    }
}

struct json_cursor json_open(struct span value)
{
    value = strip(value);
    if (value.n < 2 || !is(*value.p, OPEN))
        return (struct json_cursor){value.p, value.p};
    return (struct json_cursor){value.p + 1, value.p + value.n - 1};
}

bool json_item(struct json_cursor *c, struct span *value)
{
    const char *start = blanks(c->p, c->end);
    const char *past = start < c->end ? skip(start, c->end) : start;
    if (past == start) {
        c->p = c->end;
        return false;
    }
    *value = (struct span){start, (size_t)(past - start)};
    past = blanks(past, c->end);
    c->p = past < c->end ? past + 1 : past; /* the comma */
    return true;
}

bool json_member(struct json_cursor *c, struct span *name, struct span *value)
{
    const char *start = blanks(c->p, c->end);
    if (start == c->end || *start != '"')
        return false;
    const char *past = skip_string(start + 1, c->end);
    *name = (struct span){start, (size_t)(past - start)};
    past = blanks(past, c->end);
    c->p = past < c->end ? past + 1 : past; /* the colon */
    return json_item(c, value);
}

static unsigned code_unit(const char *p)
{
    return hex(p[0]) << 12 | hex(p[1]) << 8 | hex(p[2]) << 4 | hex(p[3]);
}

/* The code point of the escape behind a backslash, moving *p past it. 0 for what json_string() refuses:
 * U+0000 and a surrogate without its partner. */
static uint32_t decode_escape(const char **p, const char *end)
{
    const char *q = *p;
    if (escape(q, end) == NULL)
        return 0;
    *p = escape(q, end);
    switch (*q) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        break;
    default:
        return (uint8_t)*q;
    }
    uint32_t high = code_unit(q + 1);
    if (high < 0xd800 || high > 0xdfff)
        return high;
    q = *p;
    if (high > 0xdbff || end - q < 6 || q[0] != '\\' || q[1] != 'u')
        return 0;
    uint32_t low = code_unit(q + 2);
    if (low < 0xdc00 || low > 0xdfff)
        return 0;
    *p = q + 6;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static bool key_equals(struct span raw, const char *text)
{
    const char *p = raw.p + 1, *end = raw.p + raw.n - 1;
    while (p < end) {
        uint32_t c = (uint8_t)*p++;
        if (c == '\\')
            c = decode_escape(&p, end);
        if (c == 0 || c != (uint8_t)*text++)
            return false;
    }
    return *text == '\0';
}

struct span json_get(struct span object, const char *name)
{
    struct span found = {0}, raw, value;
    if (json_type(object) != JSON_OBJECT)
        return found;
    struct json_cursor c = json_open(object);
    while (json_member(&c, &raw, &value)) {
        if (key_equals(raw, name))
            found = value;
    }
    return found;
}

bool json_is_true(struct span value)
{
    return span_eq(strip(value), SPAN("true"));
}

static size_t encode_utf8(char dst[4], uint32_t c)
{
    if (c < 0x80) {
        dst[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; --i, c >>= 6)
        dst[i] = (char)(0x80 | (c & 0x3f));
    dst[0] = (char)(0xf00u >> n | c);
    return n;
}

ssize_t json_string(struct span value, char *dst, size_t cap)
{
    value = strip(value);
    if (value.n < 2 || *value.p != '"')
        return ERR_JSON;
    const char *p = value.p + 1, *end = value.p + value.n - 1;
    size_t n = 0;
    while (p < end) {
        char encoded[4];
        const char *piece = p;
        size_t piece_n;
        p = plain(p, end);
        if (p > piece) {
            piece_n = (size_t)(p - piece);
        } else {
            uint32_t c = *p++ == '\\' ? decode_escape(&p, end) : 0;
            if (c == 0)
                return ERR_JSON;
            piece = encoded;
            piece_n = encode_utf8(encoded, c);
        }
        if (piece_n > cap - n)
            return ERR_LIMIT;
        memcpy(dst + n, piece, piece_n);
        n += piece_n;
    }
    return (ssize_t)n;
}

bool json_uint(struct span value, uint64_t max, uint64_t *out)
{
    value = strip(value);
    uint64_t sum = 0;
    for (size_t i = 0; i < value.n; ++i) {
        if (!is(value.p[i], DIGIT))
            return false;
        uint64_t digit = (uint64_t)(value.p[i] - '0');
        if (digit > max || sum > (max - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *out = sum;
    return value.n > 0;
}

size_t json_quote(char *dst, struct span src)
{
    /* The letter of a short escape; other control characters are written as \u00xx. */
    static const char letter[0x60] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\',
    };
    char *out = dst;
    *out++ = '"';
    for (size_t i = 0; i < src.n;) {
        const char *p = src.p + i;
        size_t n = (size_t)(plain(p, src.p + src.n) - p);
        memcpy(out, p, n);
        out += n;
        i += n;
        if (i == src.n)
            break;
        uint8_t c = (uint8_t)src.p[i++];
        *out++ = '\\';
        if (letter[c] != 0) {
            *out++ = letter[c];
        } else {
            memcpy(out, "u00", 3);
            out[3] = "0123456789abcdef"[c >> 4];
            out[4] = "0123456789abcdef"[c & 15];
            out += 5;
        }
    }
    *out++ = '"';
    return (size_t)(out - dst);
}
