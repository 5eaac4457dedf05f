-- Keeps the workers of a sidecar in step. One worker takes an update and counts it; the others follow it within a
-- second, or load everything anew.
--
-- Keys of the dictionary: "@sequence" counts updates; "@touched:<sequence>" has the keys that an update touched;
-- "@seen:<worker>" says how far a worker has followed.

local cjson = require "cjson"

local dict = ngx.shared.mesh_state

local FOLLOW_INTERVAL = 0.05                            -- seconds
local TOUCHED_TTL = 60                                  -- seconds
local WAITS = 100                                       -- for the other workers, each of FOLLOW_INTERVAL

local _M = {}

local sequence = 0                                      -- of the last update that this worker has followed
local load_all, load_keys


local function load_everything()
    sequence = dict:get("@sequence") or 0
    load_all()
end


local function catch_up(premature)
    local newest = not premature and dict:get("@sequence") or sequence

    while sequence < newest do
        local touched = dict:get("@touched:" .. (sequence + 1))

        if not touched then
            load_everything()
            break
        end

        load_keys(cjson.decode(touched))
        sequence = sequence + 1
    end

    dict:safe_set("@seen:" .. ngx.worker.id(), sequence)
end


-- In each worker's start, also after a crash of its predecessor. `all()` loads the whole state, `keys(list)` the
-- entries that an update touched.
function _M.start(all, keys)
    load_all, load_keys = all, keys

    -- A number is changed in place, so this one never needs memory again.
    dict:safe_add("@sequence", 0)
    load_everything()

    if ngx.worker.count() > 1 then
        catch_up()
        assert(ngx.timer.every(FOLLOW_INTERVAL, catch_up))
    end
end


-- Tells the other workers of an update that this one has stored and loaded.
function _M.publish(touched)
    sequence = sequence + 1

    if ngx.worker.count() > 1 then
        dict:safe_set("@touched:" .. sequence, cjson.encode(touched), TOUCHED_TTL)
        dict:safe_set("@seen:" .. ngx.worker.id(), sequence)
    end

    dict:safe_set("@sequence", sequence)
end


local function all_have_followed()
    for id = 0, ngx.worker.count() - 1 do
        if (dict:get("@seen:" .. id) or 0) < sequence then
            return false
        end
    end

    return true
end


-- Waits until every worker has followed what was published. Returns whether they have.
function _M.wait()
    if ngx.worker.count() == 1 then
        return true
    end

    for _ = 1, WAITS do
        if all_have_followed() then
            return true
        end

        ngx.sleep(FOLLOW_INTERVAL)
    end

    return false
end


return _M
