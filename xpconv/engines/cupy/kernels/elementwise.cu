// Activations, also of the sum of two arrays, and their gradients.
//
// Launch: one thread for each WIDTH neighbouring elements, in blocks of 256.

// exp(-x²/2). In float32 by a power of two, which is one instruction; two roundings of its exponent are left, as of any.
__device__ __forceinline__ float bell(float x) { return exp2((float)-0.7213475204444817 * x * x); }

// In float64 as 2^n times a polynomial of v = x² + 2 n log 2, -log 2 to log 2, with what the rounding of x² leaves: within two
// units in the last place. Constants lie where instructions read them; written into the code, they take two each to load.
constexpr double FAR = 53;  // from there on exp(-x²/2) is 0
__constant__ double BELL[] = {1,
                              -0.5,
                              0.12500000000000033,
                              -0.020833333333333356,
                              0.0026041666666569833,
                              -0.0002604166666661347,
                              2.1701388980989913e-05,
                              -1.550099210776373e-06,
                              9.688081718609161e-08,
                              -5.382272164793485e-09,
                              2.6983904603439603e-10,
                              -1.226194848258369e-11};
__device__ __forceinline__ double near(double x) { return fabs(x) < FAR ? fabs(x) : FAR; }
__device__ __forceinline__ double bell(double x) {
  constexpr double WHOLE = 6755399441055744;  // 3 · 2⁵¹: a sum with it is a whole number, whose bits end the sum's
  double square = near(x) * near(x), left = fma(near(x), near(x), -square);
  double whole = fma(square, -0.7213475204444817, WHOLE);
  int n = __double2loint(whole), half = n >> 1;
  whole -= WHOLE;
  double v = fma(whole, 1.3862943611198906, square) + fma(whole, 4.638093627692599e-17, left), sum = BELL[11];
#pragma unroll
  for (int i = 10; i >= 0; i--) sum = fma(sum, v, BELL[i]);
  // Twice, since 2^n may be less than the least there is.
  return sum * __hiloint2double((half + 1023) << 20, 0) * __hiloint2double((n - half + 1023) << 20, 0);
}

// Φ(x), with bell(x) at hand: Φ(-|x|) / bell(x) as a polynomial of 1 / (1 + 0.28 |x|), whose error is below 1.3e-7 of Φ down
// to -3, and of 0.001 / x beyond. CUDA's own takes several times as many instructions.
__device__ __forceinline__ float normal_cdf(float x, float bell) {
  const float c[] = {-8.84624658e-4f, 0.124027340f, 0.0415374744f, 0.315868889f, -0.283956163f, 0.414534929f, -0.111127783f};
  float t = quotient(1.0f, 1 + 0.28f * fabs(x)), sum = c[6];
#pragma unroll
  for (int i = 5; i >= 0; i--) sum = sum * t + c[i];
  float tail = bell * sum;
  return x > 0 ? 1 - tail : tail;
}

// In float64 as a quotient of polynomials of |x|, whose error is below 1e-16: all terms are positive, so that none cancel.
__constant__ double ABOVE[] = {0.5,
                               0.774679666170202,
                               0.593764981413204,
                               0.2891318353636672,
                               0.09760927610343181,
                               0.02359492197208896,
                               0.0040834751126422476,
                               0.0004895735055804113,
                               3.7177558795978266e-05,
                               1.3822923117348223e-06};
__constant__ double BELOW[] = {1,
                               2.3472438931432595,
                               2.5603596256045433,
                               1.7134746597922292,
                               0.7814702700650563,
                               0.254719533022637,
                               0.060363947990269444,
                               0.010328944484776345,
                               0.0012306436847939364,
                               9.319032005756817e-05,
                               3.464892992410162e-06};
__device__ __forceinline__ double normal_cdf(double x, double bell) {
  double above = ABOVE[9], below = BELOW[10];
#pragma unroll
  for (int i = 9; i >= 0; i--) {
    if (i < 9) above = fma(above, near(x), ABOVE[i]);
    below = fma(below, near(x), BELOW[i]);
  }
  double tail = bell * above / below;
  return x > 0 ? 1 - tail : tail;
}

__device__ __forceinline__ A gelu(A x) { return x * normal_cdf(x, bell(x)); }
__device__ __forceinline__ A gelu_slope(A x) {
  A of = bell(x);
  return normal_cdf(x, of) + x * (A)0.3989422804014327 * of;
}

// exp(-2 u) of the approximation x · (1 + tanh u) / 2 = x / (1 + exp(-2 u)), u = √(2/π) (x + 0.044715 x³).
__device__ __forceinline__ A gelu_tanh_power(A x, A square) {
  return exp2(x * ((A)-2.302208198144325 + (A)-0.1029432395800235 * square));
}
__device__ __forceinline__ A gelu_tanh(A x) { return quotient(x, 1 + gelu_tanh_power(x, x * x)); }
__device__ __forceinline__ A gelu_tanh_slope(A x) {
  A near = fmin(fabs(x), (A)40), square = near * near;  // beyond, the power is 0; it keeps a nan
  A power = gelu_tanh_power(fabs(x), square), share = quotient((A)1, 1 + power), other = power * share;
  A slope = (A)1.5957691216057308 + (A)0.21406444881780076 * square;  // of 2 u
  return (x > 0 ? share : other) + copysign(near, x) * slope * (other * share);
}

// Any activation: those that other kernels know, and the others, with two numbers that some of them take.
__device__ inline Values activate_any(int which, const Values &x, A p, A q) {
  switch (which) {
    case LEAKY_RELU: EACH_OF_X(v > 0 ? v : p * v)
    case ELU: EACH_OF_X(v > 0 ? v : p * expm1(v))
    case HARD_SIGMOID: EACH_OF_X(smaller(larger(p * v + q, (A)0), (A)1))
    case CLIP: EACH_OF_X(smaller(larger(v, p), q))
    case GELU: EACH_OF_X(gelu(v))
    case GELU_TANH: EACH_OF_X(gelu_tanh(v))
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
