/*
 * The access phase: whether a request may pass, and where to. Where the tables alone say yes, Lua is not asked.
 * Everything else, refusals and their texts included, is left to Lua, which asks the same functions again.
 */

#include "ngx_http_mesh.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_destinations.h"
#include "ngx_mesh_inbound.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_policy.h"
#include "ngx_mesh_report.h"
#include "ngx_mesh_route.h"
#include "ngx_mesh_strings.h"


/* ngx_mesh_route, after which an endpoint can be asked for. NGX_DECLINED also when the address is no destination. */
static ngx_int_t
ngx_http_mesh_select(ngx_http_request_t *r, ngx_mesh_route_t *route)
{
    ngx_int_t                rc;
    ngx_http_mesh_ctx_t     *ctx;
    ngx_mesh_connection_t   *mc;
    ngx_mesh_destination_t  *d;

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    mc = ngx_mesh_connection(r->connection);
    d = mc ? ngx_mesh_destination_find(&mc->name) : NULL;

    if (d == NULL || !(d->protocols & NGX_MESH_PROTOCOL_HTTP)) {
        ngx_mesh_log_decision(r->connection->log, "the address that was dialled is no destination for HTTP");
        return NGX_DECLINED;
    }

    rc = ngx_mesh_route(route, d, r, r->pool);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_mesh_attempts_init(&ctx->attempts, route->cluster, r->pool) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->balanced = 1;
    ctx->tickets = route->tickets;

    return NGX_OK;
}


ngx_int_t
ngx_http_mesh_ffi_select(ngx_http_request_t *r, const char **name, size_t *len)
{
    ngx_int_t         rc;
    ngx_mesh_route_t  route;

    rc = ngx_http_mesh_select(r, &route);

    if (rc == NGX_BUSY || rc == NGX_ABORT) {
        *name = (const char *) route.name->data;
        *len = route.name->len;
    }

    return rc;
}


void
ngx_http_mesh_ffi_disown_identity(ngx_http_request_t *r)
{
    size_t            i;
    ngx_uint_t        n;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;
    static ngx_str_t  name = ngx_string("x-forwarded-client-spiffe-id");

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (n = 0; n < part->nelts; n++) {

            if (h[n].key.len != name.len) {
                continue;
            }

            for (i = 0; i < name.len; i++) {
                if (h[n].lowcase_key[i] != name.data[i] && (name.data[i] != '-' || isalnum(h[n].lowcase_key[i]))) {
                    break;
                }
            }

            if (i == name.len) {
                h[n].key = name;
                h[n].lowcase_key = name.data;
                h[n].hash = ngx_hash_key(name.data, name.len);
            }
        }
    }
}


ngx_int_t
ngx_http_mesh_ffi_body_limit(ngx_http_request_t *r, int64_t limit)
{
    ngx_http_mesh_ctx_t  *ctx;

    if (r->headers_in.content_length_n > limit) {
        return NGX_DECLINED;
    }

    if (r->headers_in.content_length_n >= 0) {
        return NGX_OK;
    }

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->body_limit = limit;

    return NGX_OK;
}


static void
ngx_http_mesh_log_access(ngx_http_request_t *r, const ngx_str_t *id, const ngx_str_t *by, const char *verdict)
{
    ngx_str_t               path = ngx_http_mesh_path(r);
    ngx_mesh_connection_t  *mc = ngx_mesh_connection(r->connection);

    ngx_mesh_log_decision(r->connection->log,
                          "access rules of the port %ui %s %V \"%V\" of the caller \"%V\", grant \"%V\"",
                          (ngx_uint_t) (mc ? mc->port : 0), verdict,
                          ngx_mesh_log_text(r->method_name.data, r->method_name.len),
                          ngx_mesh_log_text(path.data, path.len), ngx_mesh_log_text(id->data, id->len), by);
}


ngx_uint_t
ngx_http_mesh_ffi_allowed(ngx_http_request_t *r)
{
    ngx_str_t             id, by;
    ngx_uint_t            allowed;
    ngx_mesh_policy_t    *policy;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->denied) {
        return 0;
    }

    policy = ngx_http_mesh_policy(r, &id);
    allowed = ngx_mesh_policy_allows(policy, &id, r, &by);

    if (r->connection->log->log_level >= NGX_LOG_DEBUG) {
        ngx_http_mesh_log_access(r, &id, &by, allowed ? "allow" : "deny");
    }

    if (allowed && by.len == 0) {
        return 1;
    }

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return 0;
    }

    if (!allowed) {
        /* Lua asks again, to refuse it: expressions that take long are not matched twice. */
        ctx->denied = 1;
        return 0;
    }

    /* The policy may be gone when the request is logged. */
    return ngx_mesh_str_dup(&ctx->policy, r->pool, &by) == NGX_OK;
}


/* Asks the rate limits, which count the request, and remembers what they say. The milliseconds that it has to wait. */
static ngx_int_t
ngx_http_mesh_limit(ngx_http_request_t *r)
{
    ngx_int_t             wait;
    ngx_str_t             id, by;
    ngx_mesh_policy_t    *policy;
    ngx_http_mesh_ctx_t  *ctx;

    policy = ngx_http_mesh_policy(r, &id);
    wait = ngx_mesh_policy_wait(policy, &id, r, &by);

    if (wait == 0) {
        if (policy) {
            ngx_mesh_log_decision(r->connection->log, "no rate limit delays the request");
        }

        return 0;
    }

    if (wait == NGX_BUSY) {
        ngx_mesh_log_decision(r->connection->log, "the request is over the rate limit \"%V\"", &by);
    } else {
        ngx_mesh_log_decision(r->connection->log, "the rate limit \"%V\" delays the request by %i ms", &by, wait);
    }

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return NGX_BUSY;
    }

    /* The policy may be gone when this is asked again. */
    (void) ngx_mesh_str_dup(&ctx->limited_by, r->pool, &by);
    ctx->wait = wait;
    ctx->limited = 1;

    return wait;
}


ngx_int_t
ngx_http_mesh_ffi_limit(ngx_http_request_t *r, const char **name, size_t *len)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx == NULL || !ctx->limited) {

        if (ngx_http_mesh_limit(r) == 0) {
            return 0;
        }

        ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
        if (ctx == NULL) {
            return NGX_BUSY;
        }
    }

    *name = (const char *) ctx->limited_by.data;
    *len = ctx->limited_by.len;

    return ctx->wait;
}


/* Whether the request of the application is to a service whose cluster is loaded; then an endpoint can be asked for. */
static ngx_uint_t
ngx_http_mesh_access_outbound(ngx_http_request_t *r)
{
    ngx_mesh_route_t  route;

    return ngx_http_mesh_select(r, &route) == NGX_OK;
}


/* Whether the request from the wire may pass at once. */
static ngx_uint_t
ngx_http_mesh_access_inbound(ngx_http_request_t *r)
{
    off_t                   body_limit = ngx_mesh_settings.body_limit;
    size_t                  len;
    const char             *name;
    ngx_str_t               id;
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);

    if (mc == NULL || !ngx_mesh_settings.ready || !ngx_mesh_inbound_find(mc->port)) {
        return 0;
    }

    if (r->connection->ssl ? ngx_mesh_connection_peer(r->connection, &id) != NGX_OK
                           : ngx_mesh_settings.mode == NGX_MESH_STRICT)
    {
        return 0;
    }

    ngx_http_mesh_ffi_disown_identity(r);

    /* Rate limits come last, so that they do not count what is refused anyway. */

    return ngx_http_mesh_ffi_allowed(r)
           && (body_limit == 0 || ngx_http_mesh_ffi_body_limit(r, body_limit) == NGX_OK)
           && ngx_http_mesh_ffi_limit(r, &name, &len) == 0;
}


ngx_int_t
ngx_http_mesh_access_handler(ngx_http_request_t *r)
{
    ngx_uint_t                  allowed;
    ngx_http_mesh_loc_conf_t   *mlcf;
    ngx_http_core_main_conf_t  *cmcf;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_mesh_module);

    if (mlcf->role == NGX_MESH_NONE) {
        return NGX_DECLINED;
    }

    if (ngx_mesh_reports.on) {
        ngx_http_mesh_observe(r, mlcf->role);
    }

    allowed = mlcf->role == NGX_MESH_OUTBOUND ? ngx_http_mesh_access_outbound(r) : ngx_http_mesh_access_inbound(r);

    if (allowed) {
        /* nginx goes on with the handler after this one, which is now the first of the next phase and not Lua's. */
        cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
        r->phase_handler = cmcf->phase_engine.handlers[r->phase_handler].next - 1;

    } else {
        ngx_mesh_log_decision(r->connection->log, "Lua decides: the tables alone do not let the request pass");
    }

    return NGX_DECLINED;
}
