#include <ngx_http.h>

#include "ngx_mesh_regex.h"
#include "ngx_mesh_rules.h"
#include "ngx_mesh_strings.h"
#include "path.h"

#define NGX_MESH_VALUES_MAX   64                /* of one header */

typedef struct {
    ngx_str_t           name;
    ngx_mesh_regex_t   *regex;
} ngx_mesh_header_match_t;

/* What is not given holds for every request; everything that is given must hold. */
typedef struct {
    ngx_mesh_regex_t   *path;           /* NULL: every path */
    ngx_array_t         methods;        /* ngx_str_t */
    ngx_array_t         headers;        /* ngx_mesh_header_match_t */
} ngx_mesh_match_t;


ngx_int_t
ngx_mesh_rule_init(ngx_mesh_rule_t *rule, ngx_pool_t *pool)
{
    return ngx_array_init(&rule->matches, pool, 2, sizeof(ngx_mesh_match_t));
}


ngx_int_t
ngx_mesh_ffi_rule_match(ngx_mesh_rule_t *rule, const char *path, size_t len)
{
    ngx_str_t          text = ngx_mesh_str(path, len);
    ngx_pool_t        *pool = rule->matches.pool;
    ngx_mesh_match_t  *match;

    match = ngx_array_push(&rule->matches);
    if (match == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(match, sizeof(ngx_mesh_match_t));

    if (ngx_array_init(&match->methods, pool, 2, sizeof(ngx_str_t)) != NGX_OK
        || ngx_array_init(&match->headers, pool, 2, sizeof(ngx_mesh_header_match_t)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (len) {
        match->path = ngx_mesh_regex_compile(pool, &text);
        if (match->path == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_mesh_match_t *
ngx_mesh_rule_last_match(ngx_mesh_rule_t *rule)
{
    ngx_mesh_match_t  *matches = rule->matches.elts;

    return &matches[rule->matches.nelts - 1];
}


ngx_int_t
ngx_mesh_ffi_rule_method(ngx_mesh_rule_t *rule, const char *name, size_t len)
{
    ngx_str_t  *method, str = ngx_mesh_str(name, len);

    method = ngx_array_push(&ngx_mesh_rule_last_match(rule)->methods);

    return method ? ngx_mesh_str_dup(method, rule->matches.pool, &str) : NGX_ERROR;
}


ngx_int_t
ngx_mesh_ffi_rule_header(ngx_mesh_rule_t *rule, const char *name, size_t name_len, const char *regex, size_t regex_len)
{
    ngx_str_t                 str = ngx_mesh_str(name, name_len);
    ngx_str_t                 text = ngx_mesh_str(regex, regex_len);
    ngx_pool_t               *pool = rule->matches.pool;
    ngx_mesh_header_match_t  *header;

    header = ngx_array_push(&ngx_mesh_rule_last_match(rule)->headers);

    if (header == NULL || ngx_mesh_str_dup(&header->name, pool, &str) != NGX_OK) {
        return NGX_ERROR;
    }

    header->regex = ngx_mesh_regex_compile(pool, &text);

    return header->regex ? NGX_OK : NGX_ERROR;
}


static ngx_uint_t
ngx_mesh_methods_match(const ngx_array_t *methods, const ngx_str_t *method)
{
    ngx_uint_t         i;
    ngx_str_t         *allowed = methods->elts;
    static ngx_str_t   all = ngx_string("*");

    for (i = 0; i < methods->nelts; i++) {
        if (ngx_mesh_str_equal(&allowed[i], method) || ngx_mesh_str_equal(&allowed[i], &all)) {
            return 1;
        }
    }

    return methods->nelts == 0;
}


/*
 * Whether applications may take the header `key` for the one that is called `name`: many of them replace what is
 * neither a letter nor a digit by "_", as CGI does.
 */
static ngx_uint_t
ngx_mesh_header_names(const ngx_str_t *key, const ngx_str_t *name)
{
    size_t  i;

    if (key->len != name->len) {
        return 0;
    }

    for (i = 0; i < name->len; i++) {
        if (ngx_tolower(key->data[i]) != ngx_tolower(name->data[i])
            && (isalnum(key->data[i]) || isalnum(name->data[i])))
        {
            return 0;
        }
    }

    return 1;
}


/* The next header that may be the one by that name, from `*i` of `*part` on; NULL: there is no more. */
static ngx_table_elt_t *
ngx_mesh_header_next(ngx_list_part_t **part, ngx_uint_t *i, const ngx_str_t *name)
{
    ngx_table_elt_t  *h;

    for ( ; *part; *part = (*part)->next, *i = 0) {
        while (*i < (*part)->nelts) {
            h = (ngx_table_elt_t *) (*part)->elts + (*i)++;

            if (ngx_mesh_header_names(&h->key, name)) {
                return h;
            }
        }
    }

    return NULL;
}


/*
 * When a header was sent more than once, some applications take the first value, some the last, some all of them with
 * commas between; and some take "x_a" for "x-a". A rule speaks of a header that was sent by its very name, and every
 * one of these readings must match; with `if_unsure` 1, any of them. A caller may send a hundred thousand values, and
 * there may be many rules, so that not all values are looked at.
 */
static ngx_uint_t
ngx_mesh_header_matches(ngx_http_request_t *r, const ngx_mesh_header_match_t *header, ngx_uint_t if_unsure)
{
    u_char           *p;
    ngx_str_t         all;
    ngx_uint_t        i, n, named;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;
    static u_char     joined[NGX_MESH_REGEX_SUBJECT_MAX];

    if (!ngx_mesh_regex_is_valid(header->regex)) {
        return 0;
    }

    p = joined;
    n = 0;
    named = 0;
    i = 0;
    part = &r->headers_in.headers.part;

    while ((h = ngx_mesh_header_next(&part, &i, &header->name)) != NULL) {

        if (++n > NGX_MESH_VALUES_MAX || h->value.len >= (size_t) (joined + sizeof(joined) - p)) {
            return if_unsure;
        }

        if (ngx_mesh_regex_matches(header->regex, &h->value, if_unsure) == if_unsure) {
            return if_unsure;
        }

        named |= (ngx_strncasecmp(h->key.data, header->name.data, h->key.len) == 0);
        p = ngx_cpymem(p, h->value.data, h->value.len);
        *p++ = ',';
    }

    if (n < 2) {
        return n && named && !if_unsure;
    }

    all.data = joined;
    all.len = p - joined - 1;

    return (named || if_unsure) && ngx_mesh_regex_matches(header->regex, &all, if_unsure);
}


static ngx_uint_t
ngx_mesh_headers_match(ngx_http_request_t *r, const ngx_array_t *headers, ngx_uint_t if_unsure)
{
    ngx_uint_t                i;
    ngx_mesh_header_match_t  *header = headers->elts;

    for (i = 0; i < headers->nelts; i++) {
        if (!ngx_mesh_header_matches(r, &header[i], if_unsure)) {
            return 0;
        }
    }

    return 1;
}


/*
 * The path goes to the application as it was sent, and applications normalise it differently: some merge slashes, some
 * cut parameters, some do both. Every one of these readings must match; with `if_unsure` 1, any of them.
 */
static ngx_uint_t
ngx_mesh_path_matches(ngx_http_request_t *r, const ngx_mesh_regex_t *regex, ngx_uint_t if_unsure)
{
    ngx_str_t      cut, reading;
    static u_char  cut_room[NGX_MESH_REGEX_SUBJECT_MAX], merged_room[NGX_MESH_REGEX_SUBJECT_MAX];

    if (!ngx_mesh_regex_is_valid(regex)) {
        return 0;
    }

    if (r->uri.len > NGX_MESH_REGEX_SUBJECT_MAX || path_is_ambiguous(r->unparsed_uri.data, r->unparsed_uri.len)) {
        return if_unsure;
    }

    if (ngx_mesh_regex_matches(regex, &r->uri, if_unsure) == if_unsure) {
        return if_unsure;
    }

    cut.data = cut_room;
    cut.len = path_cut_parameters(cut.data, r->uri.data, r->uri.len);
    reading.data = merged_room;
    reading.len = path_merge_slashes(reading.data, r->uri.data, r->uri.len);

    if (cut.len == r->uri.len && reading.len == r->uri.len) {
        return !if_unsure;
    }

    if (ngx_mesh_regex_matches(regex, &reading, if_unsure) == if_unsure
        || ngx_mesh_regex_matches(regex, &cut, if_unsure) == if_unsure)
    {
        return if_unsure;
    }

    reading.len = path_merge_slashes(reading.data, cut.data, cut.len);

    return ngx_mesh_regex_matches(regex, &reading, if_unsure);
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

        if (match[i].path == NULL || ngx_mesh_path_matches(r, match[i].path, if_unsure)) {
            return 1;
        }
    }

    return 0;
}
