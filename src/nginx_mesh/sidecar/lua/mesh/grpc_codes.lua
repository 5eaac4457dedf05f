-- HTTP status of a refusal -> gRPC status code (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).

return {
    [400] = 16,                         -- UNAUTHENTICATED
    [403] = 7,                          -- PERMISSION_DENIED
    [413] = 8,                          -- RESOURCE_EXHAUSTED
    [503] = 14,                         -- UNAVAILABLE
}
