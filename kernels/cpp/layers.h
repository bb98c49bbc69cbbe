// All layers of a decoder in one call, on raw pointers. Each piece is what the single operators call, so the bits are theirs.
#pragma once

#include <cstdint>
#include <vector>

#include "attention.h"
#include "linear.h"

namespace ramify_layers {

// A linear layer without its rows: one of the two calls of linear.h, with x, out and the number of threads left open.
struct Product {
    bool dense;
    ramify_linear::Dense bf16;
    ramify_linear::QuantizedProduct integers;

    int64_t columns() const { return dense ? bf16.columns : integers.weight.columns; }
    int64_t outputs() const { return dense ? bf16.outputs : integers.weight.outputs; }
    // x: [rows, columns], out: [rows, outputs], both contiguous.
    void multiply(const void* x, int64_t rows, void* out, int threads) const;
};

struct Layer {
    Product qkv, o, gate_up, down;
    const void* mlp_norm;   // [hidden]
    const void* next_norm;  // [hidden], of the layer above, or the last one
    const void* qk_norm;    // [heads + kv_heads, head_dim], or null
    int spec;
};

// How some layers attend: what RamifyAttention has of it.
struct Spec {
    float scale, soft_cap;
    int32_t window, causal;
    int64_t cost_of_piece, cost_of_joining;
};

struct Stack {
    int64_t hidden, inner, heads, kv_heads, head_dim;
    double eps;
    int32_t dtype;  // RamifyDtype: of everything but the weights of linear layers
    int fused_level, attention_level;
    const void* first_norm;  // [hidden]
    const void* rope;        // [positions, 2 * head_dim], as RamifyRotate's turns
    int64_t positions;
    std::vector<Spec> specs;
    std::vector<Layer> layers;
};

// K and V of each layer, [slots, kv_heads, head_dim] each; in int8 with RAMIFY_SCALE_BYTES behind each vector.
struct Pools {
    struct Layer {
        void *k, *v;
    };
    std::vector<Layer> layers;
    int64_t slots;
    int32_t dtype;  // RamifyDtype: the stack's, or RAMIFY_INT8
};

struct Step {
    void* x;  // [tokens, hidden], the embeddings: changed
    int64_t tokens;
    const int64_t* positions;  // [tokens], all within the stack's
    const int64_t* slots;      // [tokens], all within the pools
    const Pools* pools;
    RamifyAttention plan;  // spans and page table; the rest is filled in
    const int64_t* wanted;  // [num_wanted], all within the tokens
    int64_t num_wanted;
    void* out;  // [num_wanted, hidden]: after the last norm
    int threads;
};

// Writes K and V of all tokens, and out. Returns 0, or 1 where a page that a span sees lies outside of the pools (out is then not
// written). Keeps scratch memory per calling thread, which only grows.
int run(const Stack& stack, const Step& step);

}  // namespace ramify_layers
