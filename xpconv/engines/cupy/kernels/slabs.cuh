// Launches over (rows, columns) in slabs of rows, as `Slabs` in Python shares them out: a block of (across, 256 / across)
// threads takes `across` packs of WIDTH columns of one slab, each thread every (256 / across)th row of it.

enum { AHEAD = WIDTH > 1 ? 4 : 8 };  // rows whose loads are under way at a time

__device__ __forceinline__ Index slab_column() { return ((Index)blockIdx.x * blockDim.x + threadIdx.x) * WIDTH; }
__device__ __forceinline__ Index slab_row(long long slab) { return (Index)(blockIdx.y * slab) + threadIdx.y; }
__device__ __forceinline__ Index slab_end(long long slab, long long rows) {
  return (Index)min(rows, (blockIdx.y + 1) * slab);
}

// Calls take(get(r), r) for every `step`th row r before `end`, with the loads of AHEAD rows issued before their use.
template <class Get, class Take>
__device__ __forceinline__ void walk(Index r, Index end, Index step, Get get, Take take) {
  for (; r + (AHEAD - 1) * step < end; r += AHEAD * step) {
    decltype(get(r)) held[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) held[u] = get(r + u * step);
#pragma unroll
    for (int u = 0; u < AHEAD; u++) take(held[u], r + u * step);
  }
#pragma unroll 1  // to unroll it, too, takes a division
  for (; r < end; r += step) take(get(r), r);
}

// Sums over threadIdx.y, for each threadIdx.x, in blocks of up to THREADS; all threads of a column get them. Every thread of
// the block must come here.
template <int THREADS = 256> __device__ inline Values column_sums(Values x) {
  __shared__ A parts[WIDTH][THREADS];
  int me = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // the last use of `parts` is over
  for (int k = 0; k < WIDTH; k++) parts[k][me] = x.v[k];
  for (int half = blockDim.y / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.y < half)
      for (int k = 0; k < WIDTH; k++) parts[k][me] += parts[k][me + half * blockDim.x];
  }
  __syncthreads();
  for (int k = 0; k < WIDTH; k++) x.v[k] = parts[k][threadIdx.x];
  return x;
}
