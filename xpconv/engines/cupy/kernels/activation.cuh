// Activations by number, in the order of `activation.NUMBERS` in Python: one jump, which all threads take alike, for all
// the values that a thread has. Those up to HARD_SWISH may follow another op in its kernel; the rest are elementwise.cu's.
enum Activation { NONE, RELU, RELU6, SIGMOID, TANH, SOFTPLUS, SILU, HARD_SWISH, LEAKY_RELU, ELU, HARD_SIGMOID, CLIP,
                  GELU, GELU_TANH };

__device__ __forceinline__ A smaller(A a, A b) { return a < b || a != a ? a : b; }

__device__ __forceinline__ A sigmoid(A x) {  // by exp of a number that is never positive
  A e = exp(-fabs(x));
  return quotient(x >= 0 ? (A)1 : e, 1 + e);
}
__device__ __forceinline__ A sigmoid_slope(A x) {
  A e = exp(-fabs(x));
  return quotient(e, (1 + e) * (1 + e));
}
// log(1 + e) for e from 0 to 1. In float32 by a polynomial, whose error is below 2e-9 of it; CUDA's own has a branch for more.
__device__ __forceinline__ float log_one_more(float e) {
  const float c[] = {0.999999998f,  -0.499997474f, 0.33321799f,   -0.248550181f,  0.191326069f,
                     -0.136910226f, 0.078298749f,  -0.0294228182f, 0.00518507369f};
  float sum = c[8];
#pragma unroll
  for (int i = 7; i >= 0; i--) sum = sum * e + c[i];
  return sum * e;
}
__device__ __forceinline__ double log_one_more(double e) { return log1p(e); }
__device__ __forceinline__ A relu6(A x) { return smaller(larger(x, (A)0), (A)6); }

template <class Of> __device__ __forceinline__ Values mapped(const Values &x, const Values &dy, Of of) {
  Values result;
  for (int k = 0; k < WIDTH; k++) result.v[k] = of(x.v[k], dy.v[k]);
  return result;
}
// Of every number v of x, and d of dy.
#define EACH(expression) return mapped(x, dy, [&](A v, A d) { return (A)(expression); });
#define EACH_OF_X(expression) return mapped(x, x, [&](A v, A) { return (A)(expression); });

__device__ inline Values activate(int which, const Values &x) {
  switch (which) {
    case RELU: EACH_OF_X(larger(v, (A)0))
    case RELU6: EACH_OF_X(relu6(v))
    case SIGMOID: EACH_OF_X(sigmoid(v))
    case TANH: EACH_OF_X(tanh(v))
    case SOFTPLUS: EACH_OF_X(larger(v, (A)0) + log_one_more(exp(-fabs(v))))
    case SILU: EACH_OF_X(v * sigmoid(v))
    case HARD_SWISH: EACH_OF_X(v * (relu6(v + 3) * (A)(1.0 / 6)))
    default: return x;
  }
}

__device__ __forceinline__ A inside(A y, A low, A high, A d) { return y > low && y < high ? d : (A)0; }
__device__ __forceinline__ A one_less_square(A y) { return 1 - y * y; }

// dx from the input x.
__device__ inline Values back_from_input(int which, const Values &x, const Values &dy) {
  switch (which) {
    case RELU: EACH(v > 0 ? d : (A)0)
    case RELU6: EACH(inside(v, 0, 6, d))
    case SIGMOID: EACH(d * sigmoid_slope(v))
    case TANH: EACH(d * one_less_square(tanh(v)))
    case SOFTPLUS: EACH(d * sigmoid(v))
    case SILU: EACH(d * (sigmoid(v) + v * sigmoid_slope(v)))
    case HARD_SWISH: EACH(v >= 3 ? d : v > -3 ? d * ((v + (A)1.5) * (A)(1.0 / 3)) : d * 0)
    default: return dy;
  }
}

// dx from the output y, of the activations where that is enough.
__device__ inline Values back_from_output(int which, const Values &x, const Values &dy) {
  switch (which) {
    case RELU: EACH(v > 0 ? d : (A)0)
    case RELU6: EACH(inside(v, 0, 6, d))
    case SIGMOID: EACH(d * (v * (1 - v)))
    case TANH: EACH(d * one_less_square(v))
    case SOFTPLUS: EACH(d * -expm1(-v))
    default: return dy;
  }
}
