/* The log phase: counting the request, telling circuit breakers how it ended, reporting it. */

#include "ngx_http_mesh.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_counts.h"
#include "ngx_mesh_report.h"
#include "ngx_mesh_totals.h"


/* Marks the entry among the cleanups of the request's pool by which its context is found again. */
static void
ngx_http_mesh_ctx_mark(void *data)
{
    (void) data;
}


void
ngx_http_mesh_observe(ngx_http_request_t *r, ngx_uint_t role)
{
    ngx_pool_cleanup_t   *cln;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_mesh_ctx(r);
    cln = ngx_pool_cleanup_add(r->pool, 0);

    if (ctx == NULL || cln == NULL || ctx->role) {
        return;
    }

    cln->handler = ngx_http_mesh_ctx_mark;
    cln->data = ctx;
    ctx->role = role;

    if (ngx_mesh_reports.tracing) {
        ctx->trace = ngx_http_mesh_trace(r);
    }
}


/* The context of a request that is observed, also after an internal redirect (to @refused), which loses contexts. */
static ngx_http_mesh_ctx_t *
ngx_http_mesh_observed_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t   *cln;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->role) {
        return ctx;
    }

    for (cln = r->internal ? r->pool->cleanup : NULL; cln; cln = cln->next) {
        if (cln->handler == ngx_http_mesh_ctx_mark) {
            return cln->data;
        }
    }

    return NULL;
}


static void
ngx_http_mesh_log_report(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t    *ctx;
    ngx_http_mesh_facts_t   facts;

    ctx = ngx_http_mesh_observed_ctx(r);

    if (ctx == NULL || (ctx->trace == NULL && !ngx_mesh_tap_on())) {
        return;
    }

    ngx_memzero(&facts, sizeof(ngx_http_mesh_facts_t));

    facts.role = ctx->role;
    facts.trace = ctx->trace;
    facts.status = ngx_http_mesh_status(r);
    facts.policy = ctx->policy;
    facts.limited_by = ctx->limited_by;
    facts.reason = ctx->reason;

    if (ctx->role == NGX_MESH_INBOUND) {
        facts.tls = r->connection->ssl != NULL;

        if (facts.tls && ngx_mesh_connection_peer(r->connection, &facts.peer_id) != NGX_OK) {
            ngx_str_null(&facts.peer_id);
        }

    } else if (ctx->balanced) {
        facts.tls = ctx->attempts.tls;
        facts.cluster = ctx->attempts.cluster->node.str;

        if (facts.tls) {
            facts.peer_id = ctx->attempts.last_id;
        }
    }

    facts.tapped = ngx_http_mesh_tapped(r, &facts);

    if (facts.trace || facts.tapped) {
        ngx_http_mesh_report(r, &facts);
    }
}


ngx_int_t
ngx_http_mesh_log_handler(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t       *ctx;
    ngx_http_mesh_loc_conf_t  *mlcf;

    if (ngx_mesh_reports.on) {
        ngx_http_mesh_log_report(r);
    }

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_mesh_module);

    if (!mlcf->count) {
        return NGX_OK;
    }

    if (mlcf->role == NGX_MESH_INBOUND) {
        ngx_mesh_count_received(ngx_http_mesh_status(r), ngx_http_mesh_elapsed(r));
        return NGX_OK;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->balanced && ctx->attempts.last) {
        ngx_mesh_count_response(ctx->attempts.last, ngx_http_mesh_status(r), ngx_http_mesh_elapsed(r));
    }

    if (ctx && ctx->tickets) {
        ngx_mesh_tickets_end(ctx->tickets, ngx_http_mesh_outcome(r, ctx));
    }

    return NGX_OK;
}
