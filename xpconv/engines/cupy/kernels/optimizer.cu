// Optimizer updates of up to MOST parameters in one launch, in place: values, and what is kept for each.
//
// Launch: a block of 256 threads takes CHUNK neighbouring elements of one parameter, eight for each thread in packs of
// WIDTH, which are all loaded before the first is used (and before Adam's powers are computed, which take a while). Blocks
// are numbered through all parameters; each finds its own by bisection.
// What differs between parameters comes by value, as an argument: no table is copied to the device first, and a captured
// launch keeps it. The rate and the step count lie on the device where a graph is to read them anew at each replay.
//
// Where gradients are clipped by their norm, `squares` goes before with the same grid, and each of its blocks leaves the sum
// of its squares, in double precision; then `share`, one block of 256 threads, adds up what all these have left (of 25
// million gradients 48 numbers a thread), and leaves what counts of each gradient, which updates multiply by as they read.
// The order of every sum depends on the sizes alone.
//
// Compiled without contraction into fused multiply-adds: every product and sum rounds as in the formulas of `train`.

const int MOST = 64, CHUNK = 2048, PACKS = CHUNK / 256 / WIDTH;

struct Update {
  T *value[MOST];
  const T *grad[MOST];
  A *first[MOST], *second[MOST];
  long long size[MOST];
  double before[MOST];  // steps that were taken before a parameter's first
  const double *rate_at, *steps_at, *share_at;
  double rate, steps;
  int block[MOST];  // each parameter's first
  int count;
};

__device__ __forceinline__ double rate_of(const Update &u) { return u.rate_at ? *u.rate_at : u.rate; }
__device__ __forceinline__ double steps_of(const Update &u) { return u.steps_at ? *u.steps_at : u.steps; }

// What counts of each gradient.
__device__ __forceinline__ A share_of(const Update &u) { return u.share_at ? (A)*u.share_at : (A)1; }

// The parameter that this block works on: the last whose first block is not beyond it.
__device__ __forceinline__ int parameter(const Update &u) {
  int low = 0, high = u.count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (u.block[middle] <= (int)blockIdx.x) low = middle; else high = middle;
  }
  return low;
}

// A pack of a parameter, of which the last may be short.
template <class E> __device__ __forceinline__ PackOf<E> load_some(const E *from, long long e, long long size) {
  PackOf<E> pack;
  if (e + WIDTH <= size) pack = load(from + e);
  else
    for (int k = 0; k < WIDTH; k++)
      if (e + k < size) pack.v[k] = from[e + k];
  return pack;
}
template <class E> __device__ __forceinline__ void store_some(E *to, long long e, long long size, const PackOf<E> &pack) {
  if (e + WIDTH <= size) store(to + e, pack);
  else
    for (int k = 0; k < WIDTH; k++)
      if (e + k < size) to[e + k] = pack.v[k];
}

// The sum over a block's 256 threads, by halves; thread 0 gets it.
static __device__ double block_sum(double x) {
  __shared__ double parts[256];
  parts[threadIdx.x] = x;
  for (int half = 128; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  return parts[0];
}

// Where a thread's elements begin in its parameter.
__device__ __forceinline__ long long first_of(const Update &u, int i) {
  return (long long)((int)blockIdx.x - u.block[i]) * CHUNK + threadIdx.x * WIDTH;
}

// parts[block] = the sum of squared gradients
extern "C" __global__ void squares(const Update u, double *parts) {
  int i = parameter(u);
  long long first = first_of(u, i);
  Pack g[PACKS];
#pragma unroll
  for (int j = 0; j < PACKS; j++) g[j] = load_some(u.grad[i], first + j * (256 * WIDTH), u.size[i]);
  double sum = 0;
#pragma unroll
  for (int j = 0; j < PACKS; j++)
    for (int k = 0; k < WIDTH; k++)
      if (first + j * (256 * WIDTH) + k < u.size[i]) {
        double x = wide(g[j].v[k]);
        sum += x * x;
      }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// share = min(1, most / (norm + beside)), nan if the norm is
extern "C" __global__ void share(const double *parts, double *result, long long count, double most, double beside) {
  double sum = 0;
  walk(
      (Index)threadIdx.x, (Index)count, 256, [&](Index i) { return parts[i]; },
      [&](double part, Index) { sum += part; });
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    double part = most / (sqrt(sum) + beside);
    *result = part > 1 ? 1 : part;
  }
}

// This thread's part of a parameter.
struct Part {
  long long first, size;
  Pack p[PACKS], g[PACKS];
  Values m[PACKS], v[PACKS];
  __device__ __forceinline__ long long at(int j) const { return first + j * (256 * WIDTH); }
  __device__ __forceinline__ Part(const Update &u, int i, bool has_first, bool has_second) {
    size = u.size[i];
    first = first_of(u, i);
#pragma unroll
    for (int j = 0; j < PACKS; j++) {
      p[j] = load_some(u.value[i], at(j), size);
      g[j] = load_some(u.grad[i], at(j), size);
      if (has_first) m[j] = load_some(u.first[i], at(j), size);
      if (has_second) v[j] = load_some(u.second[i], at(j), size);
    }
  }
};

// g += weight_decay p;  v = momentum v + g;  p -= rate v, or with Nesterov's form rate (g + momentum v)
extern "C" __global__ void sgd(const Update u, double momentum, int nesterov, double weight_decay) {
  int i = parameter(u);
  Part part(u, i, momentum != 0, false);
  A rate = (A)rate_of(u), share = share_of(u), decay = (A)weight_decay, keep = (A)momentum;
#pragma unroll
  for (int j = 0; j < PACKS; j++) {
    for (int k = 0; k < WIDTH; k++) {
      A p = wide(part.p[j].v[k]), g = wide(part.g[j].v[k]) * share;
      if (weight_decay != 0) g = g + decay * p;
      if (momentum != 0) {
        A v = part.m[j].v[k] * keep + g;
        part.m[j].v[k] = v;
        g = nesterov ? g + keep * v : v;
      }
      part.p[j].v[k] = narrow(p - rate * g);
    }
    if (momentum != 0) store_some(u.first[i], part.at(j), part.size, part.m[j]);
    store_some(u.value[i], part.at(j), part.size, part.p[j]);
  }
}

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;  p -= rate / (1 - b1^t) m / (√v / √(1 - b2^t) + eps)
extern "C" __global__ void adam(const Update u, double beta1, double beta2, double eps, double weight_decay,
                                int decoupled) {
  __shared__ A of_step[3];
  int i = parameter(u);
  Part part(u, i, true, true);
  if (threadIdx.x == 0) {
    double rate = rate_of(u), t = steps_of(u) - u.before[i];
    of_step[0] = (A)(rate / (1 - pow(beta1, t)));
    of_step[1] = (A)sqrt(1 - pow(beta2, t));
    of_step[2] = (A)(rate * weight_decay);
  }
  __syncthreads();
  A rate = of_step[0], share = share_of(u), root_of_share = of_step[1], shrink = of_step[2], decay = (A)weight_decay;
  A keep1 = (A)beta1, keep2 = (A)beta2, take1 = (A)(1 - beta1), take2 = (A)(1 - beta2), small = (A)eps;
#pragma unroll
  for (int j = 0; j < PACKS; j++) {
    for (int k = 0; k < WIDTH; k++) {
      A p = wide(part.p[j].v[k]), g = wide(part.g[j].v[k]) * share;
      if (weight_decay != 0 && !decoupled) g = g + decay * p;
      A m = part.m[j].v[k] * keep1 + take1 * g;
      A v = part.v[j].v[k] * keep2 + take2 * g * g;
      part.m[j].v[k] = m;
      part.v[j].v[k] = v;
      A change = rate * m / (sqrt(v) / root_of_share + small);
      if (decoupled) change = shrink * p + change;
      part.p[j].v[k] = narrow(p - change);
    }
    store_some(u.first[i], part.at(j), part.size, part.m[j]);
    store_some(u.second[i], part.at(j), part.size, part.v[j]);
    store_some(u.value[i], part.at(j), part.size, part.p[j]);
  }
}
