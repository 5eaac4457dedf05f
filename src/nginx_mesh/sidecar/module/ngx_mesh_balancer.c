#include "ngx_mesh_balancer.h"

#include "lb.h"
#include "ngx_mesh_clock.h"
#include "ngx_mesh_handshake.h"
#include "ngx_mesh_identity.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_strings.h"
#include "ngx_mesh_tls.h"


/* Requests are torn down in many ways. In all of them the endpoint's number of active requests goes down again. */
static void
ngx_mesh_attempts_cleanup(void *data)
{
    ngx_mesh_attempts_t  *a = data;

    (void) ngx_mesh_attempts_free(a, NULL, 0, 0);

    while (a->ntried) {
        ngx_mesh_endpoint_release((ngx_mesh_endpoint_t *) a->tried[--a->ntried]);
    }

    if (a->last) {
        ngx_mesh_endpoint_release(a->last);
    }

    ngx_mesh_cluster_release(a->cluster);
}


ngx_int_t
ngx_mesh_attempts_init(ngx_mesh_attempts_t *a, ngx_mesh_cluster_t *cluster, ngx_pool_t *pool)
{
    size_t               plain, tls;
    ngx_pool_cleanup_t  *cln;

    plain = cluster->pools[0].n;
    tls = cluster->pools[1].n;

    if (plain + tls == 0) {
        return NGX_DECLINED;
    }

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(a, sizeof(ngx_mesh_attempts_t));

    a->cluster = cluster;
    a->tls = plain == 0 || (tls && (size_t) ngx_random() % (plain + tls) < tls);

    cluster->refs++;

    cln->handler = ngx_mesh_attempts_cleanup;
    cln->data = a;

    return NGX_OK;
}


ngx_uint_t
ngx_mesh_attempts_tries(ngx_mesh_attempts_t *a)
{
    return ngx_min(a->cluster->pools[a->tls].n, NGX_MESH_TRIES_MAX);
}


/* Writes the address with what must be proved at it to `a->sockaddr`, and returns its length. */
static socklen_t
ngx_mesh_attempts_address(ngx_mesh_attempts_t *a, ngx_mesh_endpoint_t *e)
{
    u_char    *p;
    uint64_t   generation;

    p = ngx_cpymem(a->sockaddr.bytes, &e->sockaddr, e->socklen);

    if (e->tls) {
        generation = ngx_mesh_identity_generation();
        p = ngx_cpymem(p, e->id_digest, NGX_MESH_DIGEST_LEN);
        p = ngx_cpymem(p, &generation, sizeof(uint64_t));
    }

    return p - a->sockaddr.bytes;
}


/* Copies what the log says of an endpoint, because the endpoint may be gone when a line is written. */
static ngx_str_t *
ngx_mesh_attempts_name(ngx_mesh_attempts_t *a, ngx_mesh_endpoint_t *e, ngx_pool_t *pool)
{
    u_char     *p;
    ngx_str_t  *name;

    name = ngx_palloc(pool, sizeof(ngx_str_t) + e->name.len + e->spiffe_id.len);
    if (name == NULL) {
        return NULL;
    }

    p = ngx_mesh_str_copy(name, (u_char *) (name + 1), &e->name);
    (void) ngx_mesh_str_copy(&a->last_id, p, &e->spiffe_id);

    return name;
}


ngx_int_t
ngx_mesh_attempts_get(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_pool_t *pool)
{
    lb_tried              tried;
    ngx_str_t            *name;
    ngx_mesh_endpoint_t  *e;

    tried.items = a->tried;
    tried.n = a->ntried;

    a->started = ngx_mesh_now_us();

    if (a->ntried == NGX_MESH_TRIES_MAX) {
        return NGX_BUSY;
    }

    e = (ngx_mesh_endpoint_t *) lb_pick(&a->cluster->pools[a->tls], a->cluster->method, tried, a->started);

    if (e == NULL) {
        ngx_mesh_log_decision(pool->log, "all endpoints of the cluster \"%V\" have been tried", &a->cluster->node.str);
        return NGX_BUSY;
    }

    name = ngx_mesh_attempts_name(a, e, pool);
    if (name == NULL) {
        return NGX_ERROR;
    }

    if (a->last) {
        ngx_mesh_endpoint_release(a->last);
    }

    e->refs += 2;
    a->current = e;
    a->last = e;
    a->got_first_byte = 0;
    a->refused = 0;
    a->tried[a->ntried++] = &e->lb;

    lb_begin(&e->lb, a->started);

    ngx_mesh_log_decision(pool->log, "try %ui goes to the endpoint \"%V\" of the cluster \"%V\", %s", a->ntried,
                          &e->name, &a->cluster->node.str, e->tls ? "by mTLS" : "in plaintext");

    pc->socklen = ngx_mesh_attempts_address(a, e);
    pc->sockaddr = &a->sockaddr.address.sockaddr;
    pc->name = name;
    pc->cached = 0;
    pc->connection = NULL;

    return NGX_OK;
}


void
ngx_mesh_attempts_first_byte(ngx_mesh_attempts_t *a)
{
    if (a->current == NULL || a->got_first_byte) {
        return;
    }

    a->got_first_byte = 1;
    lb_first_byte(&a->cluster->pools[a->tls], &a->current->lb, a->started, ngx_mesh_now_us());
}


/* Whether the endpoint had closed a kept connection. This says nothing about the endpoint; its silence would. */
static ngx_uint_t
ngx_mesh_attempts_was_stale(ngx_peer_connection_t *pc)
{
    return pc && pc->cached
           && !(pc->connection && (pc->connection->read->timedout || pc->connection->write->timedout));
}


ngx_uint_t
ngx_mesh_attempts_free(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t state, ngx_uint_t answered)
{
    lb_outcome            outcome;
    ngx_mesh_endpoint_t  *e;

    e = a->current;
    if (e == NULL) {
        return 0;
    }

    a->current = NULL;
    outcome = answered ? LB_DONE : LB_ABANDONED;

    if ((state & NGX_PEER_FAILED) && (a->refused || !ngx_mesh_attempts_was_stale(pc))) {
        outcome = LB_FAILED;
    }

    lb_end(&a->cluster->pools[a->tls], &e->lb, outcome, a->started, ngx_mesh_now_us());

    if ((state & NGX_PEER_FAILED) && outcome == LB_ABANDONED) {
        /* The endpoint may be tried again. */
        a->ntried--;
        ngx_mesh_endpoint_release(e);
    }

    return outcome == LB_FAILED;
}


ngx_int_t
ngx_mesh_attempts_secure(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t tcp)
{
    ngx_mesh_tls_read_once(pc->connection);

    return ngx_mesh_handshake_connect(pc->connection, &a->last_id, tcp);
}


void
ngx_mesh_save_no_session(ngx_peer_connection_t *pc, void *data)
{
    (void) pc;
    (void) data;
}
