// Norm, rotation and gating of rows, for one set of instructions. All arithmetic is fp32, rounded to the tensors' dtype where
// the references round; a norm's sum of squares is kept in float64, where its order is lost in the last rounding.
#include "fused.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#ifdef __x86_64__
#include <immintrin.h>
#endif

// AVX512-BF16 brings nothing here: its rounding drops subnormals.
#if RAMIFY_LEVEL < 3 && (RAMIFY_LEVEL == 0 || defined(__x86_64__))

#include "level_begin.inc"
#include "lanes.inc"

typedef double Doubles __attribute__((vector_size(64)));
typedef float Eight __attribute__((vector_size(32)));

struct Squares {  // 16 sums in float64
    Doubles low, high;
};

static inline void add_squares(Squares& sums, Lanes x) {
    Eight part[2];
    std::memcpy(part, &x, sizeof x);
    const Doubles low = __builtin_convertvector(part[0], Doubles), high = __builtin_convertvector(part[1], Doubles);
    sums.low += low * low;  // a square of fp32 is exact in float64
    sums.high += high * high;
}

static inline float scale_of(const Squares& sums, int64_t size, double eps) {
    const Doubles x = sums.low + sums.high;
    const double total = ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
    return static_cast<float>(1.0 / std::sqrt(total / static_cast<double>(size) + eps));
}

template <class T>
static void norm(const RamifyNorm& call, int64_t first, int64_t last) {
    const T* weight = static_cast<const T*>(call.weight);
    const int64_t size = call.size;
    for (int64_t row = first; row < last; row++) {
        T* x = static_cast<T*>(call.x) + row * call.x_stride;
        T* out = static_cast<T*>(call.out) + row * size;
        Squares sums = {};
        if (call.delta) {
            const T* delta = static_cast<const T*>(call.delta) + row * call.delta_stride;
            over(size, [&](int64_t i, auto count) {
                const Lanes added = rounded<T>(read(x + i, count) + read(delta + i, count));
                write(x + i, added, count);
                add_squares(sums, added);
            });
        } else {
            over(size, [&](int64_t i, auto count) { add_squares(sums, read(x + i, count)); });
        }
        const Lanes scale = all(scale_of(sums, size, call.eps));
        over(size, [&](int64_t i, auto count) {
            write(out + i, rounded<T>(read(x + i, count) * scale) * read(weight + i, count), count);
        });
    }
}

// One head from `from` to `to`, normed if there is a weight, and turned.
template <class T>
static inline void turn(const T* from, const T* cos, const T* sin, const T* weight, int64_t size, double eps, T* to) {
    float scale = 1;
    if (weight) {
        Squares sums = {};
        over(size, [&](int64_t i, auto count) { add_squares(sums, read(from + i, count)); });
        scale = scale_of(sums, size, eps);
    }
    auto normed = [&](int64_t i, int64_t count) {
        const Lanes x = read(from + i, count);
        return weight ? rounded<T>(rounded<T>(x * scale) * read(weight + i, count)) : x;
    };
    const int64_t half = size / 2;
    over(half, [&](int64_t i, auto count) {
        const Lanes a = normed(i, count), b = normed(half + i, count);
        write(to + i, rounded<T>(a * read(cos + i, count)) + b * read(sin + i, count), count);
        write(to + half + i, rounded<T>(b * read(cos + half + i, count)) + a * read(sin + half + i, count), count);
    });
}

template <class T>
static void rotate(const RamifyRotate& call, int64_t first, int64_t last) {
    const int64_t size = call.head_dim, kv_size = call.kv_heads * size;
    const T* weight = static_cast<const T*>(call.weight);
    for (int64_t token = first; token < last; token++) {
        const T* from = static_cast<const T*>(call.qkv) + token * call.qkv_stride;
        const T *cos = static_cast<const T*>(call.turns) + token * call.turns_stride, *sin = cos + size;
        T* q = static_cast<T*>(call.q) + token * call.heads * size;
        T* k = static_cast<T*>(call.k_pool) + call.slots[token] * kv_size;
        for (int64_t head = 0; head < call.heads + call.kv_heads; head++, from += size) {
            T* to = head < call.heads ? q + head * size : k + (head - call.heads) * size;
            turn(from, cos, sin, weight ? weight + head * size : nullptr, size, call.eps, to);
        }
        std::memcpy(static_cast<T*>(call.v_pool) + call.slots[token] * kv_size, from, sizeof(T) * kv_size);
    }
}

// A vector of K or V in int8: codes, then their scale in bf16 (kernels/kv/int8.py). Where a number is not finite the scale is NaN.
template <class T>
static inline void write_int8(const T* from, int64_t size, int8_t* to) {
    Lanes most = {};
    Ints bad = {};
    over(size, [&](int64_t i, auto count) {
        const Lanes x = read(from + i, count), positive = x < 0 ? -x : x;
        most = positive > most ? positive : most;
        bad |= ~(positive <= 3.4028235e38f);
    });
    const float largest_of_all = top(most);
    bool finite = true;
    for (int i = 0; i < LANES; i++) finite &= !bad[i];
    const Lanes scale = rounded<uint16_t>(all(finite ? largest_of_all / 127.0f : NAN));
    const bool used = scale[0] > 0;
    over(size, [&](int64_t i, auto count) {
        const Lanes x = read(from + i, count) / scale, least = all(-127.0f), most = all(127.0f);
        const Lanes code = x < least ? least : x > most ? most : x;
        const Words bits = as<Words>(code + 12582912.0f);  // 1.5 * 2^23: the low bits are the nearest whole number
        int8_t codes[LANES];
        for (int k = 0; k < LANES; k++) codes[k] = static_cast<int8_t>(bits[k]);
        if (used) std::memcpy(to + i, codes, count);
        if (!used) std::memset(to + i, 0, count);
    });
    const uint16_t half = static_cast<uint16_t>(as<Words>(scale)[0] >> 16);
    std::memcpy(to + size, &half, sizeof half);
}

template <class T>
static void rotate_int8(const RamifyRotate& call, int64_t first, int64_t last) {
    const int64_t size = call.head_dim, row = size + RAMIFY_SCALE_BYTES;
    const T* weight = static_cast<const T*>(call.weight);
    T turned[RAMIFY_LARGEST_HEAD];
    for (int64_t token = first; token < last; token++) {
        const T* from = static_cast<const T*>(call.qkv) + token * call.qkv_stride;
        const T *cos = static_cast<const T*>(call.turns) + token * call.turns_stride, *sin = cos + size;
        T* q = static_cast<T*>(call.q) + token * call.heads * size;
        int8_t* k = static_cast<int8_t*>(call.k_pool) + call.slots[token] * call.kv_heads * row;
        int8_t* v = static_cast<int8_t*>(call.v_pool) + call.slots[token] * call.kv_heads * row;
        for (int64_t head = 0; head < call.heads + call.kv_heads; head++, from += size) {
            T* to = head < call.heads ? q + head * size : turned;
            turn(from, cos, sin, weight ? weight + head * size : nullptr, size, call.eps, to);
            if (head >= call.heads) write_int8(turned, size, k + (head - call.heads) * row);
        }
        for (int64_t head = 0; head < call.kv_heads; head++) write_int8(from + head * size, size, v + head * row);
    }
}

// x / (1 + exp(-x))
static inline Lanes silu(Lanes x) {
    const Lanes e = exp_of_negative(as<Lanes>(minus_abs(as<Vec>(x))));
    return (x < 0 ? x * e : x) / (1.0f + e);
}

template <class T>
static void gate(const RamifyGate& call, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++) {
        const T *gates = static_cast<const T*>(call.gate_up) + row * call.gate_up_stride, *up = gates + call.size;
        T* out = static_cast<T*>(call.out) + row * call.size;
        over(call.size, [&](int64_t i, auto count) {
            write(out + i, rounded<T>(silu(read(gates + i, count))) * read(up + i, count), count);
        });
    }
}

extern const RamifyFused FUSED;
const RamifyFused FUSED = {
    {norm<float>, norm<uint16_t>},
    {rotate<float>, rotate<uint16_t>},
    {gate<float>, gate<uint16_t>},
    {rotate_int8<float>, rotate_int8<uint16_t>},
};

#include "level_end.inc"
#endif
