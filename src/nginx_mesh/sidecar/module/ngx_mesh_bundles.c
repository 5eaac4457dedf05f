#include "ngx_mesh_bundles.h"

#include "ngx_mesh_svid.h"

#include <openssl/err.h>
#include <openssl/sha.h>


void
ngx_mesh_bundle_clear(ngx_mesh_bundle_t *bundle)
{
    OPENSSL_free(bundle->prefix);
    sk_X509_pop_free(bundle->roots, X509_free);
    X509_STORE_free(bundle->store);

    ngx_memzero(bundle, sizeof(ngx_mesh_bundle_t));
}


const char *
ngx_mesh_bundle_read(ngx_mesh_bundle_t *bundle, const ngx_str_t *pem)
{
    BIO         *bio;
    X509        *cert;
    const char  *err = NULL;

    bio = BIO_new_mem_buf(pem->data, pem->len);
    bundle->roots = sk_X509_new_null();
    bundle->store = X509_STORE_new();

    /* Every certificate of a bundle is a trust anchor, also one that another authority has signed. */

    if (bio == NULL || bundle->roots == NULL || bundle->store == NULL
        || X509_STORE_set_flags(bundle->store, X509_V_FLAG_PARTIAL_CHAIN) != 1)
    {
        err = "no memory";
    }

    while (err == NULL && (cert = ngx_mesh_svid_read(bio, &err)) != NULL) {
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


ngx_mesh_bundle_t *
ngx_mesh_bundles_find(ngx_mesh_bundle_t *bundles, size_t n, const u_char *id, size_t len)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (len > bundles[i].prefix_len && ngx_memcmp(id, bundles[i].prefix, bundles[i].prefix_len) == 0) {
            return &bundles[i];
        }
    }

    return NULL;
}


static ngx_int_t
ngx_mesh_bundle_digest(EVP_MD_CTX *md, const ngx_mesh_bundle_t *bundle)
{
    int     i;
    u_char  cert[SHA256_DIGEST_LENGTH];

    if (EVP_DigestUpdate(md, bundle->prefix, bundle->prefix_len) != 1) {
        return NGX_ERROR;
    }

    for (i = 0; i < sk_X509_num(bundle->roots); i++) {
        if (X509_digest(sk_X509_value(bundle->roots, i), EVP_sha256(), cert, NULL) != 1
            || EVP_DigestUpdate(md, cert, sizeof(cert)) != 1)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_mesh_bundles_digest(const ngx_mesh_bundle_t *bundles, size_t n, u_char *digest)
{
    size_t       i;
    ngx_int_t    rc;
    EVP_MD_CTX  *md;

    md = EVP_MD_CTX_new();
    rc = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 ? NGX_OK : NGX_ERROR;

    for (i = 0; i < n && rc == NGX_OK; i++) {
        rc = ngx_mesh_bundle_digest(md, &bundles[i]);
    }

    if (rc == NGX_OK && EVP_DigestFinal_ex(md, digest, NULL) != 1) {
        rc = NGX_ERROR;
    }

    EVP_MD_CTX_free(md);

    return rc;
}
