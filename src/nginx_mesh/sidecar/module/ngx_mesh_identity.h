/* The identity in force: the pod's X.509-SVID, and the trust bundles by which others are verified. */

#ifndef NGX_MESH_IDENTITY_H
#define NGX_MESH_IDENTITY_H

#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/ssl.h>

#include "ngx_mesh_bundles.h"

/* Puts the pod's SVID on one side of a handshake. NGX_DECLINED: there is none. */
ngx_int_t ngx_mesh_identity_use(SSL *ssl);
/* The bundle of the trust domain that a workload's SPIFFE ID belongs to; NULL when there is none. */
ngx_mesh_bundle_t *ngx_mesh_identity_bundle(const u_char *id, size_t len);
/* Counts the sets of trust bundles that this worker has had: what was proved by an earlier one is to be proved anew. */
uint64_t ngx_mesh_identity_generation(void);

#endif
