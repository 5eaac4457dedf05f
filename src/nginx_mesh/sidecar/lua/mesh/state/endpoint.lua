-- Compares endpoints of the state. Pure.

local pairs = pairs

local _M = {}


-- Whether two entries for the same address are of the same endpoint: the same identity, spoken to in the same way, and
-- with the same labels.
function _M.is_same(a, b)
    if a.tls ~= b.tls or a.spiffe_id ~= b.spiffe_id then
        return false
    end

    local a_labels, b_labels = a.labels or {}, b.labels or {}

    for label, value in pairs(a_labels) do
        if b_labels[label] ~= value then
            return false
        end
    end

    for label in pairs(b_labels) do
        if a_labels[label] == nil then
            return false
        end
    end

    return true
end


return _M
