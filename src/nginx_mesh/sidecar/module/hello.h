/* Telling what a client speaks from its first bytes: pure logic, tested and fuzzed on its own. */

#ifndef MESH_HELLO_H
#define MESH_HELLO_H

#include <stddef.h>
#include <stdint.h>

/* The ALPN protocol (RFC 7301) by which one sidecar tells another that it carries plain TCP inside mTLS. */
#define MESH_ALPN_TCP  "nginx-mesh-tcp"

typedef enum {
    HELLO_MORE = 0,         /* not enough bytes to tell */
    HELLO_PLAIN,            /* not TLS */
    HELLO_TLS,              /* a TLS ClientHello */
    HELLO_TLS_MESH_TCP      /* a ClientHello that offers MESH_ALPN_TCP */
} hello_kind;

/*
 * `data` is what has arrived so far. A ClientHello (RFC 8446, 4.1.2) that is malformed, spread over several records or
 * longer than 16 KiB is HELLO_TLS: its handshake will be judged by OpenSSL.
 */
hello_kind hello_classify(const uint8_t *data, size_t len);

#endif
