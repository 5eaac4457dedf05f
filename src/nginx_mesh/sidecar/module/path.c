#include "path.h"


static int
path_hex(unsigned char ch)
{
    if (ch >= '0' && ch <= '9') {
        return ch - '0';
    }

    ch |= 0x20;

    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}


/* Decodes the "%" at `p` and the two digits after it; -1: there are no two digits. */
static int
path_decode(const unsigned char *p, const unsigned char *end)
{
    int  high, low;

    if (end - p < 3) {
        return -1;
    }

    high = path_hex(p[1]);
    low = path_hex(p[2]);

    return high < 0 || low < 0 ? -1 : high << 4 | low;
}


static int
path_is_control(int ch)
{
    return ch < 0x20 || ch == 0x7f;
}


/* These bytes begin overlong UTF-8, and never anything else. */
static int
path_is_overlong(int ch)
{
    return ch == 0xc0 || ch == 0xc1;
}


static int
path_is_ambiguous_encoding(const unsigned char *p, const unsigned char *end)
{
    int  ch;

    ch = path_decode(p, end);

    if (ch == '%') {
        return end - p >= 5 && path_hex(p[3]) >= 0 && path_hex(p[4]) >= 0;
    }

    /* -1, which is no encoding, is none of these. */
    return path_is_control(ch) || path_is_overlong(ch) || ch == '/' || ch == '\\' || ch == ';';
}


/* Whether the segment that begins here, up to its parameters, is "." or "..", encoded or not. */
static int
path_is_dots(const unsigned char *p, const unsigned char *end)
{
    int  n;

    for (n = 0; p < end && *p != '/' && *p != ';'; n++) {

        if (*p == '.') {
            p++;

        } else if (*p == '%' && path_decode(p, end) == '.') {
            p += 3;

        } else {
            return 0;
        }
    }

    return n == 1 || n == 2;
}


int
path_is_ambiguous(const unsigned char *target, size_t len)
{
    const unsigned char  *p, *end;

    for (end = target; end < target + len && *end != '?'; end++) { /* void */ }

    for (p = target; p < end; p++) {

        switch (*p) {

        case '/':
            if (p + 1 < end && (p[1] == '.' || p[1] == '%') && path_is_dots(p + 1, end)) {
                return 1;
            }

            break;

        case '%':
            if (path_is_ambiguous_encoding(p, end)) {
                return 1;
            }

            break;

        case '\\':
        case '#':
            return 1;

        default:
            if (path_is_control(*p) || path_is_overlong(*p)) {
                return 1;
            }
        }
    }

    return 0;
}


size_t
path_merge_slashes(unsigned char *to, const unsigned char *path, size_t len)
{
    size_t  i, n;

    for (i = 0, n = 0; i < len; i++) {
        if (path[i] != '/' || n == 0 || to[n - 1] != '/') {
            to[n++] = path[i];
        }
    }

    return n;
}


size_t
path_cut_parameters(unsigned char *to, const unsigned char *path, size_t len)
{
    int     cut;
    size_t  i, n;

    for (i = 0, n = 0, cut = 0; i < len; i++) {

        if (path[i] == '/') {
            cut = 0;

        } else if (path[i] == ';') {
            cut = 1;
        }

        if (!cut) {
            to[n++] = path[i];
        }
    }

    return n;
}
