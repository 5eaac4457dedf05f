/*
 * What Lua asks in order to say what would become of a request (`nginx-meshctl explain`). The tables and the functions
 * are those that decide about requests. Nothing is counted, admitted or remembered.
 *
 * The request that is asked about is the one at hand; its connection says the rest (ngx_mesh_connection.c).
 */

#include "ngx_http_mesh.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_destinations.h"
#include "ngx_mesh_policy.h"
#include "ngx_mesh_route.h"
#include "ngx_mesh_strings.h"
#include "ngx_mesh_tcp_access.h"


ngx_int_t
ngx_http_mesh_ffi_explain(ngx_http_request_t *r)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);

    if (mc == NULL || r->connection->proxy_protocol == NULL || mc->name.len == 0) {
        return NGX_DECLINED;
    }

    r->method = NGX_HTTP_GET;
    r->disable_not_modified = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_mesh_ffi_explain_route(ngx_http_request_t *r, ngx_uint_t tcp, ngx_mesh_dry_t *dry)
{
    ngx_mesh_connection_t   *mc;
    ngx_mesh_destination_t  *d;

    mc = ngx_mesh_connection(r->connection);
    d = mc ? ngx_mesh_destination_find(&mc->name) : NULL;

    return d ? ngx_mesh_route_dry_run(dry, d, tcp ? NULL : r) : NGX_DECLINED;
}


const char *
ngx_http_mesh_ffi_explain_tcp(ngx_http_request_t *r, ngx_mesh_ffi_str_t *by)
{
    ngx_str_t    grant;
    const char  *reason;

    reason = ngx_mesh_tcp_access(r->connection, ngx_mesh_connection_is_tls(r->connection), &grant);
    *by = ngx_mesh_ffi_str(&grant);

    return reason;
}


ngx_uint_t
ngx_http_mesh_ffi_explain_limits(ngx_http_request_t *r, ngx_mesh_dry_limit_t *found, ngx_uint_t max)
{
    ngx_str_t           id;
    ngx_mesh_policy_t  *policy;

    policy = ngx_http_mesh_policy(r, &id);

    return ngx_mesh_policy_dry_run(policy, &id, r, found, max);
}
