#include <stdio.h>
#include <string.h>

#include "report.h"
#include "text.h"

#define LONGEST_ESCAPE  6


void
report_begin(report *r, unsigned char *buffer, size_t size)
{
    r->start = buffer;
    r->pos = buffer;
    r->end = buffer + size - 1;
    *r->pos++ = '{';
}


/* Writes `,"name":` if there is room for that and for `more` bytes. Returns whether there was. */
static int
begin_member(report *r, const char *name, size_t more)
{
    size_t  len = strlen(name);

    if ((size_t) (r->end - r->pos) < len + 4 + more) {
        return 0;
    }

    if (r->pos != r->start + 1) {
        *r->pos++ = ',';
    }

    *r->pos++ = '"';
    memcpy(r->pos, name, len);
    r->pos += len;
    *r->pos++ = '"';
    *r->pos++ = ':';

    return 1;
}


/* Writes the character of `n` bytes at `p` as JSON has it, in at most LONGEST_ESCAPE bytes. `n` 0: it is none. */
static size_t
escape(unsigned char *out, const unsigned char *p, size_t n)
{
    if (n == 0) {
        memcpy(out, "\xef\xbf\xbd", 3);         /* U+FFFD */
        return 3;
    }

    if (p[0] == '"' || p[0] == '\\') {
        out[0] = '\\';
        out[1] = p[0];
        return 2;
    }

    if (p[0] < 0x20 || p[0] == 0x7f) {
        static const char  digits[] = "0123456789abcdef";

        memcpy(out, "\\u00", 4);
        out[4] = (unsigned char) digits[p[0] >> 4];
        out[5] = (unsigned char) digits[p[0] & 0xf];
        return 6;
    }

    memcpy(out, p, n);

    return n;
}


void
report_text(report *r, const char *name, const unsigned char *text, size_t len, size_t max)
{
    size_t         i, n, written;
    unsigned char  out[LONGEST_ESCAPE];

    if (len == 0 || !begin_member(r, name, max + 2)) {
        return;
    }

    *r->pos++ = '"';

    for (i = 0; i < len; i += n ? n : 1) {
        n = text_character(text + i, len - i);
        written = escape(out, text + i, n);

        if (written > max) {
            break;
        }

        memcpy(r->pos, out, written);
        r->pos += written;
        max -= written;
    }

    *r->pos++ = '"';
}


void
report_number(report *r, const char *name, int64_t value)
{
    char  out[24];
    int   len;

    len = snprintf(out, sizeof(out), "%lld", (long long) value);

    if (begin_member(r, name, (size_t) len)) {
        memcpy(r->pos, out, (size_t) len);
        r->pos += len;
    }
}


size_t
report_end(report *r)
{
    *r->pos++ = '}';

    return (size_t) (r->pos - r->start);
}
