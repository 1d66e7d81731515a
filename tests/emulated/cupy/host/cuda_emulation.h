// CUDA C++ for g++: a launch runs its blocks one after the other, and the threads of a block as fibers.
//
// The first thread of a block tells whether the kernel waits for other threads: if it ends without waiting, the rest
// run as plain calls. A fiber that waits hands over to the next; when all threads of a block (or of a warp, for
// shuffles) wait or have ended, they go on. Threads that wait for one another in vain are an error. Fibers are made once
// and used again for the next block; they switch by jumps, which unlike swapcontext make no system calls.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __constant__ static
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define EMULATED_CUPY 1

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace emulated {

enum Wait { RUNS, WAITS_FOR_WARP, WAITS_FOR_BLOCK, ENDED };
struct Fiber { jmp_buf here; ucontext_t first; uint3 thread; Wait wait; bool made; };

const int MOST = 1024;
const size_t STACK = 128 * 1024;
static Fiber fibers[MOST];
static char *stacks;
static jmp_buf scheduler;
static int running = -1;  // the fiber that runs; -1: a plain call
static void (*body)(void **);
static void **arguments;
static const char *error;
static unsigned long long slots[MOST];

static inline unsigned linear(const uint3 &t) { return t.x + blockDim.x * (t.y + blockDim.y * t.z); }

static void leave(int me) {
  if (!_setjmp(fibers[me].here)) _longjmp(scheduler, 1);
}

static void entry() {
  for (int me = running;; leave(me)) {
    body(arguments);
    fibers[me].wait = ENDED;
  }
}

static void wait(Wait for_what) {
  if (running < 0) {
    error = "a thread waits for others where the first thread of its block did not";
    return;
  }
  int me = running;
  fibers[me].wait = for_what;
  leave(me);
}

static void resume(int i) {
  running = i;
  threadIdx = fibers[i].thread;
  if (!_setjmp(scheduler)) {
    if (fibers[i].made) _longjmp(fibers[i].here, 1);
    fibers[i].made = true;
    setcontext(&fibers[i].first);
  }
  running = -1;
}

static void start(int i, uint3 thread) {
  Fiber &f = fibers[i];
  f.thread = thread;
  f.wait = RUNS;
  if (!f.made) {
    getcontext(&f.first);
    f.first.uc_stack.ss_sp = stacks + i * STACK;
    f.first.uc_stack.ss_size = STACK;
    f.first.uc_link = 0;
    makecontext(&f.first, entry, 0);
  }
  resume(i);
}

static bool release(int first, int last, Wait which) {
  bool some = false;
  for (int i = first; i < last; i++) {
    if (fibers[i].wait != which && fibers[i].wait != ENDED) return false;
    some = some || fibers[i].wait == which;
  }
  for (int i = first; i < last; i++)
    if (fibers[i].wait == which) fibers[i].wait = RUNS;
  return some;
}

static uint3 place(unsigned i) { return {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y}; }

static void run_block() {
  int n = blockDim.x * blockDim.y * blockDim.z;
  start(0, place(0));
  if (fibers[0].wait == ENDED) {
    for (int i = 1; i < n; i++) { threadIdx = place(i); body(arguments); }
    return;
  }
  for (int i = 1; i < n; i++) start(i, place(i));
  for (;;) {
    bool alive = false, released = release(0, n, WAITS_FOR_BLOCK);
    if (!released)
      for (int w = 0; w < n; w += 32) released = release(w, w + 32 < n ? w + 32 : n, WAITS_FOR_WARP) || released;
    for (int i = 0; i < n; i++) alive = alive || fibers[i].wait != ENDED;
    if (!alive) return;
    if (!released) {
      error = "threads wait for one another in vain";
      for (int i = 0; i < n; i++) fibers[i].made = false;
      return;
    }
    for (int i = 0; i < n; i++) if (fibers[i].wait == RUNS) resume(i);
  }
}

static const char *launch(void (*kernel)(void **), void **args, const unsigned *dims) {
  if (!stacks) stacks = (char *)malloc(MOST * STACK);
  body = kernel; arguments = args; error = 0;
  gridDim = {dims[0], dims[1], dims[2]};
  blockDim = {dims[3], dims[4], dims[5]};
  for (unsigned z = 0; z < gridDim.z; z++)
    for (unsigned y = 0; y < gridDim.y; y++)
      for (unsigned x = 0; x < gridDim.x && !error; x++) { blockIdx = {x, y, z}; run_block(); }
  return error;
}

// A kernel's signature as text, one word for each parameter: P and the pointer's element, or the scalar itself.
template <class T> struct Kind { static void tell(char *out) { sprintf(out, "V%zu", sizeof(T)); } };
template <class T> struct Kind<const T> : Kind<T> {};
template <class T> struct Kind<T *> { static void tell(char *out) { *out = 'P'; Kind<T>::tell(out + 1); } };
#define EMULATED_KIND(T, word) template <> struct Kind<T> { static void tell(char *out) { strcpy(out, word); } };
EMULATED_KIND(float, "f4") EMULATED_KIND(double, "f8") EMULATED_KIND(bool, "b1")
EMULATED_KIND(int, "i4") EMULATED_KIND(unsigned, "u4") EMULATED_KIND(long, "i8") EMULATED_KIND(unsigned long, "u8")
EMULATED_KIND(long long, "i8") EMULATED_KIND(unsigned long long, "u8") EMULATED_KIND(unsigned char, "u1")
EMULATED_KIND(signed char, "i1") EMULATED_KIND(char, "i1") EMULATED_KIND(short, "i2") EMULATED_KIND(unsigned short, "u2")

template <class... A> struct Kinds;
template <> struct Kinds<> { static void tell(char *) {} };
template <class A, class... B> struct Kinds<A, B...> {
  static void tell(char *out) { Kind<A>::tell(out); strcat(out, " "); Kinds<B...>::tell(out + strlen(out)); }
};
template <class... A> void tell(void (*)(A...), char *out) { *out = 0; Kinds<A...>::tell(out); }

template <int... I> struct Indices {};
template <int N, int... I> struct Upto : Upto<N - 1, N - 1, I...> {};
template <int... I> struct Upto<0, I...> { typedef Indices<I...> type; };
template <class... A, int... I> void call(void (*f)(A...), void **args, Indices<I...>) { f(*(A *)args[I]...); }
template <class... A> void call(void (*f)(A...), void **args) { call(f, args, typename Upto<sizeof...(A)>::type()); }

template <class T> T exchange(T value, unsigned from) {
  unsigned me = linear(threadIdx), n = blockDim.x * blockDim.y * blockDim.z;
  memcpy(&slots[me], &value, sizeof(T));
  wait(WAITS_FOR_WARP);
  T got;
  memcpy(&got, &slots[from < n ? from : me], sizeof(T));
  wait(WAITS_FOR_WARP);
  return got;
}

}  // namespace emulated

static inline void __syncthreads() { emulated::wait(emulated::WAITS_FOR_BLOCK); }
static inline void __syncwarp(unsigned = ~0u) { emulated::wait(emulated::WAITS_FOR_WARP); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::exchange(value, emulated::linear(threadIdx) ^ mask);
}
template <class T> T __shfl_sync(unsigned, T value, int lane) {
  return emulated::exchange(value, (emulated::linear(threadIdx) & ~31u) + lane);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned by) {
  unsigned me = emulated::linear(threadIdx);
  return emulated::exchange(value, (me & 31) + by < 32 ? me + by : me);
}

template <class T> inline T __ldg(const T *p) { return *p; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.7071067811865476); }
static inline float normcdf(float x) { return (float)normcdf((double)x); }
static inline int atomicMax(int *at, int x) { int old = *at; if (x > old) *at = x; return old; }
static inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
