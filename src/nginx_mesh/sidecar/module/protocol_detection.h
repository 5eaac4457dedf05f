/*
 * Tells from its first bytes which protocol a client speaks. This is pure logic without nginx and without I/O, so that
 * it is tested on its own.
 */

#ifndef MESH_PROTOCOL_DETECTION_H
#define MESH_PROTOCOL_DETECTION_H

#include <stddef.h>
#include <stdint.h>

/* The ALPN protocol (RFC 7301) by which one sidecar tells another that it carries plain TCP inside mTLS. */
#define PROTOCOL_ALPN_TCP  "nginx-mesh-tcp"

typedef enum {
    PROTOCOL_INCOMPLETE = 0,        /* there are not enough bytes to tell */
    PROTOCOL_PLAINTEXT,             /* anything but TLS */
    PROTOCOL_TLS,                   /* a TLS ClientHello */
    PROTOCOL_TLS_MESH_TCP           /* a ClientHello that offers PROTOCOL_ALPN_TCP */
} protocol_kind;

/*
 * `data` is what has arrived so far. A ClientHello (RFC 8446, 4.1.2) that is malformed, spread over several records or
 * longer than 16 KiB is PROTOCOL_TLS: OpenSSL will judge it in the handshake.
 */
protocol_kind protocol_detect(const uint8_t *data, size_t len);

#endif
