/* What several files ask of a request. */

#include "ngx_http_mesh.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_inbound.h"


ngx_http_mesh_ctx_t *
ngx_http_mesh_ctx(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_mesh_ctx_t));
        if (ctx) {
            ngx_http_set_ctx(r, ctx, ngx_http_mesh_module);
        }
    }

    return ctx;
}


ngx_mesh_policy_t *
ngx_http_mesh_policy(ngx_http_request_t *r, ngx_str_t *id)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);

    if (!ngx_mesh_connection_is_tls(r->connection) || ngx_mesh_connection_peer(r->connection, id) != NGX_OK) {
        ngx_str_null(id);
    }

    return mc ? ngx_mesh_inbound_policy(mc->port) : NULL;
}


const ngx_str_t *
ngx_http_mesh_field(ngx_list_t *fields, const ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &fields->part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len == name->len && ngx_strncasecmp(h[i].key.data, name->data, name->len) == 0) {
                return &h[i].value;
            }
        }
    }

    return NULL;
}


ngx_uint_t
ngx_http_mesh_status(ngx_http_request_t *r)
{
    return r->err_status ? r->err_status : r->headers_out.status;
}


/* The clock may have been set back in the meantime. */
int64_t
ngx_http_mesh_elapsed(ngx_http_request_t *r)
{
    int64_t      ms;
    ngx_time_t  *now;

    now = ngx_timeofday();
    ms = (int64_t) (now->sec - r->start_sec) * 1000 + (int64_t) now->msec - (int64_t) r->start_msec;

    return ngx_max(ms, 0);
}


ngx_str_t
ngx_http_mesh_path(ngx_http_request_t *r)
{
    ngx_str_t   path = { 0, r->unparsed_uri.data };
    ngx_str_t  *uri = &r->unparsed_uri;

    while (path.len < uri->len && uri->data[path.len] != '?' && uri->data[path.len] != '#') {
        path.len++;
    }

    return path;
}
