// Activations by number, in the order of `activation.NUMBERS` in Python: a branch that all threads take alike.
enum Activation { NONE, RELU, RELU6, SIGMOID, TANH, SOFTPLUS, SILU, HARD_SWISH, LEAKY_RELU, ELU, HARD_SIGMOID, CLIP,
                  GELU, GELU_TANH };

__device__ __forceinline__ A smaller(A a, A b) { return a < b || a != a ? a : b; }

__device__ __forceinline__ A sigmoid(A x) {  // by exp of a number that is never positive
  A e = exp(-fabs(x));
  return (x >= 0 ? (A)1 : e) / (1 + e);
}
__device__ __forceinline__ A sigmoid_slope(A x) {
  A e = exp(-fabs(x));
  return e / ((1 + e) * (1 + e));
}
__device__ __forceinline__ A relu6(A x) { return smaller(larger(x, (A)0), (A)6); }

__device__ __forceinline__ A near_zero(A x) { return smaller(larger(x, (A)-40), (A)40); }  // its cube is finite
__device__ __forceinline__ A tanh_inner(A x) { return (A)0.7978845608028654 * x * (1 + (A)0.044715 * x * x); }

__device__ inline A activate(int which, A x, A p, A q) {
  switch (which) {
    case RELU: return larger(x, (A)0);
    case RELU6: return relu6(x);
    case SIGMOID: return sigmoid(x);
    case TANH: return tanh(x);
    case SOFTPLUS: return larger(x, (A)0) + log1p(exp(-fabs(x)));
    case SILU: return x * sigmoid(x);
    case HARD_SWISH: return x * (relu6(x + 3) * (A)(1.0 / 6));
    case LEAKY_RELU: return x > 0 ? x : p * x;
    case ELU: return x > 0 ? x : p * expm1(x);
    case HARD_SIGMOID: return smaller(larger(p * x + q, (A)0), (A)1);
    case CLIP: return smaller(larger(x, p), q);
    case GELU: return x * normcdf(x);
    case GELU_TANH: return x * sigmoid(2 * tanh_inner(near_zero(x)));
    default: return x;
  }
}

// dx from the input x.
__device__ inline A back_from_input(int which, A x, A dy, A p, A q) {
  switch (which) {
    case RELU: return x > 0 ? dy : (A)0;
    case RELU6: return x > 0 && x < 6 ? dy : (A)0;
    case SIGMOID: return dy * sigmoid_slope(x);
    case TANH: { A y = tanh(x); return dy * (1 - y * y); }
    case SOFTPLUS: return dy * sigmoid(x);
    case SILU: return dy * (sigmoid(x) + x * sigmoid_slope(x));
    case HARD_SWISH: return x >= 3 ? dy : x > -3 ? dy * ((x + (A)1.5) * (A)(1.0 / 3)) : dy * 0;
    case LEAKY_RELU: return x > 0 ? dy : p * dy;
    case ELU: return x > 0 ? dy : dy * p * exp(x);
    case HARD_SIGMOID: { A y = p * x + q; return y > 0 && y < 1 ? p * dy : (A)0; }
    case CLIP: return x >= p && x <= q ? dy : (A)0;
    case GELU: return dy * (normcdf(x) + x * exp((A)-0.5 * x * x) * (A)0.3989422804014327);
    case GELU_TANH: {
      A near = near_zero(x), twice = 2 * tanh_inner(near);
      A slope = (A)1.5957691216057308 * (1 + (A)0.134145 * near * near);
      return dy * (sigmoid(twice) + near * slope * sigmoid_slope(twice));
    }
    default: return dy;
  }
}

// dx from the output y, of the activations where that is enough.
__device__ inline A back_from_output(int which, A y, A dy) {
  switch (which) {
    case RELU: return y > 0 ? dy : (A)0;
    case RELU6: return y > 0 && y < 6 ? dy : (A)0;
    case SIGMOID: return dy * (y * (1 - y));
    case TANH: return dy * (1 - y * y);
    case SOFTPLUS: return dy * -expm1(-y);
    default: return dy;
  }
}
