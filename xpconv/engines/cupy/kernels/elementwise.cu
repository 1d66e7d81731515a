// Activations, also of the sum of two arrays, and their gradients.
//
// Launch: one thread for each WIDTH neighbouring elements, in blocks of 256.

__device__ __forceinline__ A near_zero(A x) { return smaller(larger(x, (A)-40), (A)40); }  // its cube is finite
__device__ __forceinline__ A tanh_inner(A x) { return (A)0.7978845608028654 * x * (1 + (A)0.044715 * x * x); }

__device__ __forceinline__ A gelu_tanh_slope(A x) {
  A near = near_zero(x), twice = 2 * tanh_inner(near);
  A slope = (A)1.5957691216057308 * (1 + (A)0.134145 * near * near);
  return sigmoid(twice) + near * slope * sigmoid_slope(twice);
}
__device__ __forceinline__ A gelu_slope(A x) {
  return normcdf(x) + x * exp((A)-0.5 * x * x) * (A)0.3989422804014327;
}

// Any activation: those that other kernels know, and the others, with two numbers that some of them take.
__device__ inline Values activate_any(int which, const Values &x, A p, A q) {
  switch (which) {
    case LEAKY_RELU: EACH_OF_X(v > 0 ? v : p * v)
    case ELU: EACH_OF_X(v > 0 ? v : p * expm1(v))
    case HARD_SIGMOID: EACH_OF_X(smaller(larger(p * v + q, (A)0), (A)1))
    case CLIP: EACH_OF_X(smaller(larger(v, p), q))
    case GELU: EACH_OF_X(v * normcdf(v))
    case GELU_TANH: EACH_OF_X(v * sigmoid(2 * tanh_inner(near_zero(v))))
    default: return activate(which, x);
  }
}

__device__ inline Values back_from_any_input(int which, const Values &x, const Values &dy, A p, A q) {
  switch (which) {
    case LEAKY_RELU: EACH(v > 0 ? d : p * d)
    case ELU: EACH(v > 0 ? d : d * p * exp(v))
    case HARD_SIGMOID: EACH(inside(p * v + q, 0, 1, p * d))
    case CLIP: EACH(v >= p && v <= q ? d : (A)0)
    case GELU: EACH(d * gelu_slope(v))
    case GELU_TANH: EACH(d * gelu_tanh_slope(v))
    default: return back_from_input(which, x, dy);
  }
}

extern "C" __global__ void forward(const T *x, T *y, long long n, int activation, double p, double q) {
  FOR_EACH(i, n / WIDTH) {
    Values value = widened(load(x + i * WIDTH));
    store(y + i * WIDTH, narrowed(activate_any(activation, value, (A)p, (A)q)));
  }
}

// dx from the output if `from_output`, else from the input.
extern "C" __global__ void backward(const T *kept, const T *dy, T *dx, long long n, int activation, bool from_output,
                                    double p, double q) {
  FOR_EACH(i, n / WIDTH) {
    Values value = widened(load(kept + i * WIDTH)), back = widened(load(dy + i * WIDTH));
    back = from_output ? back_from_output(activation, value, back)
                       : back_from_any_input(activation, value, back, (A)p, (A)q);
    store(dx + i * WIDTH, narrowed(back));
  }
}

// y = activation(x + other); `sums`, where wanted, is what the activation was applied to, as it was computed.
extern "C" __global__ void add(const T *x, const T *other, T *y, A *sums, long long n, int activation) {
  FOR_EACH(i, n / WIDTH) {
    Values sum = widened(load(x + i * WIDTH)), more = widened(load(other + i * WIDTH));
    for (int k = 0; k < WIDTH; k++) sum.v[k] += more.v[k];
    store(y + i * WIDTH, narrowed(activate(activation, sum)));
    if (sums) store(sums + i * WIDTH, sum);
  }
}

// dx of both, from what `add` kept of their sum.
extern "C" __global__ void back_from_sums(const A *sums, const T *dy, T *dx, long long n, int activation) {
  FOR_EACH(i, n / WIDTH) {
    Values sum = load(sums + i * WIDTH), back = widened(load(dy + i * WIDTH));
    store(dx + i * WIDTH, narrowed(back_from_input(activation, sum, back)));
  }
}
