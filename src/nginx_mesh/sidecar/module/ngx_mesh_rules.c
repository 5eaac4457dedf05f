/*
 * Rules about requests: who sends them, and what is in them. Built from Lua (lua/mesh/engine.lua), never changed.
 */

#include <ngx_http.h>

#define PCRE2_CODE_UNIT_WIDTH  8
#include <pcre2.h>

#include "ngx_mesh_rules.h"

/* A pattern that backtracks without end costs a caller's request, not the pod. */
#define NGX_MESH_REGEX_LIMIT  100000

/* Segments that are "." or ".." once decoded and cut at ";", encoded slashes, backslashes. */
#define NGX_MESH_AMBIGUOUS    "^[^?]*(?:/(?:\\.|%2e){1,2}(?:[/;?]|$)|%2f|%5c|\\\\)"

typedef struct {
    ngx_str_t           name;
    pcre2_code         *regex;          /* NULL: it does not compile, and matches nothing */
} ngx_mesh_header_match_t;

/* Parts that are not given hold for everything; all of them must hold. */
typedef struct {
    ngx_uint_t          has_path;
    pcre2_code         *path;
    ngx_array_t         methods;        /* ngx_str_t */
    ngx_array_t         headers;        /* ngx_mesh_header_match_t */
} ngx_mesh_match_t;

static pcre2_match_data        *ngx_mesh_match_data;
static pcre2_match_context     *ngx_mesh_match_context;


static ngx_int_t
ngx_mesh_str_copy(ngx_str_t *to, ngx_pool_t *pool, const u_char *data, size_t len)
{
    to->data = ngx_pnalloc(pool, len);
    if (to->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(to->data, data, len);
    to->len = len;

    return NGX_OK;
}


static ngx_int_t
ngx_mesh_str_push(ngx_array_t *strings, const u_char *data, size_t len)
{
    ngx_str_t  *s;

    s = ngx_array_push(strings);

    return s ? ngx_mesh_str_copy(s, strings->pool, data, len) : NGX_ERROR;
}


static void
ngx_mesh_regex_free(void *data)
{
    pcre2_code_free(data);
}


/* NULL when it is no pattern. */
static ngx_int_t
ngx_mesh_regex_compile(pcre2_code **code, ngx_pool_t *pool, const u_char *data, size_t len, uint32_t options)
{
    int                  error;
    size_t               offset;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    *code = pcre2_compile(data, len, options, &error, &offset, NULL);

    if (*code) {
        cln->handler = ngx_mesh_regex_free;
        cln->data = *code;

        /* without it patterns are interpreted */
        (void) pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
    }

    return NGX_OK;
}


/* `if_unsure`: the answer where it took too long to tell. What is no pattern matches nothing. */
static ngx_uint_t
ngx_mesh_regex_matches(pcre2_code *code, const ngx_str_t *s, ngx_uint_t if_unsure)
{
    int  rc;

    if (code == NULL) {
        return 0;
    }

    if (ngx_mesh_match_data == NULL) {
        ngx_mesh_match_context = pcre2_match_context_create(NULL);
        ngx_mesh_match_data = pcre2_match_data_create(1, NULL);

        if (ngx_mesh_match_context == NULL || ngx_mesh_match_data == NULL) {
            return if_unsure;
        }

        pcre2_set_match_limit(ngx_mesh_match_context, NGX_MESH_REGEX_LIMIT);
    }

    rc = pcre2_match(code, s->data, s->len, 0, 0, ngx_mesh_match_data, ngx_mesh_match_context);

    return rc >= 0 || (rc != PCRE2_ERROR_NOMATCH && if_unsure);
}


ngx_int_t
ngx_mesh_rule_init(ngx_mesh_rule_t *rule, ngx_pool_t *pool)
{
    if (ngx_array_init(&rule->sources, pool, 2, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_array_init(&rule->matches, pool, 2, sizeof(ngx_mesh_match_t));
}


/* FFI. A caller (SPIFFE ID) that the rule is about. */
ngx_int_t
ngx_mesh_ffi_rule_source(ngx_mesh_rule_t *rule, const u_char *id, size_t len)
{
    return ngx_mesh_str_push(&rule->sources, id, len);
}


/* FFI. Begins a match of the rule. `path`: a pattern; empty: every path. */
ngx_int_t
ngx_mesh_ffi_rule_match(ngx_mesh_rule_t *rule, const u_char *path, size_t len)
{
    ngx_pool_t        *pool = rule->matches.pool;
    ngx_mesh_match_t  *match;

    match = ngx_array_push(&rule->matches);
    if (match == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(match, sizeof(ngx_mesh_match_t));
    match->has_path = (len != 0);

    if (ngx_array_init(&match->methods, pool, 2, sizeof(ngx_str_t)) != NGX_OK
        || ngx_array_init(&match->headers, pool, 2, sizeof(ngx_mesh_header_match_t)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return len ? ngx_mesh_regex_compile(&match->path, pool, path, len, 0) : NGX_OK;
}


static ngx_mesh_match_t *
ngx_mesh_rule_last_match(ngx_mesh_rule_t *rule)
{
    ngx_mesh_match_t  *matches = rule->matches.elts;

    return &matches[rule->matches.nelts - 1];
}


/* FFI. Of the match that was begun last: a method that it is for, "*" for all. */
ngx_int_t
ngx_mesh_ffi_rule_method(ngx_mesh_rule_t *rule, const u_char *name, size_t len)
{
    return ngx_mesh_str_push(&ngx_mesh_rule_last_match(rule)->methods, name, len);
}


/* FFI. Of the match that was begun last: a header that must be there, and a pattern for its value. */
ngx_int_t
ngx_mesh_ffi_rule_header(ngx_mesh_rule_t *rule, const u_char *name, size_t name_len, const u_char *regex,
    size_t regex_len)
{
    ngx_pool_t               *pool = rule->matches.pool;
    ngx_mesh_header_match_t  *header;

    header = ngx_array_push(&ngx_mesh_rule_last_match(rule)->headers);

    if (header == NULL || ngx_mesh_str_copy(&header->name, pool, name, name_len) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_mesh_regex_compile(&header->regex, pool, regex, regex_len, 0);
}


static ngx_uint_t
ngx_mesh_str_in(const ngx_array_t *strings, const ngx_str_t *s)
{
    ngx_uint_t  i;
    ngx_str_t  *member = strings->elts;

    for (i = 0; i < strings->nelts; i++) {
        if (member[i].len == s->len && ngx_memcmp(member[i].data, s->data, s->len) == 0) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_mesh_rule_names(const ngx_mesh_rule_t *rule, const ngx_str_t *id)
{
    return id->len && ngx_mesh_str_in(&rule->sources, id);
}


static ngx_uint_t
ngx_mesh_methods_match(const ngx_array_t *methods, const ngx_str_t *method)
{
    static ngx_str_t  all = ngx_string("*");

    return methods->nelts == 0 || ngx_mesh_str_in(methods, method) || ngx_mesh_str_in(methods, &all);
}


/* The next value of a header, from `*i` of `*part` on; NULL: there is no more. */
static ngx_str_t *
ngx_mesh_header_next(ngx_list_part_t **part, ngx_uint_t *i, const ngx_str_t *name)
{
    ngx_table_elt_t  *h;

    for ( ; *part; *part = (*part)->next, *i = 0) {
        while (*i < (*part)->nelts) {
            h = (ngx_table_elt_t *) (*part)->elts + (*i)++;

            if (h->key.len == name->len && ngx_strncasecmp(h->key.data, name->data, name->len) == 0) {
                return &h->value;
            }
        }
    }

    return NULL;
}


/*
 * A header that was sent more than once is its values with commas between, valid until the next call: a caller may send
 * a hundred thousand, and rules ask again and again. NGX_DECLINED: it was not sent.
 */
static ngx_int_t
ngx_mesh_header_value(ngx_http_request_t *r, const ngx_str_t *name, ngx_str_t *value)
{
    u_char           *p;
    size_t            len;
    ngx_str_t        *next;
    ngx_uint_t        i, n;
    ngx_list_part_t  *part;
    static u_char    *joined;
    static size_t     room;

    n = 0;
    len = 0;
    i = 0;
    part = &r->headers_in.headers.part;

    while ((next = ngx_mesh_header_next(&part, &i, name)) != NULL) {
        *value = *next;
        len += next->len + 1;
        n++;
    }

    if (n < 2) {
        return n ? NGX_OK : NGX_DECLINED;
    }

    if (len > room) {
        ngx_free(joined);
        room = 0;

        joined = ngx_alloc(len, r->connection->log);
        if (joined == NULL) {
            return NGX_ERROR;
        }

        room = len;
    }

    p = joined;
    i = 0;
    part = &r->headers_in.headers.part;

    while ((next = ngx_mesh_header_next(&part, &i, name)) != NULL) {
        p = ngx_cpymem(p, next->data, next->len);
        *p++ = ',';
    }

    value->data = joined;
    value->len = len - 1;

    return NGX_OK;
}


static ngx_uint_t
ngx_mesh_headers_match(ngx_http_request_t *r, const ngx_array_t *headers, ngx_uint_t if_unsure)
{
    ngx_str_t                 value;
    ngx_uint_t                i;
    ngx_mesh_header_match_t  *header = headers->elts;

    for (i = 0; i < headers->nelts; i++) {
        if (ngx_mesh_header_value(r, &header[i].name, &value) != NGX_OK
            || !ngx_mesh_regex_matches(header[i].regex, &value, if_unsure))
        {
            return 0;
        }
    }

    return 1;
}


/*
 * The path goes to the application as it was sent. What it means when it must be normalised first is not for us to
 * guess: applications differ, and one may take /public/..;/admin for what another takes it not. A path of which this
 * cannot be told is ambiguous too.
 */
static ngx_uint_t
ngx_mesh_path_is_ambiguous(const ngx_str_t *sent)
{
    size_t              i;
    static pcre2_code  *ambiguous;

    for (i = 0; i < sent->len; i++) {
        if (sent->data[i] == '%' || sent->data[i] == '\\'
            || (sent->data[i] == '/' && i + 1 < sent->len && sent->data[i + 1] == '.'))
        {
            break;
        }
    }

    if (i == sent->len) {
        return 0;
    }

    if (ambiguous == NULL
        && (ngx_mesh_regex_compile(&ambiguous, ngx_cycle->pool, (u_char *) NGX_MESH_AMBIGUOUS,
                                   sizeof(NGX_MESH_AMBIGUOUS) - 1, PCRE2_CASELESS) != NGX_OK
            || ambiguous == NULL))
    {
        return 1;
    }

    return ngx_mesh_regex_matches(ambiguous, sent, 1);
}


ngx_uint_t
ngx_mesh_rule_matches(ngx_http_request_t *r, const ngx_mesh_rule_t *rule, ngx_uint_t if_unsure)
{
    ngx_uint_t         i;
    ngx_mesh_match_t  *match = rule->matches.elts;

    if (rule->matches.nelts == 0) {
        return 1;
    }

    for (i = 0; i < rule->matches.nelts; i++) {

        if (!ngx_mesh_methods_match(&match[i].methods, &r->method_name)
            || !ngx_mesh_headers_match(r, &match[i].headers, if_unsure))
        {
            continue;
        }

        if (!match[i].has_path) {
            return 1;
        }

        if (ngx_mesh_path_is_ambiguous(&r->unparsed_uri)) {
            if (if_unsure) {
                return 1;
            }

        } else if (ngx_mesh_regex_matches(match[i].path, &r->uri, if_unsure)) {
            return 1;
        }
    }

    return 0;
}
