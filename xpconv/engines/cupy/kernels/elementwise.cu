// Activations, also of the sum of two arrays, and their gradients. Launch: one thread for each WIDTH neighbouring elements, in blocks of 256.

extern "C" __global__ void forward(const T *x, T *y, long long n, int activation, double p, double q) {
  FOR_EACH(i, n / WIDTH) {
    Pack value = load(x + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) value.v[k] = narrow(activate(activation, wide(value.v[k]), (A)p, (A)q));
    store(y + i * WIDTH, value);
  }
}

// dx from the output if `from_output`, else from the input.
extern "C" __global__ void backward(const T *kept, const T *dy, T *dx, long long n, int activation, bool from_output,
                                    double p, double q) {
  FOR_EACH(i, n / WIDTH) {
    Pack value = load(kept + i * WIDTH), back = load(dy + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) {
      A v = wide(value.v[k]), d = wide(back.v[k]);
      back.v[k] = narrow(from_output ? back_from_output(activation, v, d) : back_from_input(activation, v, d, (A)p, (A)q));
    }
    store(dx + i * WIDTH, back);
  }
}

// y = activation(x + other); `sums`, where wanted, is what the activation was applied to, as it was computed.
extern "C" __global__ void add(const T *x, const T *other, T *y, A *sums, long long n, int activation) {
  FOR_EACH(i, n / WIDTH) {
    Pack one = load(x + i * WIDTH), two = load(other + i * WIDTH);
    PackOf<A> sum;
    for (int k = 0; k < WIDTH; k++) {
      sum.v[k] = wide(one.v[k]) + wide(two.v[k]);
      one.v[k] = narrow(activate(activation, sum.v[k], 0, 0));
    }
    store(y + i * WIDTH, one);
    if (sums) store(sums + i * WIDTH, sum);
  }
}

// dx of both, from what `add` kept of their sum.
extern "C" __global__ void back_from_sums(const A *sums, const T *dy, T *dx, long long n, int activation) {
  FOR_EACH(i, n / WIDTH) {
    PackOf<A> sum = load(sums + i * WIDTH);
    Pack back = load(dy + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) back.v[k] = narrow(back_from_input(activation, sum.v[k], wide(back.v[k]), 0, 0));
    store(dx + i * WIDTH, back);
  }
}
