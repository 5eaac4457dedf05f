-- Puts destinations, and the clusters and endpoints that these name, into the C module.

local ffi = require "ffi"
local convert = require "mesh.native.convert"
local values = require "mesh.values"

local C = ffi.C
local check = convert.check

local _M = {}


-- `destination` is the entry of the state, with its service filled in.
function _M.put_destination(address, destination)
    local cluster, service = destination.cluster, destination.service

    check(C.ngx_mesh_ffi_destination_put(address, #address, values.PROTOCOL_BITS[destination.protocol],
                                         cluster, #cluster, service, #service))
end


function _M.delete_destination(address)
    C.ngx_mesh_ffi_destination_delete(address, #address)
end


function _M.put_cluster(name, lb_method)
    check(C.ngx_mesh_ffi_cluster_put(name, #name, values.LB_METHODS[lb_method]))
end


function _M.delete_cluster(name)
    C.ngx_mesh_ffi_cluster_delete(name, #name)
end


-- `endpoint` is as in the state.
function _M.put_endpoint(cluster, address, endpoint)
    local spiffe_id = endpoint.spiffe_id or ""

    check(C.ngx_mesh_ffi_endpoint_put(cluster, #cluster, address, #address, endpoint.tls and 1 or 0,
                                      spiffe_id, #spiffe_id))
end


-- Requests to the endpoint that are still under way are counted under `labels`.
function _M.delete_endpoint(cluster, address, labels)
    C.ngx_mesh_ffi_endpoint_delete(cluster, #cluster, address, #address, labels, #labels)
end


-- Milliseconds for which an endpoint of a cluster in use is passed over, as it failed.
function _M.endpoint_down(cluster, address)
    return tonumber(C.ngx_mesh_ffi_endpoint_down(cluster, #cluster, address, #address))
end


return _M
