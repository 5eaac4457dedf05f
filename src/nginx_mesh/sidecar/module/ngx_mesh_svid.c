#include "ngx_mesh_svid.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>


X509 *
ngx_mesh_svid_read(BIO *bio, const char **err)
{
    X509           *cert;
    unsigned long   n;

    ERR_clear_error();

    cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (cert) {
        return cert;
    }

    n = ERR_peek_last_error();

    if (ERR_GET_LIB(n) != ERR_LIB_PEM || ERR_GET_REASON(n) != PEM_R_NO_START_LINE) {
        *err = "malformed certificate";
    }

    ERR_clear_error();

    return NULL;
}


/* A certificate that may sign others is nobody's SVID (X509-SVID, 5.2). */
static ngx_uint_t
ngx_mesh_is_authority(X509 *cert)
{
    uint32_t  flags;

    flags = X509_get_extension_flags(cert);

    return (flags & (EXFLAG_CA|EXFLAG_INVALID))
           || ((flags & EXFLAG_KUSAGE) && (X509_get_key_usage(cert) & (KU_KEY_CERT_SIGN|KU_CRL_SIGN)));
}


static ngx_uint_t
ngx_mesh_is_id_char(u_char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}


/*
 * Whether this is a workload's SPIFFE ID without its scheme (SPIFFE-ID, 2). Other trust domains sign whatever they
 * like, and SPIFFE IDs get into headers and logs.
 */
static ngx_uint_t
ngx_mesh_is_workload(const u_char *p, size_t len)
{
    size_t         n;
    const u_char  *start, *last = p + len;

    for (start = p; p < last && *p != '/'; p++) {
        if (!ngx_mesh_is_id_char(*p)) {
            return 0;
        }
    }

    if (p == start || p - start > 255 || p == last) {
        return 0;
    }

    while (p < last) {

        for (start = ++p; p < last && *p != '/'; p++) {
            if (!ngx_mesh_is_id_char(*p) && (*p < 'A' || *p > 'Z')) {
                return 0;
            }
        }

        n = p - start;

        if (n == 0 || (n <= 2 && start[0] == '.' && start[n - 1] == '.')) {
            return 0;
        }
    }

    return 1;
}


char *
ngx_mesh_svid_id(X509 *cert)
{
    int              i, uris;
    char            *id;
    GENERAL_NAME    *name;
    GENERAL_NAMES   *names;
    ASN1_IA5STRING  *uri = NULL;

    if (ngx_mesh_is_authority(cert)) {
        return NULL;
    }

    names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    if (names == NULL) {
        return NULL;
    }

    uris = 0;

    for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_URI) {
            uri = name->d.uniformResourceIdentifier;
            uris++;
        }
    }

    id = NULL;

    if (uris == 1 && uri->length > NGX_MESH_SPIFFE_SCHEME_LEN && uri->length <= 2048
        && ngx_memcmp(uri->data, NGX_MESH_SPIFFE_SCHEME, NGX_MESH_SPIFFE_SCHEME_LEN) == 0
        && ngx_mesh_is_workload(uri->data + NGX_MESH_SPIFFE_SCHEME_LEN, uri->length - NGX_MESH_SPIFFE_SCHEME_LEN))
    {
        id = OPENSSL_strndup((char *) uri->data, uri->length);
    }

    GENERAL_NAMES_free(names);

    return id;
}
