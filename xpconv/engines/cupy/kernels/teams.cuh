// Launches over rows of n numbers: a block of (team, threads / team) threads has a row for each team, a power of two of
// neighbouring threads. A thread keeps up to HELD packs of its row in registers, all of them loaded at once, so that
// a row is read from memory once; what lies beyond, in rows longer than MOST_THREADS hold, is read again. Its kernels have
// __launch_bounds__: a thread that keeps a row takes up to 128 registers, of which a block of more threads could have none.

enum { HELD = WIDTH > 1 ? 4 : 8, MOST_THREADS = 512 };

template <class E> struct Held { Waiting<E> v[HELD]; };

// The first row of each block's next teams; all of its threads come along, those beyond the last row with no packs.
#define FOR_EACH_TEAM(first, rows) \
  for (Index first = (Index)blockIdx.x * blockDim.y; first < (rows); first += (Index)gridDim.x * blockDim.y)

__device__ __forceinline__ bool in_row(int p, Index packs) { return threadIdx.x + (Index)p * blockDim.x < packs; }

template <class E> __device__ __forceinline__ Held<E> hold(const E *row, Index packs) {
  Held<E> held;
#pragma unroll
  for (int p = 0; p < HELD; p++)
    if (in_row(p, packs)) held.v[p] = load_early(row + (threadIdx.x + (Index)p * blockDim.x) * WIDTH);
  return held;
}

// Calls take(p, at) for each pack that is held, and then(at) for each that is not; `at` counts numbers from the row's first.
template <class Take> __device__ __forceinline__ void each_held(Index packs, Take take) {
#pragma unroll
  for (int p = 0; p < HELD; p++)
    if (in_row(p, packs)) take(p, (threadIdx.x + (Index)p * blockDim.x) * WIDTH);
}
template <class Take, class Then>
__device__ __forceinline__ void each_pack(Index packs, Take take, Then then) {
  each_held(packs, take);
#pragma unroll 1  // to unroll it, too, takes a division
  for (Index j = threadIdx.x + (Index)HELD * blockDim.x; j < packs; j += blockDim.x) then(j * WIDTH);
}

// Sum or maximum over a team, the same for each of its threads. Every thread of the block must come here.
template <class Combine> __device__ inline A of_team(A x, Combine combine) {
  __shared__ A parts[32];
  int me = threadIdx.y * blockDim.x + threadIdx.x, warps = blockDim.x / 32;
  for (int mask = min((int)blockDim.x, 32) / 2; mask; mask /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, mask));
  if (warps <= 1) return x;
  __syncthreads();  // the last use of `parts` is over
  if (me % 32 == 0) parts[me / 32] = x;
  __syncthreads();
  x = parts[(me / 32 & -warps) + (me & (warps - 1))];  // of the team's own warps, whose number is a power of two
  for (int mask = warps / 2; mask; mask /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}

struct Plus { __device__ A operator()(A a, A b) const { return a + b; } };
struct Larger { __device__ A operator()(A a, A b) const { return larger(a, b); } };
__device__ __forceinline__ A team_sum(A x) { return of_team(x, Plus()); }
__device__ __forceinline__ A team_max(A x) { return of_team(x, Larger()); }
