/*
 * Counting handshakes: each that begins either succeeds, or counts as failed when its connection is freed.
 *
 * And reading TLS without asking the kernel twice. OpenSSL reads a record, and nginx reads on until there is nothing,
 * which costs each request a system call that only says EAGAIN. But a read that got less than it had room for has
 * emptied the socket, and whatever comes after it is announced by an event. nginx itself relies on this when it reads
 * plaintext (ngx_unix_recv).
 *
 * That the socket is empty is kept in the read event's `available`, which every event sets to -1. The value is one of
 * our own: ngx_ssl_recv counts down there what left OpenSSL, so that its 0 may come while the socket still has bytes.
 */

#include "ngx_mesh_tls.h"

#include "ngx_mesh_totals.h"

#define NGX_MESH_TLS_EMPTY  -2

/* What a connection remembers of its handshake; NULL: none began. */
#define NGX_MESH_TLS_SERVING  ((void *) 1)
#define NGX_MESH_TLS_CALLING  ((void *) 2)
#define NGX_MESH_TLS_OVER     ((void *) 3)

typedef void (*ngx_mesh_tls_info_pt)(const SSL *ssl, int where, int ret);

static int                   ngx_mesh_tls_index = -1;
static ngx_mesh_tls_info_pt  ngx_mesh_tls_next_info;            /* nginx's own callback, for every context */
static ngx_uint_t          (*ngx_mesh_tls_proved)(const SSL *ssl);


/* OpenSSL calls this when it frees the connection. */
static void
ngx_mesh_tls_end(void *parent, void *state, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    (void) parent;
    (void) ad;
    (void) index;
    (void) argl;
    (void) argp;

    if (state == NGX_MESH_TLS_SERVING) {
        ngx_mesh_count_total(NGX_MESH_TOTAL_SERVER_FAILED);

    } else if (state == NGX_MESH_TLS_CALLING) {
        ngx_mesh_count_total(NGX_MESH_TOTAL_CLIENT_FAILED);
    }
}


static ngx_int_t
ngx_mesh_tls_init(void)
{
    if (ngx_mesh_tls_index == -1) {
        ngx_mesh_tls_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, ngx_mesh_tls_end);
    }

    return ngx_mesh_tls_index == -1 ? NGX_ERROR : NGX_OK;
}


static void
ngx_mesh_tls_served(const SSL *ssl, int where, int ret)
{
    if (ngx_mesh_tls_next_info) {
        ngx_mesh_tls_next_info(ssl, where, ret);
    }

    if (where == SSL_CB_HANDSHAKE_START && SSL_get_ex_data(ssl, ngx_mesh_tls_index) == NULL) {
        (void) SSL_set_ex_data((SSL *) ssl, ngx_mesh_tls_index, NGX_MESH_TLS_SERVING);
    }

    if (where == SSL_CB_HANDSHAKE_DONE && SSL_get_ex_data(ssl, ngx_mesh_tls_index) == NGX_MESH_TLS_SERVING
        && ngx_mesh_tls_proved(ssl))
    {
        (void) SSL_set_ex_data((SSL *) ssl, ngx_mesh_tls_index, NGX_MESH_TLS_OVER);
        ngx_mesh_count_total(NGX_MESH_TOTAL_SERVER_OK);
    }
}


static void
ngx_mesh_tls_called(const SSL *ssl, int where, int ret)
{
    ngx_mesh_tls_info_pt  next;

    next = SSL_CTX_get_info_callback(SSL_get_SSL_CTX(ssl));

    if (next) {
        next(ssl, where, ret);
    }

    if (where == SSL_CB_HANDSHAKE_DONE && SSL_get_ex_data(ssl, ngx_mesh_tls_index) == NGX_MESH_TLS_CALLING) {
        (void) SSL_set_ex_data((SSL *) ssl, ngx_mesh_tls_index, NGX_MESH_TLS_OVER);
        ngx_mesh_count_total(NGX_MESH_TOTAL_CLIENT_OK);
    }
}


ngx_int_t
ngx_mesh_tls_count_served(SSL_CTX *ctx, ngx_uint_t (*proved)(const SSL *ssl))
{
    if (ngx_mesh_tls_init() != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_mesh_tls_proved = proved;
    ngx_mesh_tls_next_info = SSL_CTX_get_info_callback(ctx);
    SSL_CTX_set_info_callback(ctx, ngx_mesh_tls_served);

    return NGX_OK;
}


ngx_int_t
ngx_mesh_tls_count_call(SSL *ssl)
{
    if (ngx_mesh_tls_init() != NGX_OK || SSL_set_ex_data(ssl, ngx_mesh_tls_index, NGX_MESH_TLS_CALLING) != 1) {
        return NGX_ERROR;
    }

    SSL_set_info_callback(ssl, ngx_mesh_tls_called);

    return NGX_OK;
}


static long
ngx_mesh_tls_read_step(BIO *bio, int step, const char *data, size_t len, int argi, long argl, int ret, size_t *done)
{
    ngx_event_t  *rev = ((ngx_connection_t *) BIO_get_callback_arg(bio))->read;

    (void) data;
    (void) argi;
    (void) argl;

    switch (step) {

    case BIO_CB_READ:

        /* No event follows the one that announces the end of the stream: what is left must be read now. */

        if (rev->available == NGX_MESH_TLS_EMPTY && !rev->pending_eof) {
            BIO_clear_retry_flags(bio);
            BIO_set_retry_read(bio);
            return -1;
        }

        break;

    case BIO_CB_READ|BIO_CB_RETURN:

        if (ret > 0 && *done < len) {
            rev->available = NGX_MESH_TLS_EMPTY;
        }

        break;
    }

    return ret;
}


void
ngx_mesh_tls_read_once(ngx_connection_t *c)
{
    BIO  *bio;

    /* Without EPOLLRDHUP the end of the stream is not announced by an event of its own. */
    if (!ngx_use_epoll_rdhup) {
        return;
    }

    bio = SSL_get_rbio(c->ssl->connection);

    BIO_set_callback_arg(bio, (char *) c);
    BIO_set_callback_ex(bio, ngx_mesh_tls_read_step);
}
