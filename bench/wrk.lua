-- The script for wrk: it repeats one request, and prints the results as one line of JSON.
-- Arguments: method, path, a file with the body, then the name and the value of each header.

function init(arguments)
  wrk.method, wrk.path = arguments[1], arguments[2]
  local file = assert(io.open(arguments[3], "rb"))
  local body = file:read("*a")
  file:close()
  if #body > 0 then
    wrk.body = body
  end
  for index = 4, #arguments, 2 do
    wrk.headers[arguments[index]] = arguments[index + 1]
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"errors":%d,"lost":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
