// What is stored as bfloat16 is computed in float32, and rounded once.
#include <cuda_bf16.h>
typedef __nv_bfloat16 T;
typedef float A;
__device__ __forceinline__ A wide(T x) { return __bfloat162float(x); }
__device__ __forceinline__ T narrow(A x) { return __float2bfloat16(x); }
