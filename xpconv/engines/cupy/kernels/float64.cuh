// What is stored as float64 is computed in float64.
typedef double T;
typedef double A;
__device__ __forceinline__ A wide(T x) { return x; }
__device__ __forceinline__ T narrow(A x) { return x; }
