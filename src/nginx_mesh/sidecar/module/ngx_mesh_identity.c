/*
 * The pod's X.509-SVID and the trust bundles are objects of this worker, never files, and are parsed once when they
 * change. Connections take references to them, so that a rotation does not disturb a handshake that is under way.
 */

#include "ngx_mesh_identity.h"

#include "ngx_mesh_authorization.h"
#include "ngx_mesh_lua.h"
#include "ngx_mesh_strings.h"
#include "ngx_mesh_svid.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

typedef struct {
    X509               *leaf;
    STACK_OF(X509)     *chain;          /* intermediates */
    EVP_PKEY           *key;
    ngx_mesh_bundle_t  *bundles;        /* the first is our own trust domain's, the others those it federates with */
    size_t              nbundles;
    u_char              digest[SHA256_DIGEST_LENGTH];       /* of all bundles */
} ngx_mesh_identity_t;

static ngx_mesh_identity_t  ngx_mesh_identity;
static uint64_t             ngx_mesh_generation;


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


static const char *
ngx_mesh_identity_read_chain(ngx_mesh_identity_t *id, BIO *bio)
{
    X509        *cert;
    const char  *err = NULL;

    id->leaf = ngx_mesh_svid_read(bio, &err);
    if (id->leaf == NULL) {
        return err ? err : "no certificate in svid";
    }

    id->chain = sk_X509_new_null();
    if (id->chain == NULL) {
        return "no memory";
    }

    while ((cert = ngx_mesh_svid_read(bio, &err)) != NULL) {
        if (sk_X509_push(id->chain, cert) == 0) {
            X509_free(cert);
            return "no memory";
        }
    }

    return err;
}


/* NULL, or the error. "" as the passphrase keeps OpenSSL from asking for one. */
static const char *
ngx_mesh_identity_read_key(ngx_mesh_identity_t *id, BIO *bio)
{
    id->key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *) "");
    if (id->key == NULL) {
        return "malformed private key";
    }

    if (X509_check_private_key(id->leaf, id->key) != 1) {
        return "private key does not belong to the svid";
    }

    return NULL;
}


/* Reads the bundle of the trust domain that the SVID is of. NULL, or the error. */
static const char *
ngx_mesh_identity_read_own_bundle(ngx_mesh_identity_t *identity, const ngx_str_t *pem)
{
    char               *id;
    ngx_mesh_bundle_t  *own = &identity->bundles[0];

    id = ngx_mesh_svid_id(identity->leaf);
    if (id == NULL) {
        return "the svid carries no SPIFFE ID of a workload";
    }

    own->prefix = (u_char *) id;
    own->prefix_len = strchr(id + NGX_MESH_SPIFFE_SCHEME_LEN, '/') + 1 - id;
    identity->nbundles = 1;

    return ngx_mesh_bundle_read(own, pem);
}


/*
 * Reads the bundle of a trust domain that ours federates with. Others are responsible for it: when it cannot be used,
 * nobody of that trust domain is believed, and the rest of the identity comes into force. NULL, or an error of ours.
 */
static const char *
ngx_mesh_identity_read_federated(ngx_mesh_identity_t *identity, const ngx_str_t *trust_domain, const ngx_str_t *pem)
{
    u_char             *p;
    const char         *err;
    ngx_mesh_bundle_t  *bundle = &identity->bundles[identity->nbundles];

    err = ngx_mesh_bundle_read(bundle, pem);
    if (err) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "nobody of the trust domain \"%V\" is believed: %s", trust_domain,
                      err);
        return NULL;
    }

    identity->nbundles++;

    bundle->prefix_len = NGX_MESH_SPIFFE_SCHEME_LEN + trust_domain->len + 1;
    bundle->prefix = OPENSSL_malloc(bundle->prefix_len);
    if (bundle->prefix == NULL) {
        return "no memory";
    }

    p = ngx_cpymem(bundle->prefix, NGX_MESH_SPIFFE_SCHEME, NGX_MESH_SPIFFE_SCHEME_LEN);
    p = ngx_cpymem(p, trust_domain->data, trust_domain->len);
    *p = '/';

    if (bundle->prefix_len == identity->bundles[0].prefix_len
        && ngx_memcmp(bundle->prefix, identity->bundles[0].prefix, bundle->prefix_len) == 0)
    {
        return "the pod's own trust domain is among those that it federates with";
    }

    return NULL;
}


/* NULL, or the error. `id` is to be cleared in either case. */
static const char *
ngx_mesh_identity_read(ngx_mesh_identity_t *id, const ngx_str_t *svid, const ngx_str_t *key, const ngx_str_t *bundle,
    const ngx_mesh_ffi_str_t *federated, size_t nfederated)
{
    BIO         *svid_bio, *key_bio;
    size_t       i;
    ngx_str_t    trust_domain, pem;
    const char  *err;

    svid_bio = BIO_new_mem_buf(svid->data, svid->len);
    key_bio = BIO_new_mem_buf(key->data, key->len);
    id->bundles = OPENSSL_zalloc((1 + nfederated) * sizeof(ngx_mesh_bundle_t));

    err = svid_bio && key_bio && id->bundles ? NULL : "no memory";

    if (err == NULL) {
        err = ngx_mesh_identity_read_chain(id, svid_bio);
    }

    if (err == NULL) {
        err = ngx_mesh_identity_read_key(id, key_bio);
    }

    if (err == NULL) {
        err = ngx_mesh_identity_read_own_bundle(id, bundle);
    }

    for (i = 0; i < nfederated && err == NULL; i++) {
        trust_domain = ngx_mesh_str(federated[2 * i].data, federated[2 * i].len);
        pem = ngx_mesh_str(federated[2 * i + 1].data, federated[2 * i + 1].len);

        err = ngx_mesh_identity_read_federated(id, &trust_domain, &pem);
    }

    if (err == NULL && ngx_mesh_bundles_digest(id->bundles, id->nbundles, id->digest) != NGX_OK) {
        err = "no memory";
    }

    BIO_free(svid_bio);
    BIO_free(key_bio);
    ERR_clear_error();

    return err;
}


const char *
ngx_mesh_ffi_identity(const ngx_mesh_ffi_str_t *svid, const ngx_mesh_ffi_str_t *key, const ngx_mesh_ffi_str_t *bundle,
    const ngx_mesh_ffi_str_t *federated, size_t nfederated)
{
    ngx_str_t             svid_str = ngx_mesh_str(svid->data, svid->len);
    ngx_str_t             key_str = ngx_mesh_str(key->data, key->len);
    ngx_str_t             bundle_str = ngx_mesh_str(bundle->data, bundle->len);
    const char           *err;
    ngx_mesh_identity_t   id;

    ngx_memzero(&id, sizeof(ngx_mesh_identity_t));

    err = ngx_mesh_identity_read(&id, &svid_str, &key_str, &bundle_str, federated, nfederated);

    if (err) {
        ngx_mesh_identity_clear(&id);
        return err;
    }

    if (ngx_memcmp(id.digest, ngx_mesh_identity.digest, SHA256_DIGEST_LENGTH) != 0) {
        ngx_mesh_generation++;
        ngx_mesh_authorization_changed();
    }

    ngx_mesh_identity_clear(&ngx_mesh_identity);
    ngx_mesh_identity = id;

    return NULL;
}


void
ngx_mesh_ffi_identity_clear(void)
{
    ngx_mesh_identity_clear(&ngx_mesh_identity);
    ngx_mesh_generation++;
    ngx_mesh_authorization_changed();
}


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


ngx_int_t
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


ngx_mesh_bundle_t *
ngx_mesh_identity_bundle(const u_char *id, size_t len)
{
    return ngx_mesh_bundles_find(ngx_mesh_identity.bundles, ngx_mesh_identity.nbundles, id, len);
}
