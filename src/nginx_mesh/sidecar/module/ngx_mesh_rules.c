/*
 * Rules about what is in a request. Built from Lua (lua/mesh/engine.lua), never changed.
 */

#include <ngx_http.h>

#define PCRE2_CODE_UNIT_WIDTH  8
#include <pcre2.h>

#include "ngx_mesh_rules.h"
#include "path.h"

/*
 * A pattern that backtracks without end costs a caller's request, not the pod. The limit is PCRE's, for each place where
 * a match may begin, so that the number of these is limited too.
 */
#define NGX_MESH_REGEX_LIMIT  10000
#define NGX_MESH_REGEX_HEAP   1024              /* KiB; without its compiler for patterns */
#define NGX_MESH_SUBJECT_MAX  8192              /* bytes of a path or of a header's values */
#define NGX_MESH_VALUES_MAX   64                /* of a header */

typedef struct {
    ngx_str_node_t      node;           /* the pattern */
    ngx_uint_t          refs;
    pcre2_code         *code;           /* NULL: it is none */
} ngx_mesh_regex_t;

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

static ngx_mesh_names_t         ngx_mesh_regexes;
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
ngx_mesh_regex_release(void *data)
{
    ngx_mesh_regex_t  *regex = data;

    if (--regex->refs == 0) {
        ngx_mesh_names_delete(&ngx_mesh_regexes, &regex->node);
        pcre2_code_free(regex->code);
        ngx_free(regex);
    }
}


/* Without a reference. NULL: out of memory. */
static ngx_mesh_regex_t *
ngx_mesh_regex_new(const ngx_str_t *text)
{
    int                error;
    size_t             offset;
    ngx_mesh_regex_t  *regex;

    regex = ngx_mesh_alloc(sizeof(ngx_mesh_regex_t), text->len);
    if (regex == NULL) {
        return NULL;
    }

    (void) ngx_mesh_copy(&regex->node.str, (u_char *) (regex + 1), text->data, text->len);
    ngx_mesh_names_insert(&ngx_mesh_regexes, &regex->node);

    regex->code = pcre2_compile(text->data, text->len, 0, &error, &offset, NULL);

    if (regex->code) {
        /* without it patterns are interpreted */
        (void) pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
    }

    return regex;
}


/*
 * As long as the pool lives. A pattern is compiled once, however many rules have it: a thousand may share a few, and a
 * policy is built while the one that it replaces still has most of its patterns.
 */
static ngx_int_t
ngx_mesh_regex_compile(pcre2_code **code, ngx_pool_t *pool, const u_char *data, size_t len)
{
    ngx_str_t            text = { len, (u_char *) data };
    ngx_mesh_regex_t    *regex;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    regex = (ngx_mesh_regex_t *) ngx_mesh_names_find(&ngx_mesh_regexes, &text);

    if (regex == NULL) {
        regex = ngx_mesh_regex_new(&text);
        if (regex == NULL) {
            return NGX_ERROR;
        }
    }

    regex->refs++;
    cln->handler = ngx_mesh_regex_release;
    cln->data = regex;
    *code = regex->code;

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

    if (s->len > NGX_MESH_SUBJECT_MAX) {
        return if_unsure;
    }

    if (ngx_mesh_match_data == NULL) {
        ngx_mesh_match_context = pcre2_match_context_create(NULL);
        ngx_mesh_match_data = pcre2_match_data_create(1, NULL);

        if (ngx_mesh_match_context == NULL || ngx_mesh_match_data == NULL) {
            return if_unsure;
        }

        pcre2_set_match_limit(ngx_mesh_match_context, NGX_MESH_REGEX_LIMIT);
        pcre2_set_heap_limit(ngx_mesh_match_context, NGX_MESH_REGEX_HEAP);
    }

    rc = pcre2_match(code, s->data, s->len, 0, 0, ngx_mesh_match_data, ngx_mesh_match_context);

    return rc >= 0 || (rc != PCRE2_ERROR_NOMATCH && if_unsure);
}


ngx_int_t
ngx_mesh_rule_init(ngx_mesh_rule_t *rule, ngx_pool_t *pool)
{
    return ngx_array_init(&rule->matches, pool, 2, sizeof(ngx_mesh_match_t));
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

    return len ? ngx_mesh_regex_compile(&match->path, pool, path, len) : NGX_OK;
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

    return ngx_mesh_regex_compile(&header->regex, pool, regex, regex_len);
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


static ngx_uint_t
ngx_mesh_methods_match(const ngx_array_t *methods, const ngx_str_t *method)
{
    static ngx_str_t  all = ngx_string("*");

    return methods->nelts == 0 || ngx_mesh_str_in(methods, method) || ngx_mesh_str_in(methods, &all);
}


/* A name as applications see it that fold what is neither letter nor digit to "_", as CGI does. */
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


/* The next header by that name, from `*i` of `*part` on; NULL: there is no more. */
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
 * Of a header that was sent more than once, applications take the first value, the last, or all with commas between; and
 * "x_a" may be "x-a" to them. A rule is about a header that was sent by its own name, and every reading must match; where
 * `if_unsure` is 1, any. A caller may send a hundred thousand, and there may be many rules: not all are looked at.
 */
static ngx_uint_t
ngx_mesh_header_matches(ngx_http_request_t *r, const ngx_mesh_header_match_t *header, ngx_uint_t if_unsure)
{
    u_char           *p;
    ngx_str_t         all;
    ngx_uint_t        i, n, named;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;
    static u_char     joined[NGX_MESH_SUBJECT_MAX];

    if (header->regex == NULL) {
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
 * The path goes to the application as it was sent. What it means when it must be normalised first is not for us to
 * guess: some merge slashes, some cut parameters, some do both. Every reading must match; where `if_unsure` is 1, any.
 */
static ngx_uint_t
ngx_mesh_path_matches(ngx_http_request_t *r, pcre2_code *code, ngx_uint_t if_unsure)
{
    ngx_str_t      cut, reading;
    static u_char  cut_room[NGX_MESH_SUBJECT_MAX], merged_room[NGX_MESH_SUBJECT_MAX];

    if (code == NULL) {
        return 0;
    }

    if (r->uri.len > NGX_MESH_SUBJECT_MAX || path_is_ambiguous(r->unparsed_uri.data, r->unparsed_uri.len)) {
        return if_unsure;
    }

    if (ngx_mesh_regex_matches(code, &r->uri, if_unsure) == if_unsure) {
        return if_unsure;
    }

    cut.data = cut_room;
    cut.len = path_cut_parameters(cut.data, r->uri.data, r->uri.len);
    reading.data = merged_room;
    reading.len = path_merge_slashes(reading.data, r->uri.data, r->uri.len);

    if (cut.len == r->uri.len && reading.len == r->uri.len) {
        return !if_unsure;
    }

    if (ngx_mesh_regex_matches(code, &reading, if_unsure) == if_unsure
        || ngx_mesh_regex_matches(code, &cut, if_unsure) == if_unsure)
    {
        return if_unsure;
    }

    reading.len = path_merge_slashes(reading.data, cut.data, cut.len);

    return ngx_mesh_regex_matches(code, &reading, if_unsure);
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

        if (!match[i].has_path || ngx_mesh_path_matches(r, match[i].path, if_unsure)) {
            return 1;
        }
    }

    return 0;
}
