/* X.509-SVIDs: reading certificates, and the SPIFFE ID that one carries. */

#ifndef NGX_MESH_SVID_H
#define NGX_MESH_SVID_H

#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/x509.h>

#define NGX_MESH_SPIFFE_SCHEME      "spiffe://"
#define NGX_MESH_SPIFFE_SCHEME_LEN  ((int) sizeof(NGX_MESH_SPIFFE_SCHEME) - 1)

/* The next certificate of a PEM; NULL at its end, or at a malformed certificate, and then `*err` says so. */
X509 *ngx_mesh_svid_read(BIO *bio, const char **err);
/*
 * The workload's SPIFFE ID in the certificate, which is its only URI SAN (X509-SVID, 2). The caller owns it
 * (OPENSSL_free). NULL: the certificate is no SVID of a workload.
 */
char *ngx_mesh_svid_id(X509 *cert);

#endif
