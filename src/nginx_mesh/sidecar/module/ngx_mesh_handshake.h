/* mTLS: each side proves its SPIFFE ID in the handshake, and verifies the other's. */

#ifndef NGX_MESH_HANDSHAKE_H
#define NGX_MESH_HANDSHAKE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

/*
 * The server's side, for all connections of a context. `count`: their handshakes are counted, and one in which the
 * client proves nothing counts as failed.
 */
ngx_int_t ngx_mesh_handshake_serve(SSL_CTX *ctx, ngx_uint_t count);
/* The SPIFFE ID that the client of a connection proved; NGX_DECLINED when it proved none. */
ngx_int_t ngx_mesh_handshake_peer(ngx_connection_t *c, ngx_str_t *id);
/* The client's side, for one connection. Only `expected`, a SPIFFE ID that outlives the handshake, is accepted. */
ngx_int_t ngx_mesh_handshake_connect(ngx_connection_t *c, const ngx_str_t *expected, ngx_uint_t tcp);

#endif
