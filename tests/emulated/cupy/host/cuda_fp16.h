// __half for g++: only what is stored and loaded is half; arithmetic is float's.
#pragma once
#include "cuda_emulation.h"

struct __half { unsigned short bits; };

static inline float __half2float(__half h) {
  unsigned sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  float size = exponent ? ldexpf(1024 + fraction, (int)exponent - 25) : ldexpf(fraction, -24);
  return sign ? -size : size;
}

static inline __half __float2half(float x) {  // to the nearest, ties to even
  unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u;
  float size = fabsf(x);
  if (x != x) return {(unsigned short)(sign | 0x7fff)};
  if (size >= 65520.0f) return {(unsigned short)(sign | 0x7c00)};
  if (size < 6.103515625e-05f) return {(unsigned short)(sign | (unsigned)rintf(size * 16777216.0f))};
  int exponent;
  frexpf(size, &exponent);
  unsigned fraction = (unsigned)rintf(ldexpf(size, 11 - exponent));  // 1024..2048: a carry falls into the exponent
  return {(unsigned short)(sign | ((unsigned)(exponent + 13) << 10) + fraction)};
}

namespace emulated { EMULATED_KIND(__half, "f2") }
