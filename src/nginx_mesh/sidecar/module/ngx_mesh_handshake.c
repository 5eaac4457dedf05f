/*
 * The trust domain of the peer's SPIFFE ID chooses the bundle that the peer is verified by, so that the authorities of
 * one trust domain cannot vouch for SPIFFE IDs of another.
 */

#include "ngx_mesh_handshake.h"

#include "ngx_mesh_identity.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_svid.h"
#include "ngx_mesh_tls.h"
#include "protocol_detection.h"

#include <openssl/ssl.h>

/* The list of ALPN protocols as OpenSSL takes it: each with its length before it. */
static const u_char  ngx_mesh_alpn_tcp[] = "\x0e" PROTOCOL_ALPN_TCP;

static int           ngx_mesh_expected_index = -1;
static int           ngx_mesh_proved_index = -1;


/* Replaces nginx's own callback, which accepts every certificate. */
static int
ngx_mesh_server_verify_step(int ok, X509_STORE_CTX *ctx)
{
    (void) ctx;

    return ok;
}


/*
 * Verifies a client by the authorities of the trust domain that it claims to be of, and remembers what it proved. The
 * handshake goes on after a bad certificate: HTTP answers it with 400, TCP closes the connection.
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
    c = ngx_ssl_get_connection(ssl);
    id = ngx_mesh_svid_id(X509_STORE_CTX_get0_cert(ctx));
    bundle = id ? ngx_mesh_identity_bundle((u_char *) id, strlen(id)) : NULL;

    if (bundle == NULL) {
        if (id) {
            ngx_log_error(NGX_LOG_INFO, c->log, 0, "no trust bundle for the trust domain of the caller \"%s\"", id);

        } else {
            ngx_mesh_log_decision(c->log, "the caller's certificate is not the SVID of a workload");
        }

        /* This is an error after which nginx leaves the answer to us. */
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
        OPENSSL_free(id);
        return 1;
    }

    X509_STORE_CTX_set0_trusted_stack(ctx, bundle->roots);
    X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_PARTIAL_CHAIN);

    if (X509_verify_cert(ctx) != 1 || X509_STORE_CTX_get_error(ctx) != X509_V_OK) {
        ngx_mesh_log_decision(c->log, "the caller's certificate for the SPIFFE ID \"%V\" is not valid: %s",
                              ngx_mesh_log_text((u_char *) id, strlen(id)),
                              X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
        OPENSSL_free(id);
        return 1;
    }

    ngx_mesh_log_decision(c->log, "the caller proved the SPIFFE ID \"%V\"",
                          ngx_mesh_log_text((u_char *) id, strlen(id)));

    if (SSL_get_ex_data(ssl, ngx_mesh_proved_index) || SSL_set_ex_data(ssl, ngx_mesh_proved_index, id) != 1) {
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
ngx_mesh_handshake_serve(SSL_CTX *ctx, ngx_uint_t count)
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
ngx_mesh_handshake_peer(ngx_connection_t *c, ngx_str_t *id)
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
    c = ngx_ssl_get_connection(ssl);
    expected = SSL_get_ex_data(ssl, ngx_mesh_expected_index);

    id = ngx_mesh_svid_id(X509_STORE_CTX_get_current_cert(ctx));

    if (id) {
        found.data = (u_char *) id;
        found.len = strlen(id);

        if (expected && expected->len == found.len && ngx_memcmp(expected->data, id, found.len) == 0) {
            ngx_mesh_log_decision(c->log, "the endpoint proved the expected SPIFFE ID \"%V\"",
                                  ngx_mesh_log_text(found.data, found.len));
            OPENSSL_free(id);
            return 1;
        }
    }

    ngx_log_error(NGX_LOG_ERR, c->log, 0, "endpoint proved the SPIFFE ID \"%V\", not the expected \"%V\"", &found,
                  expected);

    OPENSSL_free(id);
    X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);

    return 0;
}


/* Sets the authorities that an endpoint with this SPIFFE ID is verified by. */
static ngx_int_t
ngx_mesh_client_trust(ngx_connection_t *c, const ngx_str_t *expected)
{
    SSL                *ssl = c->ssl->connection;
    ngx_mesh_bundle_t  *bundle;

    bundle = ngx_mesh_identity_bundle(expected->data, expected->len);

    if (bundle) {
        return SSL_set1_verify_cert_store(ssl, bundle->store) == 1 ? NGX_OK : NGX_ERROR;
    }

    ngx_log_error(NGX_LOG_ERR, c->log, 0, "no trust bundle for the trust domain of \"%V\": the endpoint is refused",
                  expected);

    /* Without authorities the handshake fails, as with every endpoint that proves nothing. */
    return SSL_set0_verify_cert_store(ssl, X509_STORE_new()) == 1 ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_mesh_handshake_connect(ngx_connection_t *c, const ngx_str_t *expected, ngx_uint_t tcp)
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

    /* In a renegotiation the endpoint would be verified when the request, which owns `expected`, may be over. */
    SSL_set_options(ssl, SSL_OP_NO_RENEGOTIATION);

    if (tcp && SSL_set_alpn_protos(ssl, ngx_mesh_alpn_tcp, sizeof(ngx_mesh_alpn_tcp) - 1) != 0) {
        return NGX_ERROR;
    }

    return NGX_OK;
}
