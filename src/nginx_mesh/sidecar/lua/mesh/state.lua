-- Sidecar state: kept as JSON in shared memory, so that it outlives a worker; decoded when it is first needed.
--
-- Keys of the dictionary: the state's own; "@version", its version; "@sequence", counting updates;
-- "@touched:<sequence>", the keys that an update touched, by which the other workers follow; "@seen:<worker>", how far
-- a worker has followed.

local cjson = require "cjson"
local engine = require "mesh.engine"
local schema = require "mesh.schema"

local dict = ngx.shared.mesh_state
local pairs, ipairs = pairs, ipairs

-- Other workers follow an update within a second or load everything anew.
local FOLLOW_INTERVAL = 0.05
local TOUCHED_TTL = 60

local _M = {}

-- What this worker has decoded. Clusters that TCP uses are loaded at once: no Lua runs for a TCP connection. With a
-- cluster come its service's split and breaker, and the clusters that these name: the module can decide alone.
local settings
local spiffe_id
local inbound = {}
local destinations = {}
local clusters = {}
local probes = {}
local eager = {}
local used = {}                                         -- services whose split and breaker are in the module's tables
local breakers = {}
local limits = {}                                       -- port -> list of limits
local sequence = 0
local before_changes = function() end
local metric_labels = function() return "" end
local announced = false                                 -- the changes at hand were
local load_cluster


local function announce()
    if not announced then
        before_changes()
    end
end


-- What a split or a breaker names is there when it is needed.
local function keep(name)
    eager[name] = true

    if not clusters[name] then
        load_cluster(name)
    end
end


local function load_split(service)
    local raw = dict:get("split/" .. service)

    if not raw then
        engine.split_delete(service)
        return
    end

    local split = cjson.decode(raw)

    for _, backend in ipairs(split.backends) do
        keep(backend.cluster)
    end

    engine.split_put(service, split)
end


local function load_breaker(service)
    local raw = dict:get("breaker/" .. service)

    if breakers[service] then
        announce()
        breakers[service] = nil
    end

    if not raw then
        engine.breaker_delete(service)
        return
    end

    local new = cjson.decode(raw)
    local fallback = new.fallback or ""

    if fallback ~= "" then
        keep(fallback)
    end

    engine.breaker_put(service, new.errors, new.timeout_ms, fallback)
    breakers[service] = new
end


local function use(service)
    if not used[service] then
        used[service] = true
        load_split(service)
        load_breaker(service)
    end
end


-- Whether what stands at an endpoint's address now is somebody else.
local function is_another(old, new)
    if old.tls ~= new.tls or old.spiffe_id ~= new.spiffe_id then
        return true
    end

    local before, after = old.labels or {}, new.labels or {}

    for label, value in pairs(before) do
        if after[label] ~= value then
            return true
        end
    end

    for label in pairs(after) do
        if before[label] == nil then
            return true
        end
    end

    return false
end


function load_cluster(name)
    local raw = dict:get("cluster/" .. name)
    local old = clusters[name]

    if old then
        announce()
    end

    local new = raw and cjson.decode(raw) or nil

    for address, e in pairs(old and old.endpoints or {}) do
        if not new or not new.endpoints[address] or is_another(e, new.endpoints[address]) then
            engine.endpoint_delete(name, address, metric_labels(name, address, e))
        end
    end

    if not new then
        clusters[name] = nil
        engine.cluster_delete(name)
        return nil
    end

    engine.cluster_put(name, new.lb_method)

    for address, e in pairs(new.endpoints) do
        engine.endpoint_put(name, address, e.tls, e.spiffe_id or "")
    end

    clusters[name] = new
    use(name)

    return new
end


local function decode_destination(raw)
    local d = cjson.decode(raw)

    if not d.service or d.service == "" then
        d.service = d.cluster
    end

    return d
end


-- Puts all that calling a destination needs into the module's tables. nil: the state lacks its cluster.
local function load(d)
    use(d.service)

    return clusters[d.cluster] or load_cluster(d.cluster)
end


local FOLLOW = {
    settings = function(_, raw)
        settings = raw and cjson.decode(raw)

        if settings then
            engine.settings(settings.mtls_mode, settings.log_format, settings.log_level, settings.client_max_body_size)
            engine.tracing(tonumber(settings.sampler_ratio))
        end
    end,

    identity = function(_, raw)
        if raw then
            local identity = cjson.decode(raw)
            local err = engine.identity(identity)

            if err then
                error("identity: " .. err)
            end

            spiffe_id = identity.spiffe_id
        else
            engine.identity_clear()
            spiffe_id = nil
        end
    end,

    inbound = function(name, raw)
        local port = tonumber(name)
        local new = raw and cjson.decode(raw) or nil
        local bits = 0

        for _, protocol in ipairs(new and new.protocols or {}) do
            bits = bit.bor(bits, protocol == "tcp" and engine.PROTOCOL_TCP or engine.PROTOCOL_HTTP)
        end

        engine.inbound(port, bits, new and type(new.grants) == "table" and new.grants or nil, new and new.limits or {})
        inbound[port] = new ~= nil
        limits[port] = new and new.limits
    end,

    destination = function(name, raw)
        destinations[name] = nil

        if not raw then
            engine.destination_delete(name)
            return
        end

        local d = decode_destination(raw)
        local tcp = d.protocol == "tcp"

        engine.destination_put(name, tcp and engine.PROTOCOL_TCP or engine.PROTOCOL_HTTP, d.cluster, d.service)

        if tcp then
            eager[d.cluster] = true
        end

        if tcp or clusters[d.cluster] then
            load(d)
        end
    end,

    cluster = function(name)
        if clusters[name] or eager[name] then
            load_cluster(name)
        end
    end,

    split = function(service)
        if used[service] then
            load_split(service)
        end
    end,

    breaker = function(service)
        if used[service] then
            load_breaker(service)
        end
    end,

    probe = function(name)
        probes[name] = nil
    end,
}


local function follow(key)
    local kind, name = schema.split(key)
    FOLLOW[kind](name, dict:get(key))
end


local function load_all()
    sequence = dict:get("@sequence") or 0

    for _, key in ipairs(dict:get_keys(0)) do
        if key:byte() ~= 64 then                        -- "@"
            follow(key)
        end
    end
end


-- Follows what another worker stored.
local function catch_up(premature)
    local newest = not premature and dict:get("@sequence") or sequence

    while sequence < newest do
        local touched = dict:get("@touched:" .. (sequence + 1))

        if not touched then
            load_all()
            break
        end

        for _, key in ipairs(cjson.decode(touched)) do
            follow(key)
        end

        sequence = sequence + 1
    end

    dict:safe_set("@seen:" .. ngx.worker.id(), sequence)
end


-- In each worker's start, also after a crash of its predecessor.
function _M.start()
    -- Numbers are changed in place: these never need memory again.
    dict:safe_add("@sequence", 0)
    dict:safe_add("@version", 0)

    load_all()

    if ngx.worker.count() > 1 then
        catch_up()
        assert(ngx.timer.every(FOLLOW_INTERVAL, catch_up))
    end
end


local function wait_for_workers()
    if ngx.worker.count() == 1 then
        return true
    end

    for _ = 1, 100 do
        local behind = false

        for id = 0, ngx.worker.count() - 1 do
            behind = behind or (dict:get("@seen:" .. id) or 0) < sequence
        end

        if not behind then
            return true
        end

        ngx.sleep(FOLLOW_INTERVAL)
    end

    return false
end


function _M.version()
    return dict:get("@version") or 0
end


local function refuse(key, reason)
    return 400, { error = reason, key = key }
end


-- The changes of an update as key -> JSON or false; or nil, the key and the reason.
local function plan(update)
    local changes = {}
    local set = update.set or {}

    for key, value in pairs(set) do
        local reason = schema.check_entry(key, value)
        if reason then
            return nil, key, reason
        end
    end

    for _, key in ipairs(update.delete or {}) do
        local reason = schema.check_key(key)
        if reason then
            return nil, key, reason
        end

        changes[key] = false
    end

    if changes.settings == false and not set.settings then
        return nil, "settings", "no state is without them"
    end

    if update.base == cjson.null then
        if not set.settings then
            return nil, "settings", "a full state needs it"
        end

        for _, key in ipairs(dict:get_keys(0)) do
            if key:byte() ~= 64 and set[key] == nil then
                changes[key] = false
            end
        end
    end

    for name, patch in pairs(update.endpoints or {}) do
        local key = "cluster/" .. name
        local cluster = set[key]

        if not cluster then
            local raw = changes[key] == nil and dict:get(key)
            if not raw then
                return nil, key, "endpoints of a cluster that the state does not have"
            end

            cluster = cjson.decode(raw)
            set[key] = cluster
        end

        for address, endpoint in pairs(patch) do
            cluster.endpoints[address] = endpoint ~= cjson.null and endpoint or nil
        end
    end

    -- What is as it was is left alone; but not where nobody knows how far an update that failed has come.
    local sure = _M.version() ~= 0

    for key, value in pairs(set) do
        local raw = cjson.encode(value)
        changes[key] = not (sure and raw == dict:get(key)) and raw or nil
    end

    return changes
end


-- What runs may not be what the control plane believes: it is told so, and sends the whole state.
local function disown(why)
    ngx.log(ngx.ERR, "the state is in doubt: ", why)
    dict:safe_set("@version", 0)
end


-- Makes room first: memory that the old entries had may be what the new ones need, and the other way round.
local function put_all(entries)
    for key in pairs(entries) do
        dict:delete(key)
    end

    for key, raw in pairs(entries) do
        local ok, err

        if raw then
            -- not set(), which would make room by dropping other entries
            ok, err = dict:safe_set(key, raw)
        else
            ok = true
        end

        if not ok then
            return nil, err
        end
    end

    return true
end


-- Stores all changes, or none when memory is short.
local function store(changes)
    local before = {}

    for key in pairs(changes) do
        before[key] = dict:get(key) or false
    end

    local ok, err = put_all(changes)

    if not ok then
        local restored, why = put_all(before)

        if not restored then
            disown(why)
        end
    end

    return ok, err
end


local function follow_all(changes)
    local touched = {}

    announce()
    announced = true

    for key in pairs(changes) do
        touched[#touched + 1] = key
        follow(key)
    end

    return touched
end


-- Applies an update (protocol/state.py: Update). HTTP status and answer.
function _M.apply(update)
    local reason = schema.check_update(update)
    if reason then
        return refuse(nil, "update " .. reason)
    end

    if update.base ~= cjson.null and update.base ~= _M.version() then
        return 409, { version = _M.version() }
    end

    local changes, key
    changes, key, reason = plan(update)
    if not changes then
        return refuse(key, reason)
    end

    -- The identity comes first: whether it holds together only shows when it is used.
    local identity = update.set and update.set.identity
    if identity then
        reason = engine.identity(identity)
        if reason then
            return refuse("identity", reason)
        end
    end

    local ok, err = store(changes)
    if not ok then
        return 507, { error = "the state does not fit: " .. err }
    end

    local followed, touched = pcall(follow_all, changes)
    announced = false

    if not followed then
        disown(touched)
        return 500, { error = tostring(touched) }
    end

    sequence = sequence + 1

    if ngx.worker.count() > 1 then
        dict:safe_set("@touched:" .. sequence, cjson.encode(touched), TOUCHED_TTL)
        dict:safe_set("@seen:" .. ngx.worker.id(), sequence)
    end

    dict:safe_set("@sequence", sequence)
    dict:safe_set("@version", update.version)

    if not wait_for_workers() then
        return 503, { error = "a worker does not follow" }
    end

    return 200, { version = update.version }
end


-- `handler` is called while a cluster or breaker that this worker uses is still what it was. `labels` makes those of
-- metrics of an endpoint that goes, of its cluster, its address and what was known of it.
function _M.before_changes(handler, labels)
    before_changes = handler
    metric_labels = labels
end


function _M.settings()
    return settings
end


function _M.spiffe_id()
    return spiffe_id
end


-- Whether a container declares the port.
function _M.inbound(port)
    return inbound[port]
end


function _M.destination(address)
    local d = destinations[address]

    if not d then
        local raw = dict:get("destination/" .. address)

        if raw then
            d = decode_destination(raw)
            destinations[address] = d
        end
    end

    return d
end


_M.load = load


-- Of the services in use, by the service's name.
function _M.breakers()
    return breakers
end


-- An entry of the state as it came, whether or not it is in use; nil: there is none.
function _M.entry(key)
    local raw = dict:get(key)

    return raw and cjson.decode(raw)
end


-- What the state has of a cluster or a breaker, without taking it into use.
function _M.peek(name)
    local raw = not clusters[name] and dict:get("cluster/" .. name)

    return clusters[name] or (raw and cjson.decode(raw)) or nil
end


function _M.peek_breaker(service)
    local raw = dict:get("breaker/" .. service)

    return raw and cjson.decode(raw) or nil
end


-- Names of the RateLimits in force, as keys.
function _M.ratelimits()
    local names = {}

    for _, list in pairs(limits) do
        for _, limit in ipairs(list) do
            names[engine.ratelimit_name(limit.name)] = true
        end
    end

    return names
end


function _M.probe(path)
    local p = probes[path]

    if not p then
        local raw = dict:get("probe/" .. path)

        if raw then
            p = cjson.decode(raw)
            probes[path] = p
        end
    end

    return p
end


return _M
