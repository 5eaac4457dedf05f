#include "ngx_mesh_regex.h"

#define PCRE2_CODE_UNIT_WIDTH  8
#include <pcre2.h>

#include "ngx_mesh_names.h"
#include "ngx_mesh_strings.h"

/*
 * An expression that backtracks without end may cost a caller its request, but not the pod. PCRE2 applies the limit of
 * steps to each place where a match may begin, so that the length of the subject is limited too.
 */
#define NGX_MESH_REGEX_STEPS  10000
#define NGX_MESH_REGEX_HEAP   1024              /* KiB; used only where expressions are interpreted */

struct ngx_mesh_regex_s {
    ngx_str_node_t                node;         /* the expression */
    ngx_uint_t                    refs;
    pcre2_code                   *code;         /* NULL: it is malformed */
};

static ngx_mesh_names_t           ngx_mesh_regexes;
static pcre2_match_data          *ngx_mesh_match_data;
static pcre2_match_context       *ngx_mesh_match_context;


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

    (void) ngx_mesh_str_copy(&regex->node.str, (u_char *) (regex + 1), text);
    ngx_mesh_names_insert(&ngx_mesh_regexes, &regex->node);

    regex->code = pcre2_compile(text->data, text->len, 0, &error, &offset, NULL);

    if (regex->code) {
        /* Where this fails, the expression is interpreted. */
        (void) pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
    }

    return regex;
}


/*
 * An expression is compiled once, however many rules have it: a thousand rules may share a few, and a new policy is
 * built while the one that it replaces still has most of its expressions.
 */
ngx_mesh_regex_t *
ngx_mesh_regex_compile(ngx_pool_t *pool, const ngx_str_t *text)
{
    ngx_mesh_regex_t    *regex;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    regex = (ngx_mesh_regex_t *) ngx_mesh_names_find(&ngx_mesh_regexes, text);

    if (regex == NULL) {
        regex = ngx_mesh_regex_new(text);
        if (regex == NULL) {
            return NULL;
        }
    }

    regex->refs++;
    cln->handler = ngx_mesh_regex_release;
    cln->data = regex;

    return regex;
}


ngx_uint_t
ngx_mesh_regex_is_valid(const ngx_mesh_regex_t *regex)
{
    return regex->code != NULL;
}


ngx_uint_t
ngx_mesh_regex_matches(const ngx_mesh_regex_t *regex, const ngx_str_t *subject, ngx_uint_t if_unsure)
{
    int  rc;

    if (regex->code == NULL) {
        return 0;
    }

    if (subject->len > NGX_MESH_REGEX_SUBJECT_MAX) {
        return if_unsure;
    }

    if (ngx_mesh_match_data == NULL) {
        ngx_mesh_match_context = pcre2_match_context_create(NULL);
        ngx_mesh_match_data = pcre2_match_data_create(1, NULL);

        if (ngx_mesh_match_context == NULL || ngx_mesh_match_data == NULL) {
            return if_unsure;
        }

        pcre2_set_match_limit(ngx_mesh_match_context, NGX_MESH_REGEX_STEPS);
        pcre2_set_heap_limit(ngx_mesh_match_context, NGX_MESH_REGEX_HEAP);
    }

    rc = pcre2_match(regex->code, subject->data, subject->len, 0, 0, ngx_mesh_match_data, ngx_mesh_match_context);

    return rc >= 0 || (rc != PCRE2_ERROR_NOMATCH && if_unsure);
}
