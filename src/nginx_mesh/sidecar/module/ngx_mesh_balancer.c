/* One request's or connection's way through the endpoints of a cluster, shared by HTTP and TCP. */

#include "ngx_mesh.h"


int64_t
ngx_mesh_now_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


/* Requests may be torn down in many ways; whichever it is, the endpoint's count of active ones comes down again. */
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


/* The length of the address with what must be proved at it, in `a->sockaddr`. */
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


ngx_int_t
ngx_mesh_attempts_get(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_pool_t *pool)
{
    u_char               *p;
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
        return NGX_BUSY;
    }

    /* the log speaks of it when the endpoint may be gone already */

    name = ngx_palloc(pool, sizeof(ngx_str_t) + e->name.len + e->spiffe_id.len);
    if (name == NULL) {
        return NGX_ERROR;
    }

    p = (u_char *) name + sizeof(ngx_str_t);

    name->data = p;
    name->len = e->name.len;
    p = ngx_cpymem(p, e->name.data, e->name.len);

    a->last_id.data = p;
    a->last_id.len = e->spiffe_id.len;
    ngx_memcpy(p, e->spiffe_id.data, e->spiffe_id.len);

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


/* An idle connection that the endpoint had closed says nothing about it; one that is silent does. */
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
        /* the endpoint itself gets another chance */
        a->ntried--;
        ngx_mesh_endpoint_release(e);
    }

    return outcome == LB_FAILED;
}


ngx_int_t
ngx_mesh_attempts_secure(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t tcp)
{
    ngx_mesh_tls_read_once(pc->connection);

    return ngx_mesh_identity_call(pc->connection, &a->last_id, tcp);
}


void
ngx_mesh_save_no_session(ngx_peer_connection_t *pc, void *data)
{
    (void) pc;
    (void) data;
}
