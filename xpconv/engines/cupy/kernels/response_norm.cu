// Local response normalisation over the channels of (rows, C): d = k + alpha / size · Σ x² of the neighbours.
//
// Launch: `forward`, one thread for each WIDTH neighbouring channels, in blocks of 256. `gradient`, blocks of 256 threads
// that hold whole rows, `at_once` packs of them, so that each number is read from memory once; what neighbours have of one
// another goes through shared memory. Those called `..._of_five` are for windows of two channels before and behind, whose
// loops leave no conditions.

struct Response {
  long long items;      // packs of channels
  int at_once;          // of them in a block
  int before, after;    // channels of a window, at most a row
  Divider packs;        // of a row
  double share, beta, k, pull;  // alpha / size, and 2 alpha beta / size
};

constexpr int ROOM = 2048, HERE = ROOM / WIDTH, PACKS = HERE / 256;  // numbers and packs of a block, packs of a thread

// For each channel of pack i of a row the sum over those from `before` in front of it to `after` behind it, where get(p) are
// those p packs on. REACH: before and after, where both are known.
template <int REACH, class Get>
__device__ __forceinline__ Values neighbour_sums(const Response &of, int i, int before, int after, Get get) {
  if (REACH) before = after = REACH;
  int last = (after + WIDTH - 1) / WIDTH, packs = (int)of.packs.by;
  Sums sums;
#pragma unroll(REACH ? 8 : 1)
  for (int p = -((before + WIDTH - 1) / WIDTH); p <= last; p++) {
    if (i + p < 0 || i + p >= packs) continue;
    Values there = get(p);
    for (int j = 0; j < WIDTH; j++) {
      for (int k = 0; k < WIDTH; k++) {
        int apart = p * WIDTH + j - k;
        if (apart >= -before && apart <= after) sums.block.v[k] += there.v[j];
      }
      if (!REACH) sums.counted();
    }
  }
  return REACH ? sums.block : sums.values();  // of a few terms one block
}

__device__ __forceinline__ Values squared(const Pack &x) {
  Values squares = widened(x);
  for (int k = 0; k < WIDTH; k++) squares.v[k] *= squares.v[k];
  return squares;
}

// d^-beta of each channel's d, and d itself, from squares that lie p packs on; by roots where beta is 3/4, as it mostly is,
// since a power takes a hundred instructions.
template <int REACH, class Get>
__device__ __forceinline__ Values damping(const Response &of, int i, Values &d, Get get) {
  d = neighbour_sums<REACH>(of, i, of.before, of.after, get);
  for (int k = 0; k < WIDTH; k++) d.v[k] = (A)of.k + (A)of.share * d.v[k];
  Values by;
  if (of.beta == 0.75) {
    for (int k = 0; k < WIDTH; k++) {
      A root = rsqrt(d.v[k]);
      by.v[k] = root > 0 ? root * (root * rsqrt(root)) : root;
    }
    return by;
  }
  for (int k = 0; k < WIDTH; k++) by.v[k] = pow(d.v[k], -(A)of.beta);
  return by;
}

template <int REACH> __device__ __forceinline__ void damp(const T *x, T *y, const Response &of) {
  FOR_EACH(i, of.items) {
    const T *from = x + i * WIDTH;
    Index pack;
    split(i, of.packs, pack);
    Values d, by = damping<REACH>(of, (int)pack, d, [&](int p) { return squared(load(from + p * WIDTH)); });
    Values value = widened(load(from));
    for (int k = 0; k < WIDTH; k++) value.v[k] *= by.v[k];
    store(y + i * WIDTH, narrowed(value));
  }
}

extern "C" __global__ void forward(const T *x, T *y, const Response of) { damp<0>(x, y, of); }
extern "C" __global__ void forward_of_five(const T *x, T *y, const Response of) { damp<2>(x, y, of); }

// dx[c] = dy[c] d[c]^-beta - pull x[c] Σ dy[j] x[j] d[j]^(-beta - 1), over those j in whose windows c is.
template <int REACH> __device__ __forceinline__ void differentiate(const T *x, const T *dy, T *dx, const Response &of) {
  __shared__ Values squares[HERE], taken[HERE];
  for (Index start = (Index)blockIdx.x * of.at_once; start < of.items; start += (Index)gridDim.x * of.at_once) {
    int here = (int)min((long long)of.at_once, of.items - start);
    Waiting<T> held[PACKS], held_back[PACKS];
    Values direct[PACKS];
    Index pack[PACKS];
    auto each = [&](auto take) {
#pragma unroll
      for (int u = 0; u < PACKS; u++)
        if ((int)threadIdx.x + 256 * u < here) take(u, (int)threadIdx.x + 256 * u);
    };
    each([&](int u, int i) {
      held[u] = load_early(x + (start + i) * WIDTH);
      held_back[u] = load_early(dy + (start + i) * WIDTH);
      split((Index)i, of.packs, pack[u]);
    });
    each([&](int u, int i) { squares[i] = squared(held[u]); });
    __syncthreads();
    each([&](int u, int i) {
      Values d, by = damping<REACH>(of, (int)pack[u], d, [&](int p) { return squares[i + p]; });
      Values value = widened(held[u]), back = widened(held_back[u]);
      for (int k = 0; k < WIDTH; k++) {
        direct[u].v[k] = back.v[k] * by.v[k];
        value.v[k] = quotient(direct[u].v[k] * value.v[k], d.v[k]);
      }
      taken[i] = value;
    });
    __syncthreads();  // of the next rows `taken` is written behind a barrier that follows its last use here
    each([&](int u, int i) {
      Values sums = neighbour_sums<REACH>(of, (int)pack[u], of.after, of.before, [&](int p) { return taken[i + p]; });
      Values value = widened(held[u]);
      for (int k = 0; k < WIDTH; k++) value.v[k] = direct[u].v[k] - (A)of.pull * value.v[k] * sums.v[k];
      store(dx + (start + i) * WIDTH, narrowed(value));
    });
  }
}

extern "C" __global__ void gradient(const T *x, const T *dy, T *dx, const Response of) { differentiate<0>(x, dy, dx, of); }
extern "C" __global__ void gradient_of_five(const T *x, const T *dy, T *dx, const Response of) {
  differentiate<2>(x, dy, dx, of);
}
