#include "protocol_detection.h"

#include <string.h>

#define TLS_HANDSHAKE       22
#define TLS_CLIENT_HELLO     1
#define TLS_RECORD_HEADER    5
#define TLS_RECORD_MAX   16384
#define TLS_EXT_ALPN        16


/* Bytes that are still to be read. Reading never passes their end. */
typedef struct {
    const uint8_t  *p;
    size_t          left;
} span;


static int
span_number(span *s, size_t width, size_t *value)
{
    size_t  i;

    if (s->left < width) {
        return 0;
    }

    *value = 0;

    for (i = 0; i < width; i++) {
        *value = (*value << 8) | s->p[i];
    }

    s->p += width;
    s->left -= width;

    return 1;
}


/* Reads a vector, which follows its length in `width` bytes. */
static int
span_vector(span *s, size_t width, span *out)
{
    size_t  len;

    if (!span_number(s, width, &len) || s->left < len) {
        return 0;
    }

    *out = (span) { s->p, len };
    s->p += len;
    s->left -= len;

    return 1;
}


static int
client_hello_alpn_offers_mesh(span extension)
{
    span  list, name;

    if (!span_vector(&extension, 2, &list)) {
        return 0;
    }

    while (list.left) {
        if (!span_vector(&list, 1, &name)) {
            return 0;
        }

        if (name.left == sizeof(PROTOCOL_ALPN_TCP) - 1 && memcmp(name.p, PROTOCOL_ALPN_TCP, name.left) == 0) {
            return 1;
        }
    }

    return 0;
}


static int
client_hello_offers_mesh(span record)
{
    span    body, skipped, extensions, extension;
    size_t  type;

    if (!span_number(&record, 1, &type) || type != TLS_CLIENT_HELLO || !span_vector(&record, 3, &body)) {
        return 0;
    }

    /* The body begins with legacy_version and random. Then follow session id, cipher suites, compression methods. */

    if (body.left < 34) {
        return 0;
    }

    body.p += 34;
    body.left -= 34;

    if (!span_vector(&body, 1, &skipped) || !span_vector(&body, 2, &skipped) || !span_vector(&body, 1, &skipped)
        || !span_vector(&body, 2, &extensions))
    {
        return 0;
    }

    while (extensions.left) {
        if (!span_number(&extensions, 2, &type) || !span_vector(&extensions, 2, &extension)) {
            return 0;
        }

        if (type == TLS_EXT_ALPN) {
            return client_hello_alpn_offers_mesh(extension);
        }
    }

    return 0;
}


protocol_kind
protocol_detect(const uint8_t *data, size_t len)
{
    size_t  length;

    if (len == 0) {
        return PROTOCOL_INCOMPLETE;
    }

    if (data[0] != TLS_HANDSHAKE) {
        return PROTOCOL_PLAINTEXT;
    }

    if (len > 1 && data[1] != 3) {
        return PROTOCOL_PLAINTEXT;
    }

    if (len < TLS_RECORD_HEADER) {
        return PROTOCOL_INCOMPLETE;
    }

    length = ((size_t) data[3] << 8) | data[4];

    if (length == 0 || length > TLS_RECORD_MAX) {
        return PROTOCOL_PLAINTEXT;
    }

    if (len < TLS_RECORD_HEADER + length) {
        return PROTOCOL_INCOMPLETE;
    }

    return client_hello_offers_mesh((span) { data + TLS_RECORD_HEADER, length }) ? PROTOCOL_TLS_MESH_TCP : PROTOCOL_TLS;
}
