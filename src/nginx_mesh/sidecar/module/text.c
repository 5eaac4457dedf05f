#include "text.h"

#include <string.h>


size_t
text_character(const unsigned char *p, size_t len)
{
    size_t         i, n;
    unsigned char  low = 0x80, high = 0xbf;

    if (p[0] < 0x80) {
        return 1;
    }

    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;

    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n = 3;
        low = p[0] == 0xe0 ? 0xa0 : low;
        high = p[0] == 0xed ? 0x9f : high;

    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;
        low = p[0] == 0xf0 ? 0x90 : low;
        high = p[0] == 0xf4 ? 0x8f : high;

    } else {
        return 0;
    }

    if (len < n || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }

    return n;
}


size_t
text_invalid(const unsigned char *data, size_t len)
{
    size_t  i = 0, n, invalid = 0;

    while (i < len) {
        n = text_character(data + i, len - i);
        invalid += n == 0;
        i += n ? n : 1;
    }

    return invalid;
}


size_t
text_repair(unsigned char *to, const unsigned char *data, size_t len)
{
    size_t          i = 0, n;
    unsigned char  *p = to;

    while (i < len) {
        n = text_character(data + i, len - i);

        if (n == 0) {
            memcpy(p, "\xef\xbf\xbd", 3);
            p += 3;
            i++;
            continue;
        }

        memcpy(p, data + i, n);
        p += n;
        i += n;
    }

    return (size_t) (p - to);
}


/* How many bytes text_printable writes for a byte. */
static size_t
text_printable_width(unsigned char c)
{
    return c < 0x20 || c > 0x7e || c == '"' || c == '\\' ? 4 : 1;
}


size_t
text_printable(unsigned char *to, size_t size, const unsigned char *data, size_t len)
{
    size_t             i, width, n = 0;
    static const char  digits[] = "0123456789abcdef";

    for (i = 0; i < len && n <= size; i++) {
        n += text_printable_width(data[i]);
    }

    if (n > size) {
        size -= 3;
    }

    for (i = 0, n = 0; i < len; i++, n += width) {
        width = text_printable_width(data[i]);

        if (n + width > size) {
            memcpy(to + n, "...", 3);
            return n + 3;
        }

        if (width == 1) {
            to[n] = data[i];
            continue;
        }

        to[n] = '\\';
        to[n + 1] = 'x';
        to[n + 2] = (unsigned char) digits[data[i] >> 4];
        to[n + 3] = (unsigned char) digits[data[i] & 0xf];
    }

    return n;
}
