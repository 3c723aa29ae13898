-- Prints what one run of wrk measured as one line of JSON.  Latencies are microseconds.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "bytes": %d, "duration": %d, "p50": %d, "p99": %d, "max": %d, "errors": %d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
