// What all kernels share. Before it stand the dtype (T as stored, A as computed in), `Index`, an integer type that
// counts the elements of the largest array, and WIDTH, how many neighbouring channels one thread takes.

template <class E> struct alignas(sizeof(E) * WIDTH) PackOf { E v[WIDTH]; };
typedef PackOf<T> Pack;

template <class E> __device__ __forceinline__ PackOf<E> load(const E *from) { return *(const PackOf<E> *)from; }
template <class E> __device__ __forceinline__ void store(E *to, const PackOf<E> &pack) { *(PackOf<E> *)to = pack; }

__device__ __forceinline__ Index first_item() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ Index all_threads() { return (Index)gridDim.x * blockDim.x; }

// A thread's items in a launch of any size: i, i + threads, i + 2 threads, ... below n.
#define FOR_EACH(i, n) for (Index i = first_item(); i < (n); i += all_threads())

// A sum in blocks of 64 terms: of equal terms every rounding has the same sign, and a running sum would drift.
struct Sum {
  A total = 0, block = 0;
  int terms = 0;
  __device__ __forceinline__ void add(A x) {
    block += x;
    if (++terms == 64) { total += block; block = 0; terms = 0; }
  }
  __device__ __forceinline__ A value() const { return total + block; }
};

__device__ __forceinline__ A infinity() { return (A)__int_as_float(0x7f800000); }
__device__ __forceinline__ A not_a_number() { return (A)__int_as_float(0x7fffffff); }

// The larger of two, nan if one is.
__device__ __forceinline__ A larger(A a, A b) { return a > b || a != a ? a : b; }

// Sum or maximum over the threads of a block, the same for each of them. Every thread of the block must come here.
template <class Combine>
__device__ A of_block(A x, Combine combine, A neutral) {
  __shared__ A parts[32];
  int me = threadIdx.x + blockDim.x * threadIdx.y, warps = (blockDim.x * blockDim.y + 31) / 32;
  for (int mask = 16; mask; mask /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, mask));
  if (warps == 1) return x;
  __syncthreads();  // the last use of `parts` is over
  if (me % 32 == 0) parts[me / 32] = x;
  __syncthreads();
  x = me % 32 < warps ? parts[me % 32] : neutral;
  for (int mask = 16; mask; mask /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}

struct Plus { __device__ A operator()(A a, A b) const { return a + b; } };
struct Larger { __device__ A operator()(A a, A b) const { return larger(a, b); } };
__device__ __forceinline__ A block_sum(A x) { return of_block(x, Plus(), (A)0); }
__device__ __forceinline__ A block_max(A x) { return of_block(x, Larger(), -infinity()); }

// Sum over threadIdx.y, for each threadIdx.x of a block of (columns, 256 / columns) threads; all of them get it.
__device__ A column_sum(A x) {
  __shared__ A parts[256];
  __syncthreads();
  parts[threadIdx.y * blockDim.x + threadIdx.x] = x;
  for (int half = blockDim.y / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.y < half)
      parts[threadIdx.y * blockDim.x + threadIdx.x] += parts[(threadIdx.y + half) * blockDim.x + threadIdx.x];
  }
  __syncthreads();
  return parts[threadIdx.x];
}
