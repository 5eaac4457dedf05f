/*
 * What Lua asks in order to say what would become of a request (lua/mesh/explain.lua): the tables and functions are those
 * by which requests are decided, and nothing is counted, admitted or remembered. All functions are FFI.
 *
 * The request that is asked about is the one at hand; the rest is known from its connection (ngx_mesh_connection_asked).
 */

#include <ngx_http.h>

#include "ngx_mesh.h"


/*
 * Makes the request one that is answered with a body, whatever its method and conditions say: rules ask for the method by
 * name. NGX_DECLINED: its connection does not say what is asked about.
 */
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


/* ngx_mesh_route_dry. */
ngx_int_t
ngx_http_mesh_ffi_explain_route(ngx_http_request_t *r, ngx_uint_t tcp, ngx_mesh_dry_t *dry)
{
    ngx_mesh_connection_t   *mc;
    ngx_mesh_destination_t  *d;

    mc = ngx_mesh_connection(r->connection);
    d = mc ? ngx_mesh_destination_find(&mc->name) : NULL;

    return d ? ngx_mesh_route_dry(dry, d, tcp ? NULL : r) : NGX_DECLINED;
}


/* ngx_mesh_tcp_judge. */
const char *
ngx_http_mesh_ffi_explain_tcp(ngx_http_request_t *r, ngx_str_t *by)
{
    return ngx_mesh_tcp_judge(r->connection, ngx_mesh_connection_is_tls(r->connection), by);
}


/* ngx_mesh_policy_look. */
ngx_uint_t
ngx_http_mesh_ffi_explain_limits(ngx_http_request_t *r, ngx_mesh_dry_limit_t *found, ngx_uint_t max)
{
    ngx_str_t           id;
    ngx_mesh_policy_t  *policy;

    policy = ngx_http_mesh_policy(r, &id);

    return ngx_mesh_policy_look(policy, &id, r, found, max);
}


/* Milliseconds for which an endpoint is passed over, as it failed. */
int64_t
ngx_mesh_ffi_endpoint_down(const u_char *cluster_name, size_t cluster_len, const u_char *name, size_t len)
{
    ngx_str_t             cluster_str = { cluster_len, (u_char *) cluster_name };
    ngx_str_t             str = { len, (u_char *) name };
    ngx_mesh_cluster_t   *cluster;
    ngx_mesh_endpoint_t  *e;

    cluster = ngx_mesh_cluster_find(&cluster_str);
    e = cluster ? ngx_mesh_endpoint_find(cluster, &str) : NULL;

    return e ? (lb_down(&e->lb, ngx_mesh_now_us()) + 999) / 1000 : 0;
}
