/*
 * Variables of nginx.conf:
 *
 *   $mesh_original_dst     the address that the caller dialled
 *   $mesh_peer_id          the SPIFFE ID that the caller proved
 *   $mesh_policy           the TrafficTarget that allowed the request
 *   $mesh_cluster          the cluster that was chosen
 *   $mesh_upstream_id      the SPIFFE ID of the endpoint that was chosen
 *   $mesh_upstream         for proxy_pass to the endpoint that is chosen
 *   $mesh_grpc_upstream    for grpc_pass to it
 *   $mesh_refused          "1" when the application gave no byte of an answer
 *   $mesh_log_default      "1" when this is the format of the access log
 *   $mesh_log_json         "1" when that is it
 *   $mesh_log_path, $mesh_log_authority, $mesh_log_user_agent
 *                          what the request has, made valid UTF-8
 */

#include "ngx_http_mesh.h"

#include "ngx_mesh_variables.h"
#include "text.h"

static ngx_int_t ngx_http_mesh_variable_original(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_peer(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_cluster(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_policy(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_upstream_id(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_upstream(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_refused(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_log(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_mesh_variable_text(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_mesh_variables[] = {
    { ngx_string("mesh_original_dst"), NULL, ngx_http_mesh_variable_original, 0, 0, 0 },
    { ngx_string("mesh_peer_id"), NULL, ngx_http_mesh_variable_peer, 0, 0, 0 },
    { ngx_string("mesh_cluster"), NULL, ngx_http_mesh_variable_cluster, 0, 0, 0 },
    { ngx_string("mesh_policy"), NULL, ngx_http_mesh_variable_policy, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_upstream_id"), NULL, ngx_http_mesh_variable_upstream_id, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_upstream"), NULL, ngx_http_mesh_variable_upstream, 0, 0, 0 },
    { ngx_string("mesh_grpc_upstream"), NULL, ngx_http_mesh_variable_upstream, 1, 0, 0 },
    { ngx_string("mesh_refused"), NULL, ngx_http_mesh_variable_refused, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_log_default"), NULL, ngx_http_mesh_variable_log, 0, 0, 0 },
    { ngx_string("mesh_log_json"), NULL, ngx_http_mesh_variable_log, 1, 0, 0 },
    { ngx_string("mesh_log_path"), NULL, ngx_http_mesh_variable_text, 0, 0, 0 },
    { ngx_string("mesh_log_authority"), NULL, ngx_http_mesh_variable_text, 1, 0, 0 },
    { ngx_string("mesh_log_user_agent"), NULL, ngx_http_mesh_variable_text, 2, 0, 0 },
    ngx_http_null_variable
};

/* What somebody else wrote, by the names of nginx's variables. */
static ngx_str_t  ngx_http_mesh_untrusted[] = {
    ngx_string("request_uri"),
    ngx_string("http_host"),
    ngx_string("http_user_agent"),
};

static ngx_int_t  ngx_http_mesh_untrusted_index[sizeof(ngx_http_mesh_untrusted) / sizeof(ngx_str_t)];


ngx_int_t
ngx_http_mesh_variables_init(ngx_conf_t *cf)
{
    ngx_uint_t            i;
    ngx_http_variable_t  *var, *v;

    for (i = 0; i < sizeof(ngx_http_mesh_untrusted) / sizeof(ngx_str_t); i++) {
        ngx_http_mesh_untrusted_index[i] = ngx_http_get_variable_index(cf, &ngx_http_mesh_untrusted[i]);
        if (ngx_http_mesh_untrusted_index[i] == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    for (v = ngx_http_mesh_variables; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* NULL: the request is not balanced. */
static ngx_mesh_attempts_t *
ngx_http_mesh_attempts(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    return ctx && ctx->balanced ? &ctx->attempts : NULL;
}


static ngx_int_t
ngx_http_mesh_variable_original(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_original(r->connection, v);
}


static ngx_int_t
ngx_http_mesh_variable_peer(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_peer(r->connection, v);
}


static ngx_int_t
ngx_http_mesh_variable_cluster(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_cluster(ngx_http_mesh_attempts(r), v);
}


static ngx_int_t
ngx_http_mesh_variable_policy(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_mesh_ctx_t  *ctx;

    (void) data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    return ngx_mesh_variable_str(v, ctx ? &ctx->policy : NULL);
}


static ngx_int_t
ngx_http_mesh_variable_upstream_id(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    (void) data;

    (void) ngx_mesh_variable_upstream_id(ngx_http_mesh_attempts(r), v);

    /* It is not cached, because a retry may choose another endpoint. */
    v->no_cacheable = 1;

    return NGX_OK;
}


/*
 * `data`: 0 for HTTP/1, 1 for HTTP/2. There is an upstream for each protocol with and without TLS, so that no
 * connection that one of them keeps is used for another.
 */
static ngx_int_t
ngx_http_mesh_variable_upstream(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_mesh_attempts_t  *attempts;
    static ngx_str_t      urls[2][2] = {
        { ngx_string("http://mesh_plain"), ngx_string("https://mesh_mtls") },
        { ngx_string("grpc://mesh_plain_h2"), ngx_string("grpcs://mesh_mtls_h2") }
    };

    attempts = ngx_http_mesh_attempts(r);

    if (attempts == NULL) {
        return NGX_ERROR;
    }

    return ngx_mesh_variable_str(v, &urls[data][attempts->tls]);
}


/*
 * "1" when the application gave no byte of an answer: it refused, closed or was silent. An answer that nginx does not
 * accept, with a header that is too long for instance, is not held against the endpoint: every other endpoint would
 * give it too.
 */
static ngx_int_t
ngx_http_mesh_variable_refused(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_uint_t                 silent = 0;
    ngx_http_upstream_state_t *state;

    (void) data;

    if (r->upstream_states && r->upstream_states->nelts) {
        state = r->upstream_states->elts;
        silent = state[r->upstream_states->nelts - 1].bytes_received == 0;
    }

    ngx_mesh_variable_set(v, (u_char *) "1", silent);

    return NGX_OK;
}


/* `data`: the format that this is the condition of. */
static ngx_int_t
ngx_http_mesh_variable_log(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    (void) r;

    return ngx_mesh_variable_log(v, data);
}


/* `data`: the index of one of ngx_http_mesh_untrusted. */
static ngx_int_t
ngx_http_mesh_variable_text(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    size_t                      invalid;
    u_char                     *p;
    ngx_http_variable_value_t  *raw;

    raw = ngx_http_get_indexed_variable(r, ngx_http_mesh_untrusted_index[data]);
    if (raw == NULL || raw->not_found) {
        v->not_found = 1;
        return NGX_OK;
    }

    invalid = text_invalid(raw->data, raw->len);
    if (invalid == 0) {
        ngx_mesh_variable_set(v, raw->data, raw->len);
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, raw->len + 2 * invalid);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_mesh_variable_set(v, p, text_repair(p, raw->data, raw->len));

    return NGX_OK;
}
