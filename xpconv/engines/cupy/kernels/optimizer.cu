// Optimizer updates of up to MOST parameters in one launch, in place: values, and what is kept for each.
//
// Launch: a block of 256 threads takes CHUNK neighbouring elements of one parameter, eight for each thread, so that
// enough loads are under way for the memory. Blocks are numbered through all parameters; each finds its own by bisection.
// What differs between parameters comes by value, as an argument: no table is copied to the device first, and a captured
// launch keeps it. The rate and the step count lie on the device where a graph is to read them anew at each replay.
//
// Compiled without contraction into fused multiply-adds: every product and sum rounds as in the formulas of `train`.

const int MOST = 64, CHUNK = 2048;

struct Update {
  T *value[MOST];
  const T *grad[MOST];
  A *first[MOST], *second[MOST];
  long long size[MOST];
  double before[MOST];  // steps that were taken before a parameter's first
  const double *rate_at, *steps_at;
  double rate, steps;
  int block[MOST];  // each parameter's first
  int count;
};

__device__ __forceinline__ double rate_of(const Update &u) { return u.rate_at ? *u.rate_at : u.rate; }
__device__ __forceinline__ double steps_of(const Update &u) { return u.steps_at ? *u.steps_at : u.steps; }

// The parameter that this block works on: the last whose first block is not beyond it.
__device__ __forceinline__ int parameter(const Update &u) {
  int low = 0, high = u.count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (u.block[middle] <= (int)blockIdx.x) low = middle; else high = middle;
  }
  return low;
}

#define FOR_EACH_ELEMENT(e, u, i)                                                     \
  long long start = (long long)((int)blockIdx.x - u.block[i]) * CHUNK;                \
  _Pragma("unroll")                                                                   \
  for (long long e = start + threadIdx.x; e < start + CHUNK; e += 256) if (e < u.size[i])

// g += weight_decay p;  v = momentum v + g;  p -= rate v, or with Nesterov's form rate (g + momentum v)
extern "C" __global__ void sgd(const Update u, double momentum, int nesterov, double weight_decay) {
  int i = parameter(u);
  A rate = (A)rate_of(u), decay = (A)weight_decay, keep = (A)momentum;
  FOR_EACH_ELEMENT(e, u, i) {
    A p = wide(u.value[i][e]), g = wide(u.grad[i][e]);
    if (weight_decay != 0) g = g + decay * p;
    if (momentum != 0) {
      A v = u.first[i][e] * keep + g;
      u.first[i][e] = v;
      g = nesterov ? g + keep * v : v;
    }
    u.value[i][e] = narrow(p - rate * g);
  }
}

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;  p -= rate / (1 - b1^t) m / (√v / √(1 - b2^t) + eps)
extern "C" __global__ void adam(const Update u, double beta1, double beta2, double eps, double weight_decay,
                                int decoupled) {
  __shared__ A of_step[3];
  int i = parameter(u);
  if (threadIdx.x == 0) {
    double rate = rate_of(u), t = steps_of(u) - u.before[i];
    of_step[0] = (A)(rate / (1 - pow(beta1, t)));
    of_step[1] = (A)sqrt(1 - pow(beta2, t));
    of_step[2] = (A)(rate * weight_decay);
  }
  __syncthreads();
  A rate = of_step[0], root_of_share = of_step[1], shrink = of_step[2], decay = (A)weight_decay;
  A keep1 = (A)beta1, keep2 = (A)beta2, take1 = (A)(1 - beta1), take2 = (A)(1 - beta2), small = (A)eps;
  FOR_EACH_ELEMENT(e, u, i) {
    A p = wide(u.value[i][e]), g = wide(u.grad[i][e]);
    if (weight_decay != 0 && !decoupled) g = g + decay * p;
    A m = u.first[i][e] * keep1 + take1 * g;
    A v = u.second[i][e] * keep2 + take2 * g * g;
    u.first[i][e] = m;
    u.second[i][e] = v;
    A change = rate * m / (sqrt(v) / root_of_share + small);
    if (decoupled) change = shrink * p + change;
    u.value[i][e] = narrow(p - change);
  }
}
