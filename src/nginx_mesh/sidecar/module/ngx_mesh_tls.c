/*
 * Reading TLS without asking the kernel twice. OpenSSL reads a record, and nginx reads on until there is nothing: that
 * costs each request a system call that only says EAGAIN. But a read that gave less than it had room for has emptied the
 * socket, and whatever comes after it is an event. nginx itself goes by this when it reads plaintext (ngx_unix_recv).
 *
 * What is known is kept in `available`, which every event sets to -1. The value is one of our own: what ngx_ssl_recv
 * counts down there are bytes that left OpenSSL, so that its 0 may come while the socket still has some.
 */

#include "ngx_mesh.h"

#define NGX_MESH_TLS_EMPTY  -2


static long
ngx_mesh_tls_read_step(BIO *bio, int step, const char *data, size_t len, int argi, long argl, int ret, size_t *done)
{
    ngx_event_t  *rev = ((ngx_connection_t *) BIO_get_callback_arg(bio))->read;

    (void) data;
    (void) argi;
    (void) argl;

    switch (step) {

    case BIO_CB_READ:

        /* the event that told of the end was the last: that has to be read, after the data before it */

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

    /* without it the end of the stream is no event of its own */
    if (!ngx_use_epoll_rdhup) {
        return;
    }

    bio = SSL_get_rbio(c->ssl->connection);

    BIO_set_callback_arg(bio, (char *) c);
    BIO_set_callback_ex(bio, ngx_mesh_tls_read_step);
}
