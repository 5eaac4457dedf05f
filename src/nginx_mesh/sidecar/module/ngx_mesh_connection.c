#include "ngx_mesh_connection.h"

#include "ngx_mesh_handshake.h"
#include "ngx_mesh_identity.h"

#include <linux/netfilter_ipv4.h>

/* This is in linux/netfilter_ipv6/ip6_tables.h, which cannot be included together with netinet/in.h. */
#define NGX_MESH_IP6T_SO_ORIGINAL_DST  80

/*
 * The field (TLV) of a PROXY protocol preamble that says what the other connection proves: the SPIFFE ID of the caller,
 * or nothing when it is empty. Without the field that connection has no TLS.
 */
#define NGX_MESH_TLV_PEER              "0xE2"


/* Marks the entry among the cleanups of the connection's pool by which the facts are found again. */
static void
ngx_mesh_connection_mark(void *data)
{
    (void) data;
}


/*
 * A connection to explain.sock only asks what would become of another connection. Its preamble (PROXY protocol, version
 * 2; no other listener takes one) says which: from where and to where, and in NGX_MESH_TLV_PEER whether by TLS and with
 * which SPIFFE ID. -1: it does not say.
 */
static int
ngx_mesh_connection_asked(ngx_connection_t *c, ngx_mesh_connection_t *mc)
{
    ngx_addr_t        to, from;
    static ngx_str_t  peer = ngx_string(NGX_MESH_TLV_PEER);

    if (ngx_parse_addr(c->pool, &to, c->proxy_protocol->dst_addr.data, c->proxy_protocol->dst_addr.len) != NGX_OK
        || ngx_parse_addr(c->pool, &from, c->proxy_protocol->src_addr.data, c->proxy_protocol->src_addr.len) != NGX_OK)
    {
        return -1;
    }

    ngx_memcpy(&mc->original, to.sockaddr, to.socklen);
    ngx_inet_set_port((struct sockaddr *) &mc->original, c->proxy_protocol->dst_port);

    /* Rate limits look at the caller's address. */
    c->sockaddr = from.sockaddr;
    c->socklen = from.socklen;

    mc->peer_known = 1;
    mc->tls = (ngx_proxy_protocol_get_tlv(c, &peer, &mc->peer_id) == NGX_OK);

    return 0;
}


static int
ngx_mesh_connection_redirected(ngx_connection_t *c, ngx_mesh_connection_t *mc)
{
    socklen_t  len = sizeof(mc->original);

    if (c->sockaddr->sa_family == AF_INET6) {
        return getsockopt(c->fd, IPPROTO_IPV6, NGX_MESH_IP6T_SO_ORIGINAL_DST, &mc->original, &len);
    }

    return getsockopt(c->fd, IPPROTO_IP, SO_ORIGINAL_DST, &mc->original, &len);
}


static void
ngx_mesh_connection_original(ngx_connection_t *c, ngx_mesh_connection_t *mc)
{
    u_char  *p;
    int      rc;

    rc = c->proxy_protocol ? ngx_mesh_connection_asked(c, mc) : ngx_mesh_connection_redirected(c, mc);

    if (rc == -1) {
        ngx_log_error(NGX_LOG_INFO, c->log, ngx_socket_errno, "connection was not redirected");
        return;
    }

    p = ngx_pnalloc(c->pool, NGX_SOCKADDR_STRLEN);
    if (p == NULL) {
        return;
    }

    /* The kernel does not say how long the address is. */
    mc->socklen = mc->original.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    mc->port = ngx_inet_get_port((struct sockaddr *) &mc->original);
    mc->name.data = p;
    mc->name.len = ngx_sock_ntop((struct sockaddr *) &mc->original, mc->socklen, p, NGX_SOCKADDR_STRLEN, 1);
}


ngx_mesh_connection_t *
ngx_mesh_connection(ngx_connection_t *c)
{
    ngx_pool_cleanup_t     *cln;
    ngx_mesh_connection_t  *mc;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_mesh_connection_mark) {
            return cln->data;
        }
    }

    cln = ngx_pool_cleanup_add(c->pool, sizeof(ngx_mesh_connection_t));
    if (cln == NULL) {
        return NULL;
    }

    mc = cln->data;
    ngx_memzero(mc, sizeof(ngx_mesh_connection_t));
    cln->handler = ngx_mesh_connection_mark;

    ngx_mesh_connection_original(c, mc);

    return mc;
}


ngx_uint_t
ngx_mesh_connection_is_tls(ngx_connection_t *c)
{
    ngx_mesh_connection_t  *mc;

    if (c->proxy_protocol == NULL) {
        return c->ssl != NULL;
    }

    mc = ngx_mesh_connection(c);

    return mc && mc->tls;
}


ngx_int_t
ngx_mesh_connection_peer(ngx_connection_t *c, ngx_str_t *id)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(c);
    if (mc == NULL) {
        return NGX_ERROR;
    }

    if (!mc->peer_known) {
        mc->peer_known = 1;

        if (ngx_mesh_handshake_peer(c, &mc->peer_id) != NGX_OK) {
            ngx_str_null(&mc->peer_id);
        }
    }

    if (ngx_mesh_identity_bundle(mc->peer_id.data, mc->peer_id.len) == NULL) {
        ngx_str_null(id);
        return NGX_DECLINED;
    }

    *id = mc->peer_id;

    return NGX_OK;
}


ngx_uint_t
ngx_mesh_connection_is_local(ngx_mesh_connection_t *mc)
{
    struct sockaddr_in   *sin;
    struct sockaddr_in6  *sin6;

    if (mc->original.ss_family == AF_INET6) {
        sin6 = (struct sockaddr_in6 *) &mc->original;
        return IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr) || IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr);
    }

    sin = (struct sockaddr_in *) &mc->original;

    return (ntohl(sin->sin_addr.s_addr) >> 24) == 127;
}


ngx_int_t
ngx_mesh_connection_forward(ngx_connection_t *c, ngx_peer_connection_t *pc, in_port_t port)
{
    ngx_mesh_connection_t         *mc;
    static ngx_addr_t              local4, local6;
    static struct sockaddr_in      from4;
    static struct sockaddr_in6     from6;

    mc = ngx_mesh_connection(c);
    if (mc == NULL) {
        return NGX_ERROR;
    }

    if (mc->name.len == 0) {
        return NGX_BUSY;
    }

    if (local4.sockaddr == NULL) {
        from4.sin_family = AF_INET;
        from4.sin_addr.s_addr = htonl(0x7f000006);                              /* 127.0.0.6 */
        local4 = (ngx_addr_t) { (struct sockaddr *) &from4, sizeof(from4), ngx_string("127.0.0.6") };

        from6.sin6_family = AF_INET6;
        from6.sin6_addr.s6_addr[15] = 6;                                        /* ::6 */
        local6 = (ngx_addr_t) { (struct sockaddr *) &from6, sizeof(from6), ngx_string("::6") };
    }

    if (port && mc->port != port) {
        ngx_inet_set_port((struct sockaddr *) &mc->original, port);
    }

    pc->sockaddr = (struct sockaddr *) &mc->original;
    pc->socklen = mc->socklen;
    pc->name = &mc->name;
    pc->local = mc->original.ss_family == AF_INET6 ? &local6 : &local4;
    pc->cached = 0;
    pc->connection = NULL;

    return NGX_OK;
}
