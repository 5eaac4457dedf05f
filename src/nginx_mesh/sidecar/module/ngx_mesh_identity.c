/*
 * Who this pod is and whom it believes: its X.509-SVID and the trust bundle, applied to each handshake.
 *
 * They are objects of this worker, parsed once when they change, never files. Connections take references, so that a
 * rotation disturbs none that is under way.
 */

#include "ngx_mesh.h"

#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#define NGX_MESH_ALPN_TCP     "\x0e" MESH_ALPN_TCP

typedef struct {
    X509            *leaf;
    STACK_OF(X509)  *chain;             /* intermediates */
    EVP_PKEY        *key;
    X509_STORE      *trusted;
    u_char          *trust_domain;      /* "spiffe://<trust domain>/" */
    size_t           trust_domain_len;
    u_char           bundle_digest[SHA256_DIGEST_LENGTH];
} ngx_mesh_identity_t;

static ngx_mesh_identity_t  ngx_mesh_identity;
static uint64_t             ngx_mesh_generation;
static int                  ngx_mesh_expected_index = -1;


static void
ngx_mesh_identity_clear(ngx_mesh_identity_t *id)
{
    X509_free(id->leaf);
    sk_X509_pop_free(id->chain, X509_free);
    EVP_PKEY_free(id->key);
    X509_STORE_free(id->trusted);
    OPENSSL_free(id->trust_domain);

    ngx_memzero(id, sizeof(ngx_mesh_identity_t));
}


/* The next certificate, or NULL at the end or at a malformed one; then `*err` tells which. */
static X509 *
ngx_mesh_read_cert(BIO *bio, const char **err)
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


static const char *
ngx_mesh_read_chain(ngx_mesh_identity_t *id, BIO *bio)
{
    X509        *cert;
    const char  *err = NULL;

    id->leaf = ngx_mesh_read_cert(bio, &err);
    if (id->leaf == NULL) {
        return err ? err : "no certificate in svid";
    }

    id->chain = sk_X509_new_null();
    if (id->chain == NULL) {
        return "no memory";
    }

    while ((cert = ngx_mesh_read_cert(bio, &err)) != NULL) {
        if (sk_X509_push(id->chain, cert) == 0) {
            X509_free(cert);
            return "no memory";
        }
    }

    return err;
}


static const char *
ngx_mesh_read_bundle(ngx_mesh_identity_t *id, BIO *bio)
{
    int          n;
    X509        *cert;
    const char  *err = NULL;

    id->trusted = X509_STORE_new();
    if (id->trusted == NULL) {
        return "no memory";
    }

    for (n = 0; (cert = ngx_mesh_read_cert(bio, &err)) != NULL; n++) {
        if (X509_STORE_add_cert(id->trusted, cert) != 1) {
            err = "unusable certificate in bundle";
        }

        X509_free(cert);

        if (err) {
            return err;
        }
    }

    return n == 0 && err == NULL ? "no certificate in bundle" : err;
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


/* The SPIFFE ID of an X.509-SVID: its only URI SAN (X509-SVID, 2); `*out` is owned by the caller (OPENSSL_free). */
static ngx_int_t
ngx_mesh_spiffe_id(X509 *cert, u_char **out, size_t *len)
{
    int                  i, uris;
    ngx_int_t            rc;
    GENERAL_NAME        *name;
    GENERAL_NAMES       *names;
    ASN1_IA5STRING      *uri = NULL;
    static const char    scheme[] = "spiffe://";

    if (ngx_mesh_is_authority(cert)) {
        return NGX_DECLINED;
    }

    names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    if (names == NULL) {
        return NGX_DECLINED;
    }

    uris = 0;

    for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_URI) {
            uri = name->d.uniformResourceIdentifier;
            uris++;
        }
    }

    rc = NGX_DECLINED;

    if (uris == 1 && uri->length > (int) sizeof(scheme) - 1 && uri->length <= 2048
        && ngx_memcmp(uri->data, scheme, sizeof(scheme) - 1) == 0
        && memchr(uri->data, '\0', uri->length) == NULL)
    {
        *len = uri->length;
        *out = OPENSSL_memdup(uri->data, uri->length);
        rc = *out ? NGX_OK : NGX_ERROR;
    }

    GENERAL_NAMES_free(names);

    return rc;
}


/* NULL, or what is wrong. The trust domain whose workload the SVID makes us. */
static const char *
ngx_mesh_read_trust_domain(ngx_mesh_identity_t *id)
{
    size_t   len;
    u_char  *data, *slash;

    if (ngx_mesh_spiffe_id(id->leaf, &data, &len) != NGX_OK) {
        return "the svid carries no SPIFFE ID";
    }

    slash = ngx_strlchr(data + sizeof("spiffe://") - 1, data + len, '/');

    if (slash == NULL) {
        OPENSSL_free(data);
        return "the svid is of no workload";
    }

    id->trust_domain = data;
    id->trust_domain_len = slash + 1 - data;

    return NULL;
}


/* FFI. NULL when the new identity is in force; else what is wrong, and the old one stays. */
const char *
ngx_mesh_ffi_identity(const u_char *svid, size_t svid_len, const u_char *key, size_t key_len, const u_char *bundle,
    size_t bundle_len)
{
    BIO                  *svid_bio, *key_bio, *bundle_bio;
    const char           *err;
    ngx_mesh_identity_t   id;

    ngx_memzero(&id, sizeof(ngx_mesh_identity_t));

    svid_bio = BIO_new_mem_buf(svid, svid_len);
    key_bio = BIO_new_mem_buf(key, key_len);
    bundle_bio = BIO_new_mem_buf(bundle, bundle_len);

    if (svid_bio == NULL || key_bio == NULL || bundle_bio == NULL) {
        err = "no memory";
        goto done;
    }

    err = ngx_mesh_read_chain(&id, svid_bio);
    if (err) {
        goto done;
    }

    /* "": never ask for a passphrase */
    id.key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, (void *) "");
    if (id.key == NULL) {
        err = "malformed private key";
        goto done;
    }

    if (X509_check_private_key(id.leaf, id.key) != 1) {
        err = "private key does not belong to the svid";
        goto done;
    }

    err = ngx_mesh_read_bundle(&id, bundle_bio);
    if (err) {
        goto done;
    }

    SHA256(bundle, bundle_len, id.bundle_digest);

    err = ngx_mesh_read_trust_domain(&id);

done:

    BIO_free(svid_bio);
    BIO_free(key_bio);
    BIO_free(bundle_bio);
    ERR_clear_error();

    if (err == NULL) {

        if (ngx_memcmp(id.bundle_digest, ngx_mesh_identity.bundle_digest, SHA256_DIGEST_LENGTH) != 0) {
            ngx_mesh_generation++;
        }

        ngx_mesh_identity_clear(&ngx_mesh_identity);
        ngx_mesh_identity = id;

    } else {
        ngx_mesh_identity_clear(&id);
    }

    return err;
}


/* FFI. From now on this pod is nobody and believes nobody. */
void
ngx_mesh_ffi_identity_clear(void)
{
    ngx_mesh_identity_clear(&ngx_mesh_identity);
    ngx_mesh_generation++;
}


/* FFI. When the SVID in force expires, seconds since the epoch; 0 when there is none. */
int64_t
ngx_mesh_ffi_identity_expires(void)
{
    struct tm  tm;

    if (ngx_mesh_identity.leaf == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(ngx_mesh_identity.leaf), &tm) != 1) {
        return 0;
    }

    return (int64_t) timegm(&tm);
}


uint64_t
ngx_mesh_identity_generation(void)
{
    return ngx_mesh_generation;
}


/* Puts the pod's SVID on one side of a handshake and the trust bundle behind its verification. */
static ngx_int_t
ngx_mesh_identity_use(SSL *ssl)
{
    if (ngx_mesh_identity.leaf == NULL) {
        return NGX_DECLINED;
    }

    if (SSL_use_certificate(ssl, ngx_mesh_identity.leaf) != 1
        || SSL_use_PrivateKey(ssl, ngx_mesh_identity.key) != 1
        || SSL_set1_chain(ssl, ngx_mesh_identity.chain) != 1
        || SSL_set1_verify_cert_store(ssl, ngx_mesh_identity.trusted) != 1)
    {
        return NGX_ERROR;
    }

    SSL_set_verify_depth(ssl, 10);

    return NGX_OK;
}


/* The handshake goes on with a bad certificate: HTTP answers it with 400, TCP closes. The result is kept by OpenSSL. */
static int
ngx_mesh_server_verify(int ok, X509_STORE_CTX *ctx)
{
    (void) ok;
    (void) ctx;

    return 1;
}


static int
ngx_mesh_server_cert(SSL *ssl, void *arg)
{
    (void) arg;

    if (ngx_mesh_identity_use(ssl) != NGX_OK) {
        return 0;
    }

    SSL_set_verify(ssl, SSL_VERIFY_PEER, ngx_mesh_server_verify);

    return 1;
}


void
ngx_mesh_identity_serve(SSL_CTX *ctx)
{
    SSL_CTX_set_cert_cb(ctx, ngx_mesh_server_cert, NULL);
}


ngx_int_t
ngx_mesh_identity_peer(ngx_connection_t *c, ngx_str_t *id)
{
    X509       *cert;
    u_char     *data;
    size_t      len;
    ngx_int_t   rc;

    if (c->ssl == NULL || SSL_get_verify_result(c->ssl->connection) != X509_V_OK) {
        return NGX_DECLINED;
    }

    cert = SSL_get0_peer_certificate(c->ssl->connection);
    if (cert == NULL) {
        return NGX_DECLINED;
    }

    rc = ngx_mesh_spiffe_id(cert, &data, &len);
    if (rc != NGX_OK) {
        return rc;
    }

    /* the bundle speaks for one trust domain (X509-SVID, 5.2), whatever else its authorities sign */

    if (ngx_mesh_identity.leaf == NULL
        || len <= ngx_mesh_identity.trust_domain_len
        || ngx_memcmp(data, ngx_mesh_identity.trust_domain, ngx_mesh_identity.trust_domain_len) != 0)
    {
        OPENSSL_free(data);
        return NGX_DECLINED;
    }

    id->len = len;
    id->data = ngx_pnalloc(c->pool, len);

    if (id->data) {
        ngx_memcpy(id->data, data, len);
    }

    OPENSSL_free(data);

    return id->data ? NGX_OK : NGX_ERROR;
}


static int
ngx_mesh_client_verify(int ok, X509_STORE_CTX *ctx)
{
    SSL               *ssl;
    u_char            *data;
    size_t             len;
    ngx_int_t          rc;
    ngx_str_t          found = ngx_string("none");
    const ngx_str_t   *expected;
    ngx_connection_t  *c;

    if (!ok || X509_STORE_CTX_get_error_depth(ctx) != 0) {
        return ok;
    }

    ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    expected = SSL_get_ex_data(ssl, ngx_mesh_expected_index);

    data = NULL;
    rc = ngx_mesh_spiffe_id(X509_STORE_CTX_get_current_cert(ctx), &data, &len);

    if (rc == NGX_OK) {
        found.data = data;
        found.len = len;

        if (expected && expected->len == len && ngx_memcmp(expected->data, data, len) == 0) {
            OPENSSL_free(data);
            return 1;
        }
    }

    c = ngx_ssl_get_connection(ssl);

    ngx_log_error(NGX_LOG_ERR, c->log, 0, "endpoint proved the SPIFFE ID \"%V\", not the expected \"%V\"", &found,
                  expected);

    OPENSSL_free(data);
    X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);

    return 0;
}


ngx_int_t
ngx_mesh_identity_call(ngx_connection_t *c, const ngx_str_t *expected, ngx_uint_t tcp)
{
    SSL  *ssl = c->ssl->connection;

    if (ngx_mesh_expected_index == -1) {
        ngx_mesh_expected_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
        if (ngx_mesh_expected_index == -1) {
            return NGX_ERROR;
        }
    }

    if (expected->len == 0 || ngx_mesh_identity_use(ssl) != NGX_OK
        || SSL_set_ex_data(ssl, ngx_mesh_expected_index, (void *) expected) != 1)
    {
        ngx_log_error(NGX_LOG_ERR, c->log, 0, "no identity to call an endpoint with");
        return NGX_ERROR;
    }

    SSL_set_verify(ssl, SSL_VERIFY_PEER, ngx_mesh_client_verify);

    /* an endpoint that asked for it later would be judged when the request that knows what to expect is over */
    SSL_set_options(ssl, SSL_OP_NO_RENEGOTIATION);

    if (tcp && SSL_set_alpn_protos(ssl, (const u_char *) NGX_MESH_ALPN_TCP, sizeof(NGX_MESH_ALPN_TCP) - 1) != 0) {
        return NGX_ERROR;
    }

    return NGX_OK;
}
