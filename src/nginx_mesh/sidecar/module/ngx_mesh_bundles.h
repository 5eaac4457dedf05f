/* Trust bundles: the certificate authorities of one trust domain. */

#ifndef NGX_MESH_BUNDLES_H
#define NGX_MESH_BUNDLES_H

#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/x509.h>

typedef struct {
    u_char          *prefix;            /* "spiffe://<trust domain>/"; OPENSSL_free */
    size_t           prefix_len;
    STACK_OF(X509)  *roots;
    X509_STORE      *store;             /* of the roots */
} ngx_mesh_bundle_t;

/* Reads the PEM of a trust domain's authorities. NULL, or the error; then `bundle` is empty. */
const char *ngx_mesh_bundle_read(ngx_mesh_bundle_t *bundle, const ngx_str_t *pem);
void ngx_mesh_bundle_clear(ngx_mesh_bundle_t *bundle);
/* The bundle among `n` of the trust domain that a workload's SPIFFE ID belongs to; NULL when there is none. */
ngx_mesh_bundle_t *ngx_mesh_bundles_find(ngx_mesh_bundle_t *bundles, size_t n, const u_char *id, size_t len);
/* The SHA-256 of all bundles: it changes with any of them. `digest` has room for 32 bytes. */
ngx_int_t ngx_mesh_bundles_digest(const ngx_mesh_bundle_t *bundles, size_t n, u_char *digest);

#endif
