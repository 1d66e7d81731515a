// What all kernels share. Before it stand the dtype (T as stored, A as computed in), `Index`, an integer type that
// counts the elements of the largest array, and WIDTH, how many neighbouring channels one thread takes.

template <class E> struct alignas(sizeof(E) * WIDTH) PackOf { E v[WIDTH]; };
typedef PackOf<T> Pack;
typedef PackOf<A> Values;

template <class E> __device__ __forceinline__ PackOf<E> load(const E *from) { return *(const PackOf<E> *)from; }
template <class E> __device__ __forceinline__ void store(E *to, const PackOf<E> &pack) { *(PackOf<E> *)to = pack; }

// A pack that waits for its use, in whole words: numbers of 16 bits would wait in a register each.
template <class E> struct alignas(sizeof(E) * WIDTH) Words {
  unsigned words[sizeof(E) * WIDTH / 4];
  __device__ __forceinline__ operator PackOf<E>() const { return *(const PackOf<E> *)words; }
};
template <class E, bool WHOLE> struct WaitingOf { typedef PackOf<E> Type; };
template <class E> struct WaitingOf<E, false> { typedef Words<E> Type; };
template <class E> using Waiting = typename WaitingOf<E, WIDTH == 1 || sizeof(E) >= 4>::Type;
template <class E> __device__ __forceinline__ Waiting<E> load_early(const E *from) { return *(const Waiting<E> *)from; }
// Has the compiler forget what it made of a pack that waits on: it would keep the numbers of 16 bits, in twice the registers.
template <class E> __device__ __forceinline__ void still_packed(Words<E> &pack) {
  for (unsigned &word : pack.words) asm volatile("" : "+r"(word));
}
template <class E> __device__ __forceinline__ void still_packed(PackOf<E> &) {}

__device__ __forceinline__ Values widened(const Pack &pack) {
  Values values;
  for (int k = 0; k < WIDTH; k++) values.v[k] = wide(pack.v[k]);
  return values;
}
__device__ __forceinline__ Pack narrowed(const Values &values) {
  Pack pack;
  for (int k = 0; k < WIDTH; k++) pack.v[k] = narrow(values.v[k]);
  return pack;
}
__device__ __forceinline__ Values filled(A x) {
  Values values;
  for (int k = 0; k < WIDTH; k++) values.v[k] = x;
  return values;
}
// Parameters of neighbouring channels, or what stands for those that are not there.
__device__ __forceinline__ Values load_or(const T *from, Index c, A otherwise) {
  return from ? widened(load(from + c)) : filled(otherwise);
}

// Sums of neighbouring channels, multiplied and shifted where there is what they are multiplied by.
__device__ __forceinline__ Values scaled(Values sums, const A *scale, const A *shift, Index c) {
  if (scale)
    for (int k = 0; k < WIDTH; k++) sums.v[k] = sums.v[k] * scale[c + k] + shift[c + k];
  return sums;
}
__device__ __forceinline__ Values plus(Values sums, const Values &one, const Values &other) {
  for (int k = 0; k < WIDTH; k++) sums.v[k] = sums.v[k] + one.v[k] + other.v[k];
  return sums;
}

__device__ __forceinline__ Index first_item() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ Index all_threads() { return (Index)gridDim.x * blockDim.x; }

// A thread's items in a launch of any size: i, i + threads, i + 2 threads, ... below n.
#define FOR_EACH(i, n) for (Index i = first_item(); i < (n); i += all_threads())

// A divisor with what makes division a product (Granlund and Montgomery), exact for numbers below 2³¹ or 2⁶³: dividing
// itself takes some 20 instructions, 100 in 64 bits, and a place in an array needs several. `divider` in Python fills it.
struct Divider {
  unsigned long long long_magic;
  long long by;
  unsigned magic;
  int shift;
};
__device__ __forceinline__ int over(int n, const Divider &d) { return __umulhi(d.magic, (unsigned)n << 1) >> d.shift; }
__device__ __forceinline__ long long over(long long n, const Divider &d) {
  return __umul64hi(d.long_magic, (unsigned long long)n << 1) >> d.shift;
}
// n / d, and what is left of n.
__device__ __forceinline__ Index split(Index n, const Divider &d, Index &rest) {
  Index quotient = over(n, d);
  rest = n - quotient * (Index)d.by;
  return quotient;
}

// A sum in blocks of 64 terms: of equal terms every rounding has the same sign, and a running sum would drift.
struct Sum {
  A total = 0, block = 0;
  int terms = 0;
  __device__ __forceinline__ void add(A x) {
    block += x;
    if (++terms == 64) { total += block; block = 0; terms = 0; }
  }
  __device__ __forceinline__ A value() const { return total + block; }
};

// The same of neighbouring channels, whose terms are counted once: `counted` after each.
struct Sums {
  Values total = filled(0), block = filled(0);
  int terms = 0;
  __device__ __forceinline__ void counted() {
    if (++terms < 64) return;
    for (int k = 0; k < WIDTH; k++) total.v[k] += block.v[k];
    block = filled(0);
    terms = 0;
  }
  __device__ __forceinline__ void add(const Values &x) {
    for (int k = 0; k < WIDTH; k++) block.v[k] += x.v[k];
    counted();
  }
  __device__ __forceinline__ Values values() const {
    Values sum;
    for (int k = 0; k < WIDTH; k++) sum.v[k] = total.v[k] + block.v[k];
    return sum;
  }
};

__device__ __forceinline__ A infinity() { return (A)__int_as_float(0x7f800000); }
__device__ __forceinline__ A not_a_number() { return (A)__int_as_float(0x7fffffff); }

// The larger of two, nan if one is.
__device__ __forceinline__ A larger(A a, A b) { return a > b || a != a ? a : b; }

// a / b within two units in the last place, for b from 2⁻¹²⁶ to 2¹²⁶: two instructions where rounding takes ten.
__device__ __forceinline__ float quotient(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }
