-- A part of Redis' `struct` library for fakeredis, which has none: the little-endian formats d, i and I, and H to read.
local struct = {}

local function pack_bytes(number, size)
  local bytes = {}
  for i = 1, size do
    bytes[i] = number % 256
    number = math.floor(number / 256)
  end
  return string.char(unpack(bytes))
end

local function pack_double(number)
  local sign = (number < 0 or number == 0 and 1 / number < 0) and 1 or 0
  if number ~= number then
    return '\0\0\0\0\0\0\248\127'
  end
  local mantissa, exponent = math.frexp(math.abs(number))
  local low, high
  if number == 0 then
    low, high = 0, 0
  elseif mantissa == math.huge then
    low, high = 0, 2047 * 2 ^ 20
  else
    exponent = exponent + 1022
    mantissa = exponent > 0 and (mantissa * 2 - 1) * 2 ^ 52 or math.ldexp(mantissa, 52 + exponent)
    exponent = math.max(exponent, 0)
    low = mantissa % 2 ^ 32
    high = exponent * 2 ^ 20 + math.floor(mantissa / 2 ^ 32)
  end
  return pack_bytes(low, 4) .. pack_bytes(high + sign * 2 ^ 31, 4)
end

local function unpack_unsigned(bytes, position)
  local a, b, c, d = bytes:byte(position, position + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end

local function unpack_double(bytes, position)
  local low, high = unpack_unsigned(bytes, position), unpack_unsigned(bytes, position + 4)
  local sign = high >= 2 ^ 31 and -1 or 1
  high = high % 2 ^ 31
  local exponent, mantissa = math.floor(high / 2 ^ 20), (high % 2 ^ 20) * 2 ^ 32 + low
  if exponent == 2047 then
    return mantissa == 0 and sign * math.huge or 0 / 0
  elseif exponent == 0 then
    return sign * math.ldexp(mantissa, -1074)
  end
  return sign * math.ldexp(1 + mantissa / 2 ^ 52, exponent - 1023)
end

function struct.pack(format, ...)
  local packed, place = {}, 0
  for kind in format:gmatch('[dIi]') do
    place = place + 1
    local number = select(place, ...)
    packed[place] = kind == 'd' and pack_double(number) or pack_bytes(number % 2 ^ 32, 4)
  end
  return table.concat(packed)
end

function struct.unpack(format, bytes, position)
  local values, place = {}, 0
  position = position or 1
  for kind in format:gmatch('[dIiH]') do
    place = place + 1
    if kind == 'd' then
      values[place], position = unpack_double(bytes, position), position + 8
    elseif kind == 'H' then
      local low, high = bytes:byte(position, position + 1)
      values[place], position = low + high * 256, position + 2
    else
      local number = unpack_unsigned(bytes, position)
      values[place], position = kind == 'i' and number >= 2 ^ 31 and number - 2 ^ 32 or number, position + 4
    end
  end
  values[place + 1] = position
  return unpack(values)
end

return struct
