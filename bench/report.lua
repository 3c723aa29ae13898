-- With VARIED set, no two requests are the same: each agent of a farm says something else about itself.
if os.getenv("VARIED") then
  local number, agent = 0, nil
  request = function()
    agent = agent or wrk.headers["User-Agent"]
    number = number + 1
    wrk.headers["User-Agent"] = agent .. " " .. number
    return wrk.format()
  end
end

-- Prints what one run of wrk measured as one line of JSON.  Latencies are microseconds.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "bytes": %d, "duration": %d, "p50": %d, "p99": %d, "max": %d, "errors": %d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
