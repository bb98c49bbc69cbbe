// What happens between a layer's linears, on raw pointers: one call reads and writes everything once.
#pragma once

#include <cstdint>

#include "attention.h"

// Rows [first, last) of an operation. Strides count elements; all last dimensions are contiguous.
struct RamifyNorm {
    void* x;           // [rows, size]
    const void* delta;  // [rows, size], added to x in place; or null
    const void* weight;  // [size]
    void* out;           // [rows, size]
    int64_t size, x_stride, delta_stride;
    double eps;
};

struct RamifyRotate {
    const void* qkv;    // [tokens, (heads + 2 * kv_heads) * head_dim]
    const void* turns;  // [tokens, 2 * head_dim]: cos, and sin with its first half negated
    const void* weight;  // [heads + kv_heads, head_dim]: norms of q and k; or null
    void* q;             // [tokens, heads, head_dim]
    void *k_pool, *v_pool;  // [slots, kv_heads, head_dim]; in int8 [slots, kv_heads, head_dim + RAMIFY_SCALE_BYTES]
    const int64_t* slots;   // [tokens]
    int64_t qkv_stride, turns_stride;
    int64_t heads, kv_heads, head_dim;
    double eps;
};

constexpr int64_t RAMIFY_LARGEST_HEAD = 1024;  // head_dim of pools in int8

struct RamifyGate {
    const void* gate_up;  // [rows, 2 * size]
    void* out;            // [rows, size]
    int64_t size, gate_up_stride;
};

// The operations of one set of instructions, each for fp32 and bf16 (RamifyDtype).
struct RamifyFused {
    void (*norm[2])(const RamifyNorm&, int64_t first, int64_t last);
    void (*rotate[2])(const RamifyRotate&, int64_t first, int64_t last);
    void (*gate[2])(const RamifyGate&, int64_t first, int64_t last);
    void (*rotate_int8[2])(const RamifyRotate&, int64_t first, int64_t last);  // `rotate` into pools in int8
};

namespace level0 {
extern const RamifyFused FUSED;
}
#ifdef __x86_64__
namespace level1 {
extern const RamifyFused FUSED;
}
namespace level2 {
extern const RamifyFused FUSED;
}
#endif
