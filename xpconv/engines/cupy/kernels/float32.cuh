// What is stored as float32 is computed in float32.
typedef float T;
typedef float A;
__device__ __forceinline__ A wide(T x) { return x; }
__device__ __forceinline__ T narrow(A x) { return x; }
