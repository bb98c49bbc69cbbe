// Attention over pages on raw pointers: what bind.cpp and the test driver see of attention.cpp.
#pragma once

#include <cstdint>

extern "C" {

// RAMIFY_INT8 is for pools alone: of each head head_dim codes, then RAMIFY_SCALE_BYTES that hold a bf16 scale; value = code * scale.
enum RamifyDtype : int32_t { RAMIFY_FP32 = 0, RAMIFY_BF16 = 1, RAMIFY_INT8 = 2 };
enum : int32_t { RAMIFY_SCALE_BYTES = 2 };

// 0: whatever the compiler targets, 1: AVX2 and FMA, 2: AVX512 (F, BW, VL, DQ), 3: AVX512-BF16 and AVX512-VNNI.
int32_t ramify_best_level();

// One step of one layer. Strides count elements. A span's meaning is that of kernels/attention/interface.py.
struct RamifyAttention {
    const void* q;  // [tokens, num_heads, head_dim], the last two dimensions contiguous
    int64_t q_stride;
    void* out;  // [tokens, num_heads, head_dim] contiguous, in q's dtype
    const void* k_pool;  // [slots, num_kv_heads, head_dim] contiguous, as is v_pool; int8: [..., head_dim + RAMIFY_SCALE_BYTES]
    const void* v_pool;
    int64_t slots;
    int32_t q_dtype, kv_dtype;
    int32_t num_heads, num_kv_heads, head_dim;  // head_dim: a multiple of 16, at most 256
    const int32_t* page_table;  // [rows, max_pages]
    int64_t page_table_stride;
    int32_t page_size;
    const int32_t *query_start, *query_length, *start, *row;  // [spans]
    int32_t spans;
    // What spans share, or null: a permutation of the spans, and how many positions of span order[i] lie in the same slots as
    // those of span order[i - 1]: the first shared[i] of both. It says what is read once, and changes no bit of the result.
    const int32_t *order, *shared;
    // What reading together costs, in bytes that memory gives in that time (attention_work.h); 0: the constants there.
    int64_t cost_of_piece, cost_of_joining;
    float scale;
    int32_t window;  // 0: none
    float soft_cap;  // 0: none
    int32_t causal;
    int32_t level;    // at most ramify_best_level()
    int32_t threads;  // at least 1
};

// Writes out for every token of every span. Returns 0, or 1 where a page that a span sees lies outside of the pool (out is then
// not complete). Keeps scratch memory per thread, which only grows.
int32_t ramify_attention(const RamifyAttention* call);

// Bytes of K and V that all calls of this process have asked memory for. What one item reads again for other rows, out of the
// cache, counts once.
int64_t ramify_attention_bytes();
}
