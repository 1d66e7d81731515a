// What is stored as float16 is computed in float32, and rounded once.
#include <cuda_fp16.h>
typedef __half T;
typedef float A;
__device__ __forceinline__ A wide(T x) { return __half2float(x); }
__device__ __forceinline__ T narrow(A x) { return __float2half(x); }
