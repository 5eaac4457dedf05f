/*
 * Who this pod is and whom it believes: its X.509-SVID and the trust bundles, applied to each handshake.
 *
 * They are objects of this worker, parsed once when they change, never files. Connections take references, so that a
 * rotation disturbs none that is under way.
 *
 * The trust domain of the peer's SPIFFE ID chooses the bundle that it is verified by, so that no trust domain's
 * authorities can vouch for IDs of another.
 */

#include "ngx_mesh.h"

#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#define NGX_MESH_ALPN_TCP     "\x0e" MESH_ALPN_TCP

#define NGX_MESH_SCHEME       "spiffe://"
#define NGX_MESH_SCHEME_LEN   ((int) sizeof(NGX_MESH_SCHEME) - 1)

typedef struct {
    u_char          *prefix;            /* "spiffe://<trust domain>/" */
    size_t           prefix_len;
    STACK_OF(X509)  *roots;
    X509_STORE      *store;             /* of the roots */
} ngx_mesh_bundle_t;

typedef struct {
    X509               *leaf;
    STACK_OF(X509)     *chain;          /* intermediates */
    EVP_PKEY           *key;
    ngx_mesh_bundle_t  *bundles;        /* the first is of our own trust domain, then those it federates with */
    size_t              nbundles;
    u_char              digest[SHA256_DIGEST_LENGTH];       /* of all bundles */
} ngx_mesh_identity_t;

static ngx_mesh_identity_t  ngx_mesh_identity;
static uint64_t             ngx_mesh_generation;
static int                  ngx_mesh_expected_index = -1;
static int                  ngx_mesh_proved_index = -1;


static void
ngx_mesh_bundle_clear(ngx_mesh_bundle_t *bundle)
{
    OPENSSL_free(bundle->prefix);
    sk_X509_pop_free(bundle->roots, X509_free);
    X509_STORE_free(bundle->store);

    ngx_memzero(bundle, sizeof(ngx_mesh_bundle_t));
}


static void
ngx_mesh_identity_clear(ngx_mesh_identity_t *id)
{
    X509_free(id->leaf);
    sk_X509_pop_free(id->chain, X509_free);
    EVP_PKEY_free(id->key);

    while (id->nbundles) {
        ngx_mesh_bundle_clear(&id->bundles[--id->nbundles]);
    }

    OPENSSL_free(id->bundles);

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


/* NULL, or what is wrong with the PEM of a trust domain's authorities; then `bundle` is empty. */
static const char *
ngx_mesh_read_bundle(ngx_mesh_bundle_t *bundle, const u_char *pem, size_t len)
{
    BIO         *bio;
    X509        *cert;
    const char  *err = NULL;

    bio = BIO_new_mem_buf(pem, len);
    bundle->roots = sk_X509_new_null();
    bundle->store = X509_STORE_new();

    /* whoever is in a bundle is trusted, also where somebody above signed it */

    if (bio == NULL || bundle->roots == NULL || bundle->store == NULL
        || X509_STORE_set_flags(bundle->store, X509_V_FLAG_PARTIAL_CHAIN) != 1)
    {
        err = "no memory";
    }

    while (err == NULL && (cert = ngx_mesh_read_cert(bio, &err)) != NULL) {
        if (sk_X509_push(bundle->roots, cert) == 0) {
            X509_free(cert);
            err = "no memory";

        } else if (X509_STORE_add_cert(bundle->store, cert) != 1) {
            err = "unusable certificate in bundle";
        }
    }

    BIO_free(bio);
    ERR_clear_error();

    if (err == NULL && sk_X509_num(bundle->roots) == 0) {
        err = "no certificate in bundle";
    }

    if (err) {
        ngx_mesh_bundle_clear(bundle);
    }

    return err;
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
 * A workload's SPIFFE ID behind its scheme (SPIFFE-ID, 2). Other trust domains sign what they like, and IDs get into
 * headers and logs.
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


/* The SPIFFE ID of an X.509-SVID: its only URI SAN (X509-SVID, 2), owned by the caller (OPENSSL_free); or NULL. */
static char *
ngx_mesh_spiffe_id(X509 *cert)
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

    if (uris == 1 && uri->length > NGX_MESH_SCHEME_LEN && uri->length <= 2048
        && ngx_memcmp(uri->data, NGX_MESH_SCHEME, NGX_MESH_SCHEME_LEN) == 0
        && ngx_mesh_is_workload(uri->data + NGX_MESH_SCHEME_LEN, uri->length - NGX_MESH_SCHEME_LEN))
    {
        id = OPENSSL_strndup((char *) uri->data, uri->length);
    }

    GENERAL_NAMES_free(names);

    return id;
}


/* The bundle of the trust domain that a workload's SPIFFE ID is of; NULL when there is none. */
static ngx_mesh_bundle_t *
ngx_mesh_bundle_find(const ngx_mesh_identity_t *identity, const u_char *id, size_t len)
{
    size_t              i;
    ngx_mesh_bundle_t  *bundle;

    for (i = 0; i < identity->nbundles; i++) {
        bundle = &identity->bundles[i];

        if (len > bundle->prefix_len && ngx_memcmp(id, bundle->prefix, bundle->prefix_len) == 0) {
            return bundle;
        }
    }

    return NULL;
}


/* NULL, or what is wrong. The bundle of the trust domain whose workload the SVID makes us. */
static const char *
ngx_mesh_read_own_bundle(ngx_mesh_identity_t *identity, const ngx_str_t *pem)
{
    char               *id;
    ngx_mesh_bundle_t  *own = &identity->bundles[0];

    id = ngx_mesh_spiffe_id(identity->leaf);
    if (id == NULL) {
        return "the svid carries no SPIFFE ID of a workload";
    }

    own->prefix = (u_char *) id;
    own->prefix_len = strchr(id + NGX_MESH_SCHEME_LEN, '/') + 1 - id;
    identity->nbundles = 1;

    return ngx_mesh_read_bundle(own, pem->data, pem->len);
}


/*
 * A trust domain that we federate with. Its bundle is somebody else's: one that cannot be used makes us believe nobody of
 * that trust domain, and leaves our own identity alone.
 */
static const char *
ngx_mesh_read_federated(ngx_mesh_identity_t *identity, const ngx_str_t *trust_domain, const ngx_str_t *pem)
{
    u_char             *p;
    const char         *err;
    ngx_mesh_bundle_t  *bundle = &identity->bundles[identity->nbundles];

    err = ngx_mesh_read_bundle(bundle, pem->data, pem->len);
    if (err) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "nobody of the trust domain \"%V\" is believed: %s", trust_domain,
                      err);
        return NULL;
    }

    identity->nbundles++;

    bundle->prefix_len = NGX_MESH_SCHEME_LEN + trust_domain->len + 1;
    bundle->prefix = OPENSSL_malloc(bundle->prefix_len);
    if (bundle->prefix == NULL) {
        return "no memory";
    }

    p = ngx_cpymem(bundle->prefix, NGX_MESH_SCHEME, NGX_MESH_SCHEME_LEN);
    p = ngx_cpymem(p, trust_domain->data, trust_domain->len);
    *p = '/';

    if (bundle->prefix_len == identity->bundles[0].prefix_len
        && ngx_memcmp(bundle->prefix, identity->bundles[0].prefix, bundle->prefix_len) == 0)
    {
        return "the pod's own trust domain is among those that it federates with";
    }

    return NULL;
}


/* Of what is believed: a change of any bundle makes another. */
static ngx_int_t
ngx_mesh_digest(ngx_mesh_identity_t *identity)
{
    int                 i;
    size_t              n;
    ngx_int_t           rc = NGX_ERROR;
    u_char              cert[SHA256_DIGEST_LENGTH];
    EVP_MD_CTX         *md;
    ngx_mesh_bundle_t  *bundle;

    md = EVP_MD_CTX_new();
    if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
        goto done;
    }

    for (n = 0; n < identity->nbundles; n++) {
        bundle = &identity->bundles[n];

        if (EVP_DigestUpdate(md, bundle->prefix, bundle->prefix_len) != 1) {
            goto done;
        }

        for (i = 0; i < sk_X509_num(bundle->roots); i++) {
            if (X509_digest(sk_X509_value(bundle->roots, i), EVP_sha256(), cert, NULL) != 1
                || EVP_DigestUpdate(md, cert, sizeof(cert)) != 1)
            {
                goto done;
            }
        }
    }

    if (EVP_DigestFinal_ex(md, identity->digest, NULL) == 1) {
        rc = NGX_OK;
    }

done:

    EVP_MD_CTX_free(md);

    return rc;
}


/*
 * FFI. NULL when the new identity is in force; else what is wrong, and the old one stays. `federated` are pairs of a
 * trust domain and its bundle, always in the same order, as that counts for whether anything changed.
 */
const char *
ngx_mesh_ffi_identity(const ngx_str_t *svid, const ngx_str_t *key, const ngx_str_t *bundle, const ngx_str_t *federated,
    size_t nfederated)
{
    BIO                  *svid_bio, *key_bio;
    size_t                i;
    const char           *err;
    ngx_mesh_identity_t   id;

    ngx_memzero(&id, sizeof(ngx_mesh_identity_t));

    svid_bio = BIO_new_mem_buf(svid->data, svid->len);
    key_bio = BIO_new_mem_buf(key->data, key->len);
    id.bundles = OPENSSL_zalloc((1 + nfederated) * sizeof(ngx_mesh_bundle_t));

    if (svid_bio == NULL || key_bio == NULL || id.bundles == NULL) {
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

    err = ngx_mesh_read_own_bundle(&id, bundle);

    for (i = 0; i < nfederated && err == NULL; i++) {
        err = ngx_mesh_read_federated(&id, &federated[2 * i], &federated[2 * i + 1]);
    }

    if (err == NULL && ngx_mesh_digest(&id) != NGX_OK) {
        err = "no memory";
    }

done:

    BIO_free(svid_bio);
    BIO_free(key_bio);
    ERR_clear_error();

    if (err == NULL) {

        if (ngx_memcmp(id.digest, ngx_mesh_identity.digest, SHA256_DIGEST_LENGTH) != 0) {
            ngx_mesh_generation++;
            ngx_mesh_rights_changed();
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
    ngx_mesh_rights_changed();
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


/* Puts the pod's SVID on one side of a handshake. */
static ngx_int_t
ngx_mesh_identity_use(SSL *ssl)
{
    if (ngx_mesh_identity.leaf == NULL) {
        return NGX_DECLINED;
    }

    if (SSL_use_certificate(ssl, ngx_mesh_identity.leaf) != 1
        || SSL_use_PrivateKey(ssl, ngx_mesh_identity.key) != 1
        || SSL_set1_chain(ssl, ngx_mesh_identity.chain) != 1)
    {
        return NGX_ERROR;
    }

    SSL_set_verify_depth(ssl, 10);

    return NGX_OK;
}


/* Instead of nginx's own, which takes everything. */
static int
ngx_mesh_server_verify_step(int ok, X509_STORE_CTX *ctx)
{
    (void) ctx;

    return ok;
}


/*
 * Verifies a client by the roots of the trust domain that it claims to be of, and remembers what it proved. The
 * handshake goes on with a bad certificate: HTTP answers it with 400, TCP closes.
 */
static int
ngx_mesh_server_verify(X509_STORE_CTX *ctx, void *arg)
{
    SSL                *ssl;
    char               *id;
    ngx_connection_t   *c;
    ngx_mesh_bundle_t  *bundle;

    (void) arg;

    ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    id = ngx_mesh_spiffe_id(X509_STORE_CTX_get0_cert(ctx));
    bundle = id ? ngx_mesh_bundle_find(&ngx_mesh_identity, (u_char *) id, strlen(id)) : NULL;

    if (bundle == NULL) {
        if (id) {
            c = ngx_ssl_get_connection(ssl);
            ngx_log_error(NGX_LOG_INFO, c->log, 0, "no trust bundle for the trust domain of the caller \"%s\"", id);
        }

        /* an error after which nginx leaves the answer to us */
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
        OPENSSL_free(id);
        return 1;
    }

    X509_STORE_CTX_set0_trusted_stack(ctx, bundle->roots);
    X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_PARTIAL_CHAIN);

    if (X509_verify_cert(ctx) != 1 || X509_STORE_CTX_get_error(ctx) != X509_V_OK
        || SSL_get_ex_data(ssl, ngx_mesh_proved_index)
        || SSL_set_ex_data(ssl, ngx_mesh_proved_index, id) != 1)
    {
        OPENSSL_free(id);
    }

    return 1;
}


static int
ngx_mesh_server_cert(SSL *ssl, void *arg)
{
    (void) arg;

    if (ngx_mesh_identity_use(ssl) != NGX_OK) {
        return 0;
    }

    SSL_set_verify(ssl, SSL_VERIFY_PEER, ngx_mesh_server_verify_step);
    ngx_mesh_tls_read_once(ngx_ssl_get_connection(ssl));

    return 1;
}


static void
ngx_mesh_proved_free(void *parent, void *id, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    (void) parent;
    (void) ad;
    (void) index;
    (void) argl;
    (void) argp;

    OPENSSL_free(id);
}


static ngx_uint_t
ngx_mesh_server_proved(const SSL *ssl)
{
    return SSL_get_ex_data(ssl, ngx_mesh_proved_index) != NULL;
}


ngx_int_t
ngx_mesh_identity_serve(SSL_CTX *ctx, ngx_uint_t count)
{
    if (ngx_mesh_proved_index == -1) {
        ngx_mesh_proved_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, ngx_mesh_proved_free);
        if (ngx_mesh_proved_index == -1) {
            return NGX_ERROR;
        }
    }

    SSL_CTX_set_cert_cb(ctx, ngx_mesh_server_cert, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, ngx_mesh_server_verify, NULL);

    return count ? ngx_mesh_tls_count_served(ctx, ngx_mesh_server_proved) : NGX_OK;
}


ngx_int_t
ngx_mesh_identity_peer(ngx_connection_t *c, ngx_str_t *id)
{
    u_char  *proved;

    proved = c->ssl ? SSL_get_ex_data(c->ssl->connection, ngx_mesh_proved_index) : NULL;
    if (proved == NULL) {
        return NGX_DECLINED;
    }

    id->len = ngx_strlen(proved);
    id->data = ngx_pnalloc(c->pool, id->len);
    if (id->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(id->data, proved, id->len);

    return NGX_OK;
}


ngx_uint_t
ngx_mesh_identity_believes(const ngx_str_t *id)
{
    return ngx_mesh_bundle_find(&ngx_mesh_identity, id->data, id->len) != NULL;
}


static int
ngx_mesh_client_verify(int ok, X509_STORE_CTX *ctx)
{
    SSL               *ssl;
    char              *id;
    ngx_str_t          found = ngx_string("none");
    const ngx_str_t   *expected;
    ngx_connection_t  *c;

    if (!ok || X509_STORE_CTX_get_error_depth(ctx) != 0) {
        return ok;
    }

    ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    expected = SSL_get_ex_data(ssl, ngx_mesh_expected_index);

    id = ngx_mesh_spiffe_id(X509_STORE_CTX_get_current_cert(ctx));

    if (id) {
        found.data = (u_char *) id;
        found.len = strlen(id);

        if (expected && expected->len == found.len && ngx_memcmp(expected->data, id, found.len) == 0) {
            OPENSSL_free(id);
            return 1;
        }
    }

    c = ngx_ssl_get_connection(ssl);

    ngx_log_error(NGX_LOG_ERR, c->log, 0, "endpoint proved the SPIFFE ID \"%V\", not the expected \"%V\"", &found,
                  expected);

    OPENSSL_free(id);
    X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);

    return 0;
}


/* The roots that an endpoint with this SPIFFE ID is verified by. */
static ngx_int_t
ngx_mesh_client_trust(ngx_connection_t *c, const ngx_str_t *expected)
{
    SSL                *ssl = c->ssl->connection;
    ngx_mesh_bundle_t  *bundle;

    bundle = ngx_mesh_bundle_find(&ngx_mesh_identity, expected->data, expected->len);

    if (bundle) {
        return SSL_set1_verify_cert_store(ssl, bundle->store) == 1 ? NGX_OK : NGX_ERROR;
    }

    ngx_log_error(NGX_LOG_ERR, c->log, 0, "no trust bundle for the trust domain of \"%V\": the endpoint is refused",
                  expected);

    /* the handshake fails as every one with an endpoint that proves nothing */
    return SSL_set0_verify_cert_store(ssl, X509_STORE_new()) == 1 ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_mesh_identity_call(ngx_connection_t *c, const ngx_str_t *expected, ngx_uint_t tcp)
{
    SSL  *ssl = c->ssl->connection;

    if (ngx_mesh_tls_count_call(ssl) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_mesh_expected_index == -1) {
        ngx_mesh_expected_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
        if (ngx_mesh_expected_index == -1) {
            return NGX_ERROR;
        }
    }

    if (expected->len == 0 || ngx_mesh_identity_use(ssl) != NGX_OK
        || ngx_mesh_client_trust(c, expected) != NGX_OK
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
