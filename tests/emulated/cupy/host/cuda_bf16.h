// __nv_bfloat16 for g++: only what is stored and loaded is bfloat16; arithmetic is float's.
#pragma once
#include "cuda_emulation.h"

struct __nv_bfloat16 { unsigned short bits; };

static inline float __bfloat162float(__nv_bfloat16 h) { return __uint_as_float((unsigned)h.bits << 16); }

static inline __nv_bfloat16 __float2bfloat16(float x) {  // to the nearest, ties to even
  unsigned bits = __float_as_uint(x);
  if (x != x) return {0x7fff};
  return {(unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

namespace emulated { EMULATED_KIND(__nv_bfloat16, "bf2") }
